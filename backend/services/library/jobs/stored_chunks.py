"""What re-embedding and moving share: the stored chunks of a version, a batch at a time, and their vectors."""

from collections.abc import Sequence

from backend.chains.retrieval import entries
from backend.chains.retrieval.embeddings import Embedder
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.progress import JobProgress
from backend.storage.library.chunks import StoredChunk

BATCH = 64
"""Number of chunks that one step of a job handles."""


class ChunkBatches:
    """The chunks of one version in batches, counted in the job's progress."""

    def __init__(self, holdings: Holdings, progress: JobProgress) -> None:
        self._holdings = holdings
        self._progress = progress
        self._last = 0

    async def next(self, version: str) -> list[StoredChunk]:
        """The chunks that follow; fewer than BATCH if they are the last ones."""
        return await self._holdings.chunks.texts(version, self._last, BATCH)

    def count_done(self, chunks: Sequence[StoredChunk], total: int) -> bool:
        """Count these chunks as done, of `total` in the job. Returns whether they were the version's last ones."""
        if chunks:
            self._last = chunks[-1].n
            self._progress.count(self._progress.done + len(chunks), total)
        return len(chunks) < BATCH


async def embed_stored(holdings: Holdings, embedder: Embedder, key: str, chunks: Sequence[StoredChunk]) -> None:
    """Embed stored chunks as ingesting does, and store their vectors in the database and under the index's key."""
    import numpy as np

    texts = [entries.ChunkText(c.text, c.title, c.heading, c.context) for c in chunks]
    matrices = await entries.embed(embedder, texts, [entries.unpack_offsets(c.spans) for c in chunks])
    numbers = [c.n for c in chunks]
    packed = [entries.pack_vectors(matrix) for matrix in matrices]
    await holdings.chunks.add_vectors(embedder.fingerprint, list(zip(numbers, packed, strict=True)))
    await holdings.index.upsert(key, embedder.fingerprint, numbers, np.stack([matrix[0] for matrix in matrices]))
