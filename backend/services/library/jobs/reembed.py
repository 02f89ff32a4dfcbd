"""Embeds a collection with another model while searches go on: its next generation."""

from backend.chains.retrieval.embeddings import Embedder
from backend.chains.retrieval.index import index_key
from backend.errors import EmbeddingMismatch
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.progress import JobObsolete, JobProgress
from backend.services.library.jobs.stored_chunks import ChunkBatches, embed_stored
from backend.storage.library.jobs import JobRow


class ReembedJob:
    """The work of a job of kind `embed`: store vectors under the next key, then make searches use them in one commit.

    Documents that are added meanwhile are reported missing by that commit, and are embedded then. What was deleted
    meanwhile is removed after it.
    """

    def __init__(self, holdings: Holdings, job: JobRow, progress: JobProgress) -> None:
        self._holdings = holdings
        self._job = job
        self._progress = progress
        self._key = index_key(job.collection_id, job.generation + 1)
        self._ranges: dict[str, tuple[int, int]] = {}
        self._done: set[str] = set()
        self._todo: list[str] | None = None
        self._batches = ChunkBatches(holdings, progress)
        self._fingerprint = ""

    async def step(self) -> bool:
        """Embed one batch. Returns whether it was the last one.

        Raises JobObsolete, EmbeddingMismatch, EmbeddingError.
        """
        self._progress.enter("embedding")
        try:
            embedder = await self._holdings.embedders.by_name(self._job.progress["model"])
        except ValueError as error:
            raise EmbeddingMismatch(f"This server can't embed by that model: {error}") from None
        self._fingerprint = embedder.fingerprint
        if self._todo is None:
            await self._list_versions(set(await self._holdings.index.numbers(self._key)))
        if self._todo:
            await self._embed(embedder, self._todo[0])
            return False
        self._progress.enter("indexing")
        missing = await self._holdings.transfers.flip_generation(self._job, embedder.fingerprint, self._done)
        if missing is None:
            raise JobObsolete
        if missing:
            await self._list_versions(set())
            return False
        self._holdings.clean_later(self._job.collection_id, self._clean)
        return True

    async def _list_versions(self, present: set[int]) -> None:
        """List the active versions that are not done. `present`: the chunks that have vectors under the next key."""
        active = await self._holdings.transfers.active(self._job.collection_id)
        self._ranges |= active
        for version, (first, chunks) in active.items():
            if present.issuperset(range(first, first + chunks)):
                self._done.add(version)
        self._todo = [version for version in active if version not in self._done]
        total = sum(chunks for _, chunks in active.values())
        remaining = sum(active[version][1] for version in self._todo)
        self._progress.count(total - remaining, total, by_earlier_attempt=True)

    async def _embed(self, embedder: Embedder, version: str) -> None:
        chunks = await self._batches.next(version)
        if chunks:
            await embed_stored(self._holdings, embedder, self._key, chunks)
        if self._batches.count_done(chunks, self._progress.total):
            self._done.add(version)
            self._batches = ChunkBatches(self._holdings, self._progress)
            assert self._todo is not None
            self._todo.remove(version)

    async def _clean(self) -> None:
        """Remove the former generation, which no search uses any more, and vectors of deleted versions."""
        holdings, job = self._holdings, self._job
        if job.fingerprint is not None and job.fingerprint != self._fingerprint:
            for first, chunks in self._ranges.values():
                await holdings.chunks.remove_vectors(job.fingerprint, range(first, first + chunks))
        await holdings.index.drop(index_key(job.collection_id, job.generation))
        active = await holdings.transfers.active(job.collection_id)
        for version in self._done - set(active):
            first, chunks = self._ranges[version]
            await holdings.index.delete(self._key, range(first, first + chunks))
