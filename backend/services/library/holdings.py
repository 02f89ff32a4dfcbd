"""Where documents are: rows, vectors, files, and who embeds them. And how what nobody wants any more is removed."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from backend.chains.retrieval.embeddings import Embedders
from backend.chains.retrieval.index import VectorIndex, index_key
from backend.errors import StreamForgeError
from backend.storage.engine.database import Database
from backend.storage.library.chunks import Chunks
from backend.storage.library.collections import Collections
from backend.storage.library.document_rows import Discarded
from backend.storage.library.documents import Documents
from backend.storage.library.jobs import Jobs
from backend.storage.library.strays import Remains
from backend.storage.library.transfers import Transfers
from backend.storage.library.versions import Versions

log = structlog.get_logger(__name__)

_GRACE = 2.0
"""Seconds that searches have to end which began before a flip."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed; `vectors_left` is counted afterwards, and should be 0."""

    chunks: int = 0
    vectors: int = 0
    vectors_left: int = 0
    files: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(
            self.chunks + other.chunks,
            self.vectors + other.vectors,
            self.vectors_left + other.vectors_left,
            self.files + other.files,
        )


class Holdings:
    """The database is the truth; vectors and files follow it. `files` lie under the ids of their versions."""

    def __init__(self, database: Database, index: VectorIndex, embedders: Embedders, files: Path) -> None:
        self.collections = Collections(database)
        self.documents = Documents(database)
        self.versions = Versions(database)
        self.chunks = Chunks(database)
        self.jobs = Jobs(database)
        self.transfers = Transfers(database)
        self.remains = Remains(database)
        self.index = index
        self.embedders = embedders
        self.files = files
        self._later: set[asyncio.Task[None]] = set()

    async def keys(self, collection_id: str) -> list[str]:
        """Under which keys vectors of a collection may be: those of the embedding it has, and of the next."""
        row = await self.collections.known(collection_id)
        return [index_key(row.id, row.generation + n) for n in (0, 1)] if row is not None else []

    async def remove_versions(self, gone: Sequence[Discarded]) -> Removed:
        """Remove chunks, vectors and files of versions that nothing leads to any more, in small steps."""
        removed = Removed()
        for collection_id in {version.collection_id for version in gone}:
            some = [version for version in gone if version.collection_id == collection_id]
            chunks = await self.chunks.remove(collection_id, [version.id for version in some])
            vectors = left = 0
            numbers = [n for v in some if v.first is not None for n in range(v.first, v.first + (v.chunks or 0))]
            for key in await self.keys(collection_id):
                vectors += await self.index.delete(key, numbers)
                left += len(await self.index.present(key, numbers))
            files = await asyncio.to_thread(self.unlink, [version.id for version in some])
            removed += Removed(chunks, vectors, left, files)
        await self.versions.cleaned([version.id for version in gone])
        return removed

    async def remove_copies(self, collection_id: str, first: int, chunks: int) -> None:
        """Remove vectors and terms that a document which is elsewhere has in a collection."""
        numbers = range(first, first + chunks)
        for key in await self.keys(collection_id):
            await self.index.delete(key, numbers)
        await self.chunks.remove_terms(collection_id, numbers)

    def later(self, subject: str, clean: Callable[[], Awaitable[object]]) -> None:
        """Clean up when the searches that are under way have ended. If the process ends before, the sweep does it."""

        async def wait() -> None:
            await asyncio.sleep(_GRACE)
            try:
                await clean()
            except StreamForgeError as error:
                log.warning("cleaning_failed", code=error.code)

        task = asyncio.create_task(wait(), name=subject)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def cleaned(self, subject: str) -> None:
        """Return when nothing of the subject is left to be cleaned up."""
        if tasks := [task for task in self._later if task.get_name() == subject]:
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        """Leave what is to be cleaned up to the next start."""
        tasks = list(self._later)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def unlink(self, names: Sequence[str]) -> int:
        """Remove files; how many there were."""
        removed = 0
        for name in names:
            path = self.files / name
            if path.exists():
                path.unlink(missing_ok=True)
                removed += 1
        return removed
