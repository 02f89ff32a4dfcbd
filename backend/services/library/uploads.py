"""New content for the library: files that are added, and files that replace others."""

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from backend.errors import DocumentUnreadable, StorageFull, TooLarge
from backend.kit.ids import new_id
from backend.kit.locks import KeyedLocks
from backend.services.library.documents import DocumentService
from backend.services.library.file_names import display_name
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.progress import ProgressBoard
from backend.services.library.jobs.workers import JobWorkers
from backend.services.library.search.search import LibrarySearch
from backend.storage.library.documents import DocumentRow

_BLOCK = 1 << 20


class _NewFile(NamedTuple):
    version_id: str
    sha256: str
    size: int


class Uploads:
    """Stores files for an owner and queues them for the workers.

    `unstored` holds the version ids of files that are on disk and not in the database yet: the sweep must not remove
    them. `locks` are those of documents.
    """

    def __init__(
        self,
        holdings: Holdings,
        documents: DocumentService,
        workers: JobWorkers,
        board: ProgressBoard,
        search: LibrarySearch,
        locks: KeyedLocks,
        unstored: set[str],
        max_bytes: int,
    ) -> None:
        self._holdings = holdings
        self._documents = documents
        self._workers = workers
        self._board = board
        self._search = search
        self._locks = locks
        self._unstored = unstored
        self._max_bytes = max_bytes

    async def add(
        self, owner: str, name: str, source: BinaryIO, collection: str | None = None
    ) -> tuple[DocumentRow, bool]:
        """Store a file and queue it, in the collection with this id or name.

        Returns the document, and whether it is new: the same bytes are the same document.

        Raises NotFound (no such collection), TooLarge, DocumentUnreadable (`document_empty`), EmbeddingMismatch,
        StorageFull.
        """
        name = display_name(name)
        collections = self._holdings.collections
        row = await (collections.get(owner, collection) if collection else collections.default(owner))
        await self._search.check(owner, [row.id])
        async with self._file_on_disk(source, name) as file:
            document_id, version, is_new = await self._holdings.versions.add(
                owner, row.id, file.version_id, name, file.sha256, file.size
            )
            await self._keep_one_file(file.version_id, version)
        self._workers.wake()
        return await self._documents.get(owner, document_id), is_new

    async def replace(self, owner: str, document_id: str, source: BinaryIO) -> tuple[DocumentRow, bool]:
        """Store a new content of a document and queue it. Searches use the old content until the new one is ready.

        Returns the document, and whether anything changed. Raises NotFound, Conflict (`document_duplicate`), TooLarge,
        DocumentUnreadable, EmbeddingMismatch, StorageFull.
        """
        row = await self._documents.get(owner, document_id)
        await self._search.check(owner, [row.collection_id])
        async with self._file_on_disk(source, row.name) as file, self._locks.get(document_id):
            replaced = await self._holdings.versions.replace(
                owner, document_id, file.version_id, file.sha256, file.size
            )
            await self._keep_one_file(file.version_id, replaced.version)
            if replaced.discarded is not None:
                await self._workers.abandon([document_id])
                await self._holdings.remove_versions([replaced.discarded])
        self._workers.wake()
        self._board.announce(document_id)
        return await self._documents.get(owner, document_id), not replaced.unchanged

    @asynccontextmanager
    async def _file_on_disk(self, source: BinaryIO, name: str) -> AsyncGenerator[_NewFile]:
        """A copy of the file under a new version's id; it is removed again if no such version is stored."""
        version_id = new_id("ver")
        self._unstored.add(version_id)
        path = self._holdings.files / version_id
        try:
            sha256, size = await asyncio.to_thread(_copy, source, path, self._max_bytes, name)
            yield _NewFile(version_id, sha256, size)
        except BaseException:
            # The version may be stored although the request was cancelled.
            if not await self._holdings.versions.exists(version_id):
                path.unlink(missing_ok=True)
            raise
        finally:
            self._unstored.discard(version_id)

    async def _keep_one_file(self, new_version: str, version: str) -> None:
        """If the same bytes were stored before, as `version`, remove the new file. A lost file is replaced by it."""
        new, known = self._holdings.files / new_version, self._holdings.files / version
        if new_version != version:
            await asyncio.to_thread(lambda: new.unlink() if known.exists() else new.replace(known))


def _copy(source: BinaryIO, path: Path, max_bytes: int, name: str) -> tuple[str, int]:
    """Copy to disk. Returns SHA-256 in hex and size in bytes. Raises TooLarge, DocumentUnreadable, StorageFull."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("xb") as target:
            while block := source.read(_BLOCK):
                size += len(block)
                if size > max_bytes:
                    raise TooLarge.document(name, max_bytes)
                digest.update(block)
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        if error.errno == errno.ENOSPC or shutil.disk_usage(path.parent).free < _BLOCK:
            raise StorageFull.on_server() from None
        raise
    if size == 0:
        raise DocumentUnreadable("document_empty", f"{name} is empty. Upload a file with text in it.")
    return digest.hexdigest(), size
