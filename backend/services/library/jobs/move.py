"""Moves a document to another collection while searches go on."""

from backend.chains.retrieval.index import index_key
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.progress import JobBlocked, JobObsolete, JobOutdated, JobProgress
from backend.services.library.jobs.stored_chunks import ChunkBatches, embed_stored
from backend.storage.library.collections import CollectionRow
from backend.storage.library.transfers import Movable


class MoveJob:
    """The work of a job of kind `move`: store vectors and terms in the target, then move the document in one commit.

    Vectors are copied if both collections use the same embedding, and computed again otherwise. The document is never
    lost and never found twice: a chunk has the same number in both collections.
    """

    def __init__(self, holdings: Holdings, owner: str, document_id: str, target_id: str, progress: JobProgress) -> None:
        self._holdings = holdings
        self._owner = owner
        self._document_id = document_id
        self._target_id = target_id
        self._progress = progress
        self._origin: Movable | None = None
        self._batches = ChunkBatches(holdings, progress)

    async def can_copy_vectors(self) -> bool:
        """Whether the target uses the embedding that the document has, or can begin with it."""
        origin = await self._holdings.transfers.movable(self._owner, self._document_id)
        source = await self._holdings.collections.get(self._owner, origin.collection_id)
        target = await self._holdings.collections.get(self._owner, self._target_id)
        if origin.active is None or source.fingerprint == target.fingerprint:
            return True
        return target.fingerprint is None and source.fingerprint == await self._default_fingerprint()

    async def _default_fingerprint(self) -> str:
        return (await self._holdings.embedders.by_fingerprint(None)).fingerprint

    async def step(self) -> bool:
        """Handle one batch. Returns whether it was the last one.

        Raises JobObsolete, JobOutdated, JobBlocked, Conflict, EmbeddingError.
        """
        holdings = self._holdings
        # The document may move back to a collection from which its copies are just being removed.
        await holdings.wait_until_clean(self._document_id)
        origin = await holdings.transfers.movable(self._owner, self._document_id)
        if origin.collection_id == self._target_id:
            raise JobObsolete
        if origin.pending_status == "queued":
            raise JobBlocked
        before = self._origin
        if before is not None and (origin.active, origin.collection_id) != (before.active, before.collection_id):
            await self.undo()
            raise JobOutdated
        self._origin = origin
        source = await holdings.collections.get(self._owner, origin.collection_id)
        target = await holdings.collections.get(self._owner, self._target_id)
        if origin.active is None:
            await self._flip(origin, source, target, "")
            return True
        self._progress.enter("embedding")
        fingerprint, was_last = await self._copy(origin, source, target)
        if not was_last:
            return False
        self._progress.enter("indexing")
        await holdings.chunks.copy_terms(origin.active, source.id, target.id)
        await self._flip(origin, source, target, fingerprint)
        holdings.clean_later(self._document_id, lambda: holdings.remove_copies(source.id, origin.first, origin.chunks))
        return True

    async def _copy(self, origin: Movable, source: CollectionRow, target: CollectionRow) -> tuple[str, bool]:
        """Store the vectors of the next chunks. Returns the embedding's fingerprint, and whether they were the last."""
        holdings = self._holdings
        key = index_key(target.id, target.generation)
        chunks = await self._batches.next(origin.active or "")
        if await self.can_copy_vectors():
            fingerprint = source.fingerprint or ""
            source_key = index_key(source.id, source.generation)
            numbers, vectors = await holdings.index.vectors(source_key, [c.n for c in chunks])
            if numbers:
                await holdings.index.upsert(key, fingerprint, numbers, vectors)
        else:
            embedder = await holdings.embedders.by_fingerprint(target.fingerprint)
            fingerprint = embedder.fingerprint
            await embed_stored(holdings, embedder, key, chunks)
        return fingerprint, self._batches.count_done(chunks, origin.chunks)

    async def _flip(self, origin: Movable, source: CollectionRow, target: CollectionRow, fingerprint: str) -> None:
        """Move the document in one commit. Raises JobOutdated, Conflict."""
        if origin.pending is not None:
            # The pending version is not being read, and its text stays. Its chunks in the old collection are removed;
            # they are made again in the new one.
            await self._holdings.chunks.remove(source.id, [origin.pending.id])
            if origin.pending.first is not None:
                await self._holdings.remove_copies(source.id, origin.pending.first, origin.pending.chunks or 0)
        moved = await self._holdings.transfers.flip_collection(
            self._document_id, origin.active, source.id, target.id, target.generation, fingerprint
        )
        if not moved:
            await self.undo()
            raise JobOutdated

    async def undo(self) -> None:
        """Remove what was stored in the target."""
        if self._origin is not None and self._origin.active is not None:
            await self._holdings.remove_copies(self._target_id, self._origin.first, self._origin.chunks)
