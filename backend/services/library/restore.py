"""Restores vectors that are missing or damaged, from the copies that the database has for ranking sentences.

That takes no model and no provider. Meanwhile searches find by words, and by the vectors that are there already.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog

from backend.chains.retrieval import index_files
from backend.chains.retrieval.entries import unpack_vectors
from backend.chains.retrieval.index import IndexDamaged, index_key
from backend.errors import EmbeddingMismatch, StreamForgeError
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.workers import JobWorkers
from backend.storage.engine import space
from backend.storage.library.collections import CollectionRow
from backend.storage.library.strays import Range

log = structlog.get_logger(__name__)

_BATCH = 256
"""Vectors that are read and indexed in one step; other tasks use the index in between."""
_RETRY_SECONDS = 10.0
_RESET_PAUSE_SECONDS = 60.0
"""The shortest time between two resets: a fault that comes back at once must not keep the server busy."""
_WAIT_SECONDS = 5.0


class VectorRestorer:
    """Opens the index, and restores what it lacks."""

    def __init__(self, holdings: Holdings, workers: JobWorkers) -> None:
        self._holdings = holdings
        self._index = holdings.index
        self._workers = workers
        self._task: asyncio.Task[None] | None = None
        self._is_damaged = False
        self._reset_at = -_RESET_PAUSE_SECONDS
        self._wanted = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether the index is open."""
        return self._index.is_open

    async def open(self) -> None:
        """Open the index. If its files are damaged, an empty one takes their place and is filled by `restore_later`."""
        # Chroma removes what it has queued, but never makes its file smaller.
        await asyncio.to_thread(space.shrink, self._index.path / "chroma.sqlite3")
        try:
            await self._index.open()
        except IndexDamaged as error:
            log.error("vectors_damaged", problem=str(error.__cause__)[:300], action=_ACTION)
            await self._index.reset()
        self._index.on_damage = self.repair
        index_files.begin_loading(self._index.path)

    async def close(self) -> None:
        """Stop restoring. The next start continues."""
        self._index.on_damage = lambda damage: None
        index_files.end_loading(self._index.path)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def loaded(self) -> None:
        """Note that loading the vectors has not killed the process."""
        index_files.end_loading(self._index.path)

    def repair(self, problem: str) -> None:
        """Replace the index by a new one in the background, and restore its vectors."""
        if not self._is_damaged:
            self._is_damaged = True
            log.error("vectors_damaged", problem=problem, action=_ACTION)
        self.restore_later()

    def restore_later(self) -> None:
        """Restore missing vectors in the background."""
        self._wanted.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="vector-restorer")

    async def wait(self) -> None:
        """Wait until the vectors are restored, a few seconds at most: small libraries are complete then."""
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=_WAIT_SECONDS)

    async def _run(self) -> None:
        while self._wanted.is_set():
            self._wanted.clear()
            try:
                if self._is_damaged:
                    # What a job has put into the damaged index is lost: the jobs look again what is there.
                    await asyncio.sleep(self._reset_at + _RESET_PAUSE_SECONDS - time.monotonic())
                    await self._workers.abandon_all()
                    await self._index.reset()
                    self._is_damaged, self._reset_at = False, time.monotonic()
                await self._restore()
            except Exception as error:
                if not isinstance(error, StreamForgeError):
                    log.exception("vectors_not_restored")
                else:
                    log.warning("vectors_not_restored", code=error.code)
                self._wanted.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _restore(self) -> None:
        restored = queued = 0
        for row in await self._holdings.collections.all_owners():
            for version in await self._holdings.strays.ranges(row.id):
                if version.active and row.fingerprint is not None:
                    count = await self._restore_version(row, row.fingerprint, version)
                    restored += count or 0
                    queued += count is None
        if restored or queued:
            log.info("vectors_restored", vectors=restored, documents_queued=queued)
        self._workers.wake()

    async def _restore_version(self, row: CollectionRow, fingerprint: str, version: Range) -> int | None:
        """The number of vectors that were restored; None if the database lacks some, so that the version is embedded
        again."""
        key, numbers = index_key(row.id, row.generation), version.numbers
        if len(await self._index.present(key, numbers)) == version.chunks:
            return 0
        restored = 0
        for first in range(numbers.start, numbers.stop, _BATCH):
            last = min(first + _BATCH, numbers.stop) - 1
            rows = await self._holdings.chunks.vectors(fingerprint, first, last)
            if rows:
                await self._put(key, fingerprint, rows)
            restored += len(rows)
        if restored < version.chunks:
            await self._holdings.jobs.requeue([version.version_id])
            return None
        return restored

    async def _put(self, key: str, fingerprint: str, rows: Sequence[tuple[int, bytes]]) -> None:
        """Index the vectors, which the database has as `rows`."""
        vectors = await asyncio.to_thread(_vectors, fingerprint, rows)
        numbers = [n for n, _ in rows]
        try:
            await self._index.upsert(key, fingerprint, numbers, vectors)
        except EmbeddingMismatch:
            # The index is older or newer than the database, which is the truth.
            await self._index.drop(key)
            await self._index.upsert(key, fingerprint, numbers, vectors)


def _vectors(fingerprint: str, rows: Sequence[tuple[int, bytes]]) -> Any:
    """The vectors of chunks, (len(rows), dimension): the first of the stored ones is that of the whole chunk."""
    import numpy as np

    dimension = int(fingerprint.rpartition(":")[2])
    return np.stack([unpack_vectors(stored[:dimension], dimension)[0] for _, stored in rows])


_ACTION = "they are rebuilt from the database; until then, searches find by words"
