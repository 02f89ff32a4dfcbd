"""Stored documents: read, list, watch, rename, cancel, retry, delete."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.chains.history.images import image_type
from backend.chains.text.terms import about_terms
from backend.errors import Conflict, Invalid, NotFound
from backend.kit.locks import KeyedLocks
from backend.services.library.file_names import display_name
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.progress import (
    STAGES,
    ProgressBoard,
    document_entries,
    versions_in_stage,
    with_progress,
)
from backend.services.library.jobs.workers import JobWorkers
from backend.services.library.search.search import LibrarySearch
from backend.storage.library.documents import DocumentRow as DocumentRow
from backend.storage.library.documents import VersionRow as VersionRow

_RENAME_BATCH = 64
"""Number of chunks whose terms are renewed in one commit when a document is renamed."""
_NO_TEXT = {
    "queued": "The document has not been read yet. GET /documents/{{id}} tells how far it is.",
    "failed": "There is no text, since the document could not be read: {}",
    "cancelled": "There is no text, since reading the document was cancelled.",
}


@dataclass(frozen=True, slots=True)
class OriginalFile:
    """A file as it was uploaded. `displayable_type` is its media type if it is a PDF or an image that browsers display.
    It is detected from the content, also if the document couldn't be read: SVG and HTML may contain scripts.
    """

    name: str
    path: Path
    displayable_type: str | None


Status = Literal["queued", "parsing", "chunking", "embedding", "indexing", "ready", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class DocumentReceipt:
    """What the deletion of a document removed. `vectors_left` was counted after the removal."""

    document_id: str
    versions: int
    chunks_removed: int
    vectors_removed: int
    vectors_left: int
    file_removed: bool


@dataclass(frozen=True, slots=True)
class LibrarySize:
    """Numbers of all owners together: jobs by stage, searchable documents, their chunks."""

    jobs: dict[str, int]
    documents: int
    chunks: int


class DocumentService:
    """The documents of an owner; the documents of other owners raise NotFound. `locks` are those of documents."""

    def __init__(
        self,
        holdings: Holdings,
        workers: JobWorkers,
        board: ProgressBoard,
        search: LibrarySearch,
        locks: KeyedLocks,
    ) -> None:
        self._holdings = holdings
        self._rows = holdings.documents
        self._workers = workers
        self._board = board
        self._search = search
        self._locks = locks

    async def get(self, owner: str, document_id: str) -> DocumentRow:
        """One document with the progress of its jobs. Raises NotFound."""
        # The entries are read first: if the row still says "queued", the job had not ended when they were read.
        entries = document_entries(self._board, document_id)
        row = await self._rows.get(owner, document_id)
        return with_progress(row, [*entries, *document_entries(self._board, document_id)])

    async def page(
        self, owner: str, limit: int, before: str | None, collection: str | None = None, status: Status | None = None
    ) -> list[DocumentRow]:
        """A page of documents, newest first, of a collection (its id or name) and with a status if given.

        Raises NotFound (no such collection).
        """
        collection_id = None
        if collection is not None:
            collection_id = (await self._holdings.collections.get(owner, collection)).id
        stored_status, only, without = status, None, list[str]()
        if status is not None and status in STAGES:
            stored_status, only = "queued", versions_in_stage(self._board, status)
        elif status == "queued":
            without = [version for stage in STAGES for version in versions_in_stage(self._board, stage)]
        rows = await self._rows.page(owner, limit, before, collection_id, stored_status, only, without)
        return [with_progress(row, document_entries(self._board, row.id)) for row in rows]

    async def versions(self, owner: str, document_id: str) -> list[VersionRow]:
        """All versions, the newest first. Raises NotFound."""
        return await self._rows.versions(owner, document_id)

    async def check_exist(self, owner: str, ids: Sequence[str]) -> None:
        """Raises NotFound if one of the ids is not a document of the owner."""
        if missing := await self._rows.missing(owner, ids):
            raise NotFound(f"documents: no such document: {missing[0]}. GET /documents lists yours.")

    async def watch(self, owner: str, document_id: str) -> AsyncGenerator[DocumentRow]:
        """The document now and after each change. Ends when no job of it is left, or when the server stops.

        Raises NotFound.
        """
        last: DocumentRow | None = None
        while True:
            with self._board.next_change(document_id) as change:
                row = await self.get(owner, document_id)
                if row != last:
                    yield row
                    last = row
                if row.is_settled or self._board.is_dismissed:
                    return
                await change

    async def settled(self, owner: str, document_id: str) -> DocumentRow:
        """The document when no job of it is left, or when the server stops. Raises NotFound if it is deleted."""
        rows = [row async for row in self.watch(owner, document_id)]
        return rows[-1]

    async def text(
        self, owner: str, document_id: str, version: str | None, start: int, end: int | None
    ) -> tuple[str, str]:
        """The version, and `[start:end]` of its canonical text. `version` None: the active one.

        Raises NotFound, Invalid, Conflict (`document_not_ready`).
        """
        if end is not None and end < start:
            raise Invalid("end must not be before start.")
        part = await self._rows.text(owner, document_id, version, start, end)
        if part.text is None:
            message = _NO_TEXT.get(part.status, _NO_TEXT["queued"])
            raise Conflict(message.format(part.reason), code="document_not_ready")
        return part.version, part.text

    async def original(self, owner: str, document_id: str) -> OriginalFile:
        """The file as it was uploaded. Raises NotFound."""
        row = await self.get(owner, document_id)
        path = self._holdings.files / row.version
        try:
            head = await asyncio.to_thread(_head, path)
        except FileNotFoundError:
            raise NotFound("The stored file is gone. Upload it again.") from None
        return OriginalFile(row.name, path, _displayable_type(head))

    async def cancel(self, owner: str, document_id: str) -> DocumentRow:
        """Cancel the document's jobs. The version that searches find stays. Raises NotFound."""
        async with self._locks.get(document_id):
            before = await self.get(owner, document_id)
            await self._holdings.versions.cancel(owner, document_id)
            await self._workers.abandon([document_id])
            if before.moving is not None:
                await self._undo_move(owner, document_id, before.moving.collection_id)
        self._board.announce(document_id)
        return await self.get(owner, document_id)

    async def _undo_move(self, owner: str, document_id: str, target: str) -> None:
        """Remove the copies that the cancelled job made in the collection `target`."""
        source = await self._holdings.transfers.movable(owner, document_id)
        if source.active is not None and source.collection_id != target:
            await self._holdings.remove_copies(target, source.first, source.chunks)

    async def retry(self, owner: str, document_id: str) -> DocumentRow:
        """Try now what failed, was cancelled, or waits for its next attempt. Raises NotFound."""
        async with self._locks.get(document_id):
            await self._holdings.versions.retry(owner, document_id)
        self._workers.wake()
        self._board.announce(document_id)
        return await self.get(owner, document_id)

    async def rename(self, owner: str, document_id: str, name: str) -> None:
        """Change the name, and the terms by which searches find it. Raises NotFound."""
        async with self._locks.get(document_id):
            name = display_name(name)
            await self._holdings.versions.rename(owner, document_id, name)
            row = await self._rows.get(owner, document_id)
            if row.chunks:
                await self._index_name(row)
        self._board.announce(document_id)

    async def _index_name(self, row: DocumentRow) -> None:
        last = 0
        while chunks := await self._holdings.chunks.texts(row.version, last, _RENAME_BATCH):
            last = chunks[-1].n
            terms = [(c.n, about_terms(row.language, c.title, row.name, c.heading, c.context)) for c in chunks]
            await self._holdings.chunks.set_about(row.collection_id, terms)

    async def delete(self, owner: str, document_id: str) -> DocumentReceipt:
        """Remove a document with all its versions, vectors and files. Searches don't find it from the first commit on;
        what a crash leaves behind is removed at the next start.

        Raises NotFound.
        """
        async with self._locks.get(document_id):
            row = await self._rows.get(owner, document_id)
            versions = await self._holdings.versions.begin_delete([document_id])
            self._search.forget(owner)
            await self._workers.abandon([document_id])
            if row.moving is not None and row.chunks:
                first = next(v.first for v in versions if v.id == row.version) or 0
                await self._holdings.remove_copies(row.moving.collection_id, first, row.chunks)
            counts = await self._holdings.remove_versions(versions)
            await self._holdings.versions.end_delete([document_id])
        self._board.announce(document_id)
        return DocumentReceipt(
            document_id, len(versions), counts.chunks, counts.vectors, counts.vectors_left, counts.files > 0
        )

    async def size(self) -> LibrarySize:
        """Numbers of all owners together, for metrics."""
        by_stage = Counter(entry.progress.stage for entry in self._board.entries())
        jobs = {stage: by_stage[stage] for stage in STAGES}
        jobs["queued"] = max(0, await self._holdings.jobs.count() - sum(jobs.values()))
        documents, chunks = await self._rows.count_searchable()
        return LibrarySize(jobs, documents, chunks)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _displayable_type(head: bytes) -> str | None:
    return "application/pdf" if head.startswith(b"%PDF-") else image_type(head)
