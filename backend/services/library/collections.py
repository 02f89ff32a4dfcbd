"""Collections: named sets of documents, each embedded by one model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from backend.chains.retrieval.index import index_key
from backend.errors import Invalid, NotFound
from backend.kit.locks import KeyedLocks
from backend.services.library.holdings import Holdings, RemovalCounts
from backend.services.library.jobs.progress import ProgressBoard, embedding_progress
from backend.services.library.jobs.workers import JobWorkers
from backend.services.library.search.search import LibrarySearch
from backend.storage.library.collections import CollectionCounts, CollectionRow
from backend.storage.library.transfers import Embedding

log = structlog.get_logger(__name__)

_BATCH = 50
"""Number of documents that are deleted in one commit."""


@dataclass(frozen=True, slots=True)
class CollectionDetails:
    """A collection, the number of its documents and chunks, and its re-embedding while that runs."""

    row: CollectionRow
    counts: CollectionCounts
    embedding: Embedding | None


@dataclass(frozen=True, slots=True)
class CollectionReceipt:
    """What the deletion of a collection removed."""

    collection_id: str
    documents: int
    removed: RemovalCounts


class CollectionService:
    """The collections of an owner; the collections of other owners raise NotFound. A `reference` is an id or a name."""

    def __init__(self, holdings: Holdings, workers: JobWorkers, board: ProgressBoard, search: LibrarySearch) -> None:
        self._holdings = holdings
        self._rows = holdings.collections
        self._workers = workers
        self._board = board
        self._search = search
        self._locks = KeyedLocks()

    async def open(self) -> None:
        """Log a warning if collections were embedded with another model than EMBEDDING_MODEL."""
        name = self._holdings.embedders.name
        others = [
            f"{row.id} ({row.name}): {row.fingerprint}"
            for row in await self._rows.all_owners()
            if row.fingerprint is not None and row.fingerprint.rpartition(":")[0] != name
        ]
        if others:
            log.warning(
                "collections_of_other_embeddings",
                set=name,
                collections=others[:20],
                count=len(others),
                what="They keep serving with their own model. POST /collections/{id}/embed brings them to this one.",
            )

    async def all(self, owner: str) -> list[CollectionDetails]:
        """All collections of the owner, sorted by name. Creates the default one if there is none."""
        await self._rows.default(owner)
        return await self._details(owner, [row.id for row in await self._rows.by_owner(owner)])

    async def get(self, owner: str, reference: str) -> CollectionDetails:
        """One collection. Raises NotFound."""
        row = await self._rows.get(owner, reference)
        if not (collections := await self._details(owner, [row.id])):
            raise NotFound("No such collection. GET /collections lists yours.")
        return collections[0]

    async def create(self, owner: str, name: str) -> CollectionDetails:
        """Create an empty collection. Raises Conflict (`collection_exists`)."""
        return (await self._details(owner, [(await self._rows.create(owner, name)).id]))[0]

    async def rename(self, owner: str, reference: str, name: str) -> CollectionDetails:
        """Change the name. Raises NotFound, Conflict (`collection_exists`)."""
        collection_id = (await self._rows.get(owner, reference)).id
        await self._rows.rename(owner, collection_id, name)
        return await self.get(owner, collection_id)

    async def resolve(self, owner: str, references: Sequence[str]) -> list[str]:
        """The ids of the collections with these ids or names. Raises NotFound if the owner doesn't have one of them."""
        ids = await self._rows.ids(owner)
        if missing := [reference for reference in references if reference not in ids]:
            raise NotFound(f"collections: no such collection: {missing[0]}. GET /collections lists yours.")
        return list(dict.fromkeys(ids[reference] for reference in references))

    async def delete(self, owner: str, reference: str) -> CollectionReceipt:
        """Delete a collection with all its documents, a batch at a time. Raises NotFound."""
        row = await self._rows.get(owner, reference)
        collection_id = row.id
        documents, removed = 0, RemovalCounts()
        async with self._locks.get(collection_id):
            await self._holdings.transfers.cancel_embed(collection_id)
            await self._workers.abandon([collection_id])
            while not await self._rows.remove(owner, collection_id):
                document_ids = await self._holdings.documents.in_collection(collection_id, _BATCH)
                versions = await self._holdings.versions.begin_delete(document_ids)
                await self._workers.abandon(document_ids)
                removed += await self._holdings.remove_versions(versions)
                await self._holdings.versions.end_delete(document_ids)
                documents += len(document_ids)
                for document_id in document_ids:
                    self._board.announce(document_id)
            for generation in (row.generation, row.generation + 1):
                await self._holdings.index.drop(index_key(collection_id, generation))
        self._search.forget(owner)
        return CollectionReceipt(collection_id, documents, removed)

    async def embed(self, owner: str, reference: str, model: str) -> CollectionDetails:
        """Begin to re-embed a collection with `provider/model`; searches go on meanwhile.

        Raises NotFound, Invalid (`unknown_model`), Conflict (`embedding_running`), EmbeddingFailed.
        """
        row = await self._rows.get(owner, reference)
        collection_id = row.id
        try:
            await self._holdings.embedders.by_name(model)
        except ValueError as error:
            raise Invalid(f"model: {error}", code="unknown_model") from None
        async with self._locks.get(collection_id):
            running = (await self._holdings.transfers.embeddings([collection_id])).get(collection_id)
            if running is None or running.model != model:
                await self._holdings.transfers.begin_embed(owner, collection_id, model)
                # An earlier re-embedding, with any model, may have left vectors under this key.
                await self._holdings.index.drop(index_key(collection_id, row.generation + 1))
            else:
                await self._holdings.transfers.begin_embed(owner, collection_id, model)
        self._workers.wake()
        return await self.get(owner, collection_id)

    async def cancel_embed(self, owner: str, reference: str) -> CollectionDetails:
        """Stop the re-embedding; the collection keeps its embedding. Raises NotFound."""
        row = await self._rows.get(owner, reference)
        collection_id = row.id
        async with self._locks.get(collection_id):
            if await self._holdings.transfers.cancel_embed(collection_id):
                await self._workers.abandon([collection_id])
                await self._holdings.index.drop(index_key(collection_id, row.generation + 1))
        return await self.get(owner, collection_id)

    async def _details(self, owner: str, ids: list[str]) -> list[CollectionDetails]:
        # Jobs are read before rows: if a job ends between the two, the row has its result already.
        embeddings = await self._holdings.transfers.embeddings(ids)
        rows = [row for row in await self._rows.by_owner(owner) if row.id in ids]
        counts = await self._rows.counts([row.id for row in rows])
        for collection_id, embedding in embeddings.items():
            progress = embedding_progress(self._board, collection_id)
            if embedding.stage == "queued" and progress is not None:
                embeddings[collection_id] = replace(embedding, stage=progress.stage, progress=progress.as_json())
        return [CollectionDetails(row, count, embeddings.get(row.id)) for row, count in zip(rows, counts, strict=True)]
