"""Collections: named sets of documents, each embedded by one model."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

import structlog

from backend.chains.retrieval.index import index_key
from backend.errors import Invalid, NotFound
from backend.services.library.holdings import Holdings, Removed
from backend.services.library.jobs.workers import JobWorkers
from backend.services.library.search.search import LibrarySearch
from backend.storage.library.collections import CollectionCounts, CollectionRow
from backend.storage.library.transfers import Embedding

log = structlog.get_logger(__name__)

_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection, what it holds, and the embedding that is being built for it."""

    row: CollectionRow
    counts: CollectionCounts
    embedding: Embedding | None


@dataclass(frozen=True, slots=True)
class CollectionReceipt:
    """What the deletion of a collection removed."""

    collection_id: str
    documents: int
    removed: Removed


class CollectionService:
    """Collections of an owner; somebody else's raise NotFound."""

    def __init__(self, corpus: Holdings, ingestion: JobWorkers, knowledge: LibrarySearch) -> None:
        self._corpus = corpus
        self._rows = corpus.collections
        self._ingestion = ingestion
        self._knowledge = knowledge
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        """Tell of collections that another model embedded than the one that is set."""
        name = self._corpus.embedders.name
        others = [
            f"{row.id} ({row.name}): {row.fingerprint}"
            for row in await self._rows.every()
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

    async def all(self, owner: str) -> list[Collection]:
        """All of the owner's, by name; the default one too."""
        await self._rows.default(owner)
        return await self._whole(owner, [row.id for row in await self._rows.by_owner(owner)])

    async def get(self, owner: str, collection_id: str) -> Collection:
        """One collection. Raises NotFound."""
        if not (found := await self._whole(owner, [collection_id])):
            raise NotFound("No such collection. GET /collections lists yours.")
        return found[0]

    async def create(self, owner: str, name: str) -> Collection:
        """A new, empty one. Raises Conflict (`collection_exists`)."""
        return (await self._whole(owner, [(await self._rows.create(owner, name)).id]))[0]

    async def rename(self, owner: str, collection_id: str, name: str) -> Collection:
        """Another name. Raises NotFound, Conflict (`collection_exists`)."""
        await self._rows.rename(owner, collection_id, name)
        return await self.get(owner, collection_id)

    async def check_exist(self, owner: str, ids: Sequence[str]) -> None:
        """Raises NotFound when one of the ids is no collection of the owner's."""
        if missing := await self._rows.missing(owner, ids):
            raise NotFound(f"collections: no such collection: {missing[0]}. GET /collections lists yours.")

    async def delete(self, owner: str, collection_id: str) -> CollectionReceipt:
        """With all its documents, some at a time. Raises NotFound."""
        row = await self._rows.get(owner, collection_id)
        documents, removed = 0, Removed()
        async with self._lock(collection_id):
            await self._corpus.transfers.cancel_embed(collection_id)
            await self._ingestion.abandon([collection_id])
            while not await self._rows.remove(owner, collection_id):
                some = await self._corpus.documents.in_collection(collection_id, _AT_ONCE)
                gone = await self._corpus.versions.begin_delete(some)
                await self._ingestion.abandon(some)
                removed += await self._corpus.remove_versions(gone)
                await self._corpus.versions.end_delete(some)
                documents += len(some)
                for document_id in some:
                    self._ingestion.announce(document_id)
            for generation in (row.generation, row.generation + 1):
                await self._corpus.index.drop(index_key(collection_id, generation))
        self._knowledge.changed(owner)
        return CollectionReceipt(collection_id, documents, removed)

    async def embed(self, owner: str, collection_id: str, model: str) -> Collection:
        """Embed it anew by `provider/model`, while it serves. Raises NotFound, Invalid (`unknown_model`), Conflict
        (`embedding_running`), EmbeddingFailed."""
        row = await self._rows.get(owner, collection_id)
        try:
            await self._corpus.embedders.named(model)
        except ValueError as error:
            raise Invalid(f"model: {error}", code="unknown_model") from None
        async with self._lock(collection_id):
            running = (await self._corpus.transfers.embeddings([collection_id])).get(collection_id)
            if running is None or running.model != model:
                await self._corpus.transfers.begin_embed(owner, collection_id, model)
                # What an earlier one left under this key, of whatever model.
                await self._corpus.index.drop(index_key(collection_id, row.generation + 1))
            else:
                await self._corpus.transfers.begin_embed(owner, collection_id, model)
        self._ingestion.wake()
        return await self.get(owner, collection_id)

    async def cancel_embed(self, owner: str, collection_id: str) -> Collection:
        """It stays as it is embedded. Raises NotFound."""
        row = await self._rows.get(owner, collection_id)
        async with self._lock(collection_id):
            if await self._corpus.transfers.cancel_embed(collection_id):
                await self._ingestion.abandon([collection_id])
                await self._corpus.index.drop(index_key(collection_id, row.generation + 1))
        return await self.get(owner, collection_id)

    async def _whole(self, owner: str, ids: list[str]) -> list[Collection]:
        # Jobs before rows: a flip between the two would else show neither the embedding nor what came of it.
        embeddings = await self._corpus.transfers.embeddings(ids)
        rows = [row for row in await self._rows.by_owner(owner) if row.id in ids]
        counts = await self._rows.counts([row.id for row in rows])
        for collection_id, embedding in embeddings.items():
            if embedding.stage == "queued" and (stages := self._ingestion.stages_of(collection_id)) is not None:
                embeddings[collection_id] = replace(embedding, stage=stages.stage, progress=stages.told())
        return [Collection(row, count, embeddings.get(row.id)) for row, count in zip(rows, counts, strict=True)]

    def _lock(self, collection_id: str) -> asyncio.Lock:
        lock = self._locks.get(collection_id)
        if lock is None:
            lock = self._locks[collection_id] = asyncio.Lock()
        return lock
