"""What is stored for the library: rows, vectors and files, and how they are removed together."""

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
from backend.storage.library.strays import Strays
from backend.storage.library.transfers import Transfers
from backend.storage.library.versions import Versions

log = structlog.get_logger(__name__)

_GRACE = 2.0
"""Seconds in which searches end that began before a re-embedding or a move was finished."""


@dataclass(frozen=True, slots=True)
class RemovalCounts:
    """How much was removed. `vectors_left` is counted after the removal and should be 0."""

    chunks: int = 0
    vectors: int = 0
    vectors_left: int = 0
    files: int = 0

    def __add__(self, other: "RemovalCounts") -> "RemovalCounts":
        return RemovalCounts(
            self.chunks + other.chunks,
            self.vectors + other.vectors,
            self.vectors_left + other.vectors_left,
            self.files + other.files,
        )


class Holdings:
    """The rows, vectors and files of all documents.

    The database is the truth; vectors and files follow it. `files` is a folder. A file's name there is the id of its
    version, never a name that a client chose.
    """

    def __init__(self, database: Database, index: VectorIndex, embedders: Embedders, files: Path) -> None:
        self.collections = Collections(database)
        self.documents = Documents(database)
        self.versions = Versions(database)
        self.chunks = Chunks(database)
        self.jobs = Jobs(database)
        self.transfers = Transfers(database)
        self.strays = Strays(database)
        self.index = index
        self.embedders = embedders
        self.files = files
        self._cleaning: set[asyncio.Task[None]] = set()

    async def keys(self, collection_id: str) -> list[str]:
        """The index keys under which a collection may have vectors: of its embedding and of the next one."""
        row = await self.collections.find(collection_id)
        return [index_key(row.id, row.generation + n) for n in (0, 1)] if row is not None else []

    async def remove_versions(self, discarded: Sequence[Discarded]) -> RemovalCounts:
        """Remove the chunks, vectors and files of versions that no document has any more, in small steps."""
        removed = RemovalCounts()
        for collection_id in {version.collection_id for version in discarded}:
            versions = [version for version in discarded if version.collection_id == collection_id]
            chunks = await self.chunks.remove(collection_id, [version.id for version in versions])
            vectors = left = 0
            numbers = [n for v in versions if v.first is not None for n in range(v.first, v.first + (v.chunks or 0))]
            for key in await self.keys(collection_id):
                vectors += await self.index.delete(key, numbers)
                left += len(await self.index.present(key, numbers))
            files = await asyncio.to_thread(self.unlink, [version.id for version in versions])
            removed += RemovalCounts(chunks, vectors, left, files)
        await self.versions.mark_cleaned([version.id for version in discarded])
        return removed

    async def remove_copies(self, collection_id: str, first: int, chunks: int) -> None:
        """Remove the vectors and terms that a document has in a collection to which it doesn't belong (any more)."""
        numbers = range(first, first + chunks)
        for key in await self.keys(collection_id):
            await self.index.delete(key, numbers)
        await self.chunks.remove_terms(collection_id, numbers)

    def clean_later(self, subject: str, clean: Callable[[], Awaitable[object]]) -> None:
        """Call `clean` when the present searches have ended. If the process ends before that, the sweep cleans up.

        `subject` is the id of the document or collection, for `wait_until_clean`.
        """

        async def wait() -> None:
            await asyncio.sleep(_GRACE)
            try:
                await clean()
            except StreamForgeError as error:
                log.warning("cleaning_failed", code=error.code)

        task = asyncio.create_task(wait(), name=subject)
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    async def wait_until_clean(self, subject: str) -> None:
        """Return when no `clean_later` of the subject is left."""
        if tasks := [task for task in self._cleaning if task.get_name() == subject]:
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        """Cancel what is to be cleaned later; the next start does it."""
        tasks = list(self._cleaning)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def unlink(self, names: Sequence[str]) -> int:
        """Remove files. Returns how many existed."""
        removed = 0
        for name in names:
            path = self.files / name
            if path.exists():
                path.unlink(missing_ok=True)
                removed += 1
        return removed
