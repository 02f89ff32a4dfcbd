"""From one embedding to another, while searches go on: a collection's next generation, a document that moves."""

from collections.abc import Sequence

from backend.chains.retrieval import entries
from backend.chains.retrieval.embeddings import Embedder
from backend.chains.retrieval.index import index_key
from backend.errors import EmbeddingMismatch
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.progress import Changed, Gone, JobProgress, Waiting
from backend.storage.library.chunks import StoredChunk
from backend.storage.library.collections import CollectionRow
from backend.storage.library.jobs import JobRow
from backend.storage.library.transfers import Movable

BATCH = 64


class _Batches:
    """The chunks of a version, some at a time, counted as they are done."""

    def __init__(self, corpus: Holdings, stages: JobProgress) -> None:
        self._corpus = corpus
        self._stages = stages
        self._last = 0

    async def next(self, version: str) -> list[StoredChunk]:
        """The chunks that follow; fewer than BATCH when they are the last."""
        return await self._corpus.chunks.texts(version, self._last, BATCH)

    def done(self, chunks: Sequence[StoredChunk], total: int) -> bool:
        """These are done, of `total` in all; whether they were the version's last."""
        if chunks:
            self._last = chunks[-1].n
            self._stages.count(self._stages.done + len(chunks), total)
        return len(chunks) < BATCH


class ReembedJob:
    """The work of a job of kind `embed`: vectors under the next key, then one commit that makes searches use them.

    Documents that come meanwhile are found missing by that commit, and follow; those that go are removed after it.
    """

    def __init__(self, corpus: Holdings, job: JobRow, stages: JobProgress) -> None:
        self._corpus = corpus
        self._job = job
        self._stages = stages
        self._key = index_key(job.collection_id, job.generation + 1)
        self._ranges: dict[str, tuple[int, int]] = {}
        self._done: set[str] = set()
        self._todo: list[str] | None = None
        self._batches = _Batches(corpus, stages)
        self._fingerprint = ""

    async def step(self) -> bool:
        """One batch; whether it was the last. Raises Gone, EmbeddingError."""
        self._stages.enter("embedding")
        try:
            embedder = await self._corpus.embedders.named(self._job.progress["model"])
        except ValueError as error:
            raise EmbeddingMismatch(f"This server can't embed by that model: {error}") from None
        self._fingerprint = embedder.fingerprint
        if self._todo is None:
            await self._look(set(await self._corpus.index.numbers(self._key)))
        if self._todo:
            await self._embed(embedder, self._todo[0])
            return False
        self._stages.enter("indexing")
        missing = await self._corpus.transfers.flip_generation(self._job, embedder.fingerprint, self._done)
        if missing is None:
            raise Gone
        if missing:
            await self._look(set())
            return False
        self._corpus.later(self._job.collection_id, self._clean)
        return True

    async def _look(self, present: set[int]) -> None:
        """What there is to do: the active versions that are not done."""
        active = await self._corpus.transfers.active(self._job.collection_id)
        self._ranges |= active
        for version, (first, chunks) in active.items():
            if present.issuperset(range(first, first + chunks)):
                self._done.add(version)
        self._todo = [version for version in active if version not in self._done]
        total = sum(chunks for _, chunks in active.values())
        rest = sum(active[version][1] for version in self._todo)
        self._stages.count(total - rest, total, fresh=False)

    async def _embed(self, embedder: Embedder, version: str) -> None:
        chunks = await self._batches.next(version)
        if chunks:
            await embed_stored(self._corpus, embedder, self._key, chunks)
        if self._batches.done(chunks, self._stages.total):
            self._done.add(version)
            self._batches = _Batches(self._corpus, self._stages)
            assert self._todo is not None
            self._todo.remove(version)

    async def _clean(self) -> None:
        """Nobody searches the former generation any more."""
        corpus, job = self._corpus, self._job
        if job.fingerprint is not None and job.fingerprint != self._fingerprint:
            for first, chunks in self._ranges.values():
                await corpus.chunks.remove_vectors(job.fingerprint, range(first, first + chunks))
        await corpus.index.drop(index_key(job.collection_id, job.generation))
        active = await corpus.transfers.active(job.collection_id)
        for version in self._done - set(active):
            first, chunks = self._ranges[version]
            await corpus.index.delete(self._key, range(first, first + chunks))


class MoveJob:
    """A document's way into another collection: vectors and terms come there first, then one commit moves it.

    Vectors are copied where both embed alike, and made anew else. At no moment is it lost, nor found twice: a chunk has
    the same number in both.
    """

    def __init__(self, corpus: Holdings, owner: str, document_id: str, target_id: str, stages: JobProgress) -> None:
        self._corpus = corpus
        self._owner = owner
        self._document_id = document_id
        self._target_id = target_id
        self._stages = stages
        self._from: Movable | None = None
        self._batches = _Batches(corpus, stages)

    async def alike(self) -> bool:
        """Whether vectors can be copied."""
        at = await self._corpus.transfers.movable(self._owner, self._document_id)
        source = await self._corpus.collections.get(self._owner, at.collection_id)
        target = await self._corpus.collections.get(self._owner, self._target_id)
        if at.active is None or source.fingerprint == target.fingerprint:
            return True
        return target.fingerprint is None and source.fingerprint == await self._default_fingerprint()

    async def _default_fingerprint(self) -> str:
        return (await self._corpus.embedders.of(None)).fingerprint

    async def step(self) -> bool:
        """One batch; whether it was the last. Raises Gone, Changed, Waiting, Conflict, EmbeddingError."""
        corpus = self._corpus
        # It may come back to where its copies are just being removed.
        await corpus.cleaned(self._document_id)
        at = await corpus.transfers.movable(self._owner, self._document_id)
        if at.collection_id == self._target_id:
            raise Gone
        if at.pending_status == "queued":
            raise Waiting
        if self._from is not None and (at.active, at.collection_id) != (self._from.active, self._from.collection_id):
            await self.undo()
            raise Changed
        self._from = at
        source = await corpus.collections.get(self._owner, at.collection_id)
        target = await corpus.collections.get(self._owner, self._target_id)
        if at.active is None:
            await self._flip(at, source, target, "")
            return True
        self._stages.enter("embedding")
        fingerprint, was_last = await self._copy(at, source, target)
        if not was_last:
            return False
        self._stages.enter("indexing")
        await corpus.chunks.copy_terms(at.active, source.id, target.id)
        await self._flip(at, source, target, fingerprint)
        corpus.later(self._document_id, lambda: corpus.remove_copies(source.id, at.first, at.chunks))
        return True

    async def _copy(self, at: Movable, source: CollectionRow, target: CollectionRow) -> tuple[str, bool]:
        """The vectors of the next chunks: the embedding's fingerprint, and whether they were the last."""
        corpus = self._corpus
        key = index_key(target.id, target.generation)
        chunks = await self._batches.next(at.active or "")
        if await self.alike():
            fingerprint = source.fingerprint or ""
            numbers, vectors = await corpus.index.vectors(
                index_key(source.id, source.generation), [c.n for c in chunks]
            )
            if numbers:
                await corpus.index.upsert(key, fingerprint, numbers, vectors)
        else:
            embedder = await corpus.embedders.of(target.fingerprint)
            fingerprint = embedder.fingerprint
            await embed_stored(corpus, embedder, key, chunks)
        return fingerprint, self._batches.done(chunks, at.chunks)

    async def _flip(self, at: Movable, source: CollectionRow, target: CollectionRow, fingerprint: str) -> None:
        """Raises Changed, Conflict."""
        if at.pending is not None:
            # It waits for nothing, and its text stays: what was stored of it in the old collection is made anew.
            await self._corpus.chunks.remove(source.id, [at.pending.id])
            if at.pending.first is not None:
                await self._corpus.remove_copies(source.id, at.pending.first, at.pending.chunks or 0)
        moved = await self._corpus.transfers.flip_collection(
            self._document_id, at.active, source.id, target.id, target.generation, fingerprint
        )
        if not moved:
            await self.undo()
            raise Changed

    async def undo(self) -> None:
        """Remove what came into the target."""
        if self._from is not None and self._from.active is not None:
            await self._corpus.remove_copies(self._target_id, self._from.first, self._from.chunks)


async def embed_stored(corpus: Holdings, embedder: Embedder, key: str, chunks: Sequence[StoredChunk]) -> list[int]:
    """Embed stored chunks as when they were cut, and keep their vectors under the key; their numbers."""
    import numpy as np

    texts = [entries.ChunkText(c.text, c.title, c.heading, c.context) for c in chunks]
    matrices = await entries.embed(embedder, texts, [entries.unpack_spans(c.spans) for c in chunks])
    numbers = [c.n for c in chunks]
    packed = [entries.pack_vectors(matrix) for matrix in matrices]
    await corpus.chunks.add_vectors(embedder.fingerprint, list(zip(numbers, packed, strict=True)))
    await corpus.index.upsert(key, embedder.fingerprint, numbers, np.stack([matrix[0] for matrix in matrices]))
    return numbers
