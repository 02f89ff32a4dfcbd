"""Uploaded documents: add, list, watch, read, replace, move, delete."""

import asyncio
import hashlib
import os
import shutil
import unicodedata
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal
from weakref import WeakValueDictionary

from backend.chains.text.terms import about_terms
from backend.config.groups.accounts import LOCAL
from backend.errors import Conflict, DocumentUnreadable, Invalid, NotFound, StorageFull, TooLarge
from backend.kit.ids import new_id
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.progress import Changed, Gone, JobProgress, Waiting
from backend.services.library.jobs.reembed import BATCH, MoveJob
from backend.services.library.jobs.workers import JobWorkers
from backend.services.library.search.search import LibrarySearch
from backend.services.library.sweep import Sweep, Swept
from backend.storage.library.documents import DocumentRow as DocumentRow
from backend.storage.library.documents import VersionRow as VersionRow

MAX_NAME = 255
_BLOCK = 1 << 20
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_UNREAD = {
    "queued": "The document has not been read yet. GET /documents/{{id}} tells how far it is.",
    "failed": "There is no text, since the document could not be read: {}",
    "cancelled": "There is no text, since reading the document was cancelled.",
}
_MOVES = 5
"""How often a move begins again because something else changed the document."""

Status = Literal["queued", "parsing", "chunking", "embedding", "indexing", "ready", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the deletion of a document removed. `vectors_left` was counted again afterwards."""

    document_id: str
    versions: int
    chunks_removed: int
    vectors_removed: int
    vectors_left: int
    file_removed: bool


class DocumentService:
    """Documents of an owner. Files lie under `files`, named by their version's id, never by what a client said."""

    def __init__(self, corpus: Holdings, ingestion: JobWorkers, knowledge: LibrarySearch, max_bytes: int) -> None:
        self._corpus = corpus
        self._rows = corpus.documents
        self._ingestion = ingestion
        self._knowledge = knowledge
        self._max_bytes = max_bytes
        self._arriving: set[str] = set()
        self._sweep = Sweep(corpus, self._arriving)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        """Put right what an earlier process left half done; to be called before the ingestion opens."""
        await self._sweep.at_start()

    async def add(
        self, owner: str, name: str, source: BinaryIO, collection_id: str | None = None
    ) -> tuple[DocumentRow, bool]:
        """Store a file and queue it; the document, and whether it is new (the same bytes are the same document).

        Raises NotFound (no such collection), TooLarge, DocumentUnreadable (`document_empty`), EmbeddingMismatch,
        StorageFull.
        """
        name = display_name(name)
        collections = self._corpus.collections
        row = await (collections.get(owner, collection_id) if collection_id else collections.default(owner))
        await self._knowledge.check(owner, [row.id])
        async with self._arrival(source, name) as (version_id, sha256, size):
            document_id, version, new = await self._corpus.versions.add(owner, row.id, version_id, name, sha256, size)
            await self._keep_one(version_id, version)
        self._ingestion.wake()
        return await self.get(owner, document_id), new

    async def replace(self, owner: str, document_id: str, source: BinaryIO) -> tuple[DocumentRow, bool]:
        """A new content; the document, and whether anything changed. What it has is found until the new is ready.

        Raises NotFound, Conflict (`document_duplicate`), TooLarge, DocumentUnreadable, EmbeddingMismatch, StorageFull.
        """
        row = await self.get(owner, document_id)
        await self._knowledge.check(owner, [row.collection_id])
        async with self._arrival(source, row.name) as (version_id, sha256, size), self._lock(document_id):
            done = await self._corpus.versions.replace(owner, document_id, version_id, sha256, size)
            await self._keep_one(version_id, done.version)
            if done.discarded is not None:
                await self._ingestion.abandon([document_id])
                await self._corpus.remove_versions([done.discarded])
        self._ingestion.wake()
        self._ingestion.announce(document_id)
        return await self.get(owner, document_id), not done.unchanged

    @asynccontextmanager
    async def _arrival(self, source: BinaryIO, name: str) -> AsyncGenerator[tuple[str, str, int]]:
        """A file on disk under a new version's id, its SHA-256 and size; removed again if no such version is stored."""
        version_id = new_id("ver")
        self._arriving.add(version_id)
        path = self._corpus.files / version_id
        try:
            sha256, size = await asyncio.to_thread(_copy, source, path, self._max_bytes, name)
            yield version_id, sha256, size
        except BaseException:
            # A cancelled request may have stored it all the same.
            if not await self._corpus.versions.exists(version_id):
                path.unlink(missing_ok=True)
            raise
        finally:
            self._arriving.discard(version_id)

    async def _keep_one(self, arrived: str, version: str) -> None:
        """The same bytes are here already; unless their file was lost, then the new one takes its place."""
        new, known = self._corpus.files / arrived, self._corpus.files / version
        if arrived != version:
            await asyncio.to_thread(lambda: new.unlink() if known.exists() else new.replace(known))

    async def get(self, owner: str, document_id: str) -> DocumentRow:
        """One document. Raises NotFound."""
        begun = self._ingestion.at_work(document_id)
        return self._ingestion.current(await self._rows.get(owner, document_id), begun)

    async def page(
        self, owner: str, limit: int, before: str | None, collection_id: str | None = None, status: Status | None = None
    ) -> list[DocumentRow]:
        """A page of documents, newest first: of a collection, with a status. Raises NotFound (no such collection)."""
        if collection_id is not None:
            await self._corpus.collections.get(owner, collection_id)
        stored, only, without = status, None, list[str]()
        if status in ("parsing", "chunking", "embedding", "indexing"):
            stored, only = "queued", self._ingestion.versions_in(status)
        elif status == "queued":
            without = self._ingestion.versions_in(None)
        rows = await self._rows.page(owner, limit, before, collection_id, stored, only, without)
        return [self._ingestion.current(row) for row in rows]

    async def versions(self, owner: str, document_id: str) -> list[VersionRow]:
        """All versions, the newest first. Raises NotFound."""
        return await self._rows.versions(owner, document_id)

    async def check_exist(self, owner: str, ids: Sequence[str]) -> None:
        """Raises NotFound when one of the ids is no document of the owner's."""
        if missing := await self._rows.missing(owner, ids):
            raise NotFound(f"documents: no such document: {missing[0]}. GET /documents lists yours.")

    async def watch(self, owner: str, document_id: str) -> AsyncGenerator[DocumentRow]:
        """The document, again at each change, until nothing more happens by itself, or the server stops.

        Raises NotFound.
        """
        last: DocumentRow | None = None
        while True:
            with self._ingestion.next_change(document_id) as change:
                row = await self.get(owner, document_id)
                if row != last:
                    yield row
                    last = row
                if row.settled or self._ingestion.dismissed:
                    return
                await change

    async def levels(self) -> tuple[dict[str, int], int, int]:
        """Of everybody's: jobs by stage, searchable documents, their chunks."""
        return (await self._ingestion.jobs_by_stage(), *await self._rows.stock())

    def dismiss_watchers(self) -> None:
        """The server stops: streams of documents end."""
        self._ingestion.dismiss_watchers()

    async def settled(self, owner: str, document_id: str) -> DocumentRow:
        """The document once nothing more happens (or the server stops). Raises NotFound when it is deleted."""
        rows = [row async for row in self.watch(owner, document_id)]
        return rows[-1]

    async def text(
        self, owner: str, document_id: str, version: str | None, start: int, end: int | None
    ) -> tuple[str, str]:
        """The version, and `[start:end]` of its canonical text. Raises NotFound, Conflict (`document_not_ready`)."""
        if end is not None and end < start:
            raise Invalid("end must not be before start.")
        part = await self._rows.text(owner, document_id, version, start, end)
        if part.text is None:
            raise Conflict(_UNREAD.get(part.status, _UNREAD["queued"]).format(part.reason), code="document_not_ready")
        return part.version, part.text

    async def original(self, owner: str, document_id: str) -> tuple[DocumentRow, Path]:
        """The file as it was uploaded. Raises NotFound."""
        row = await self.get(owner, document_id)
        path = self._corpus.files / row.version
        if not path.exists():
            raise NotFound("The stored file is gone. Upload it again.")
        return row, path

    async def cancel(self, owner: str, document_id: str) -> DocumentRow:
        """What of it waits or is under way is cancelled; what can be searched stays. Raises NotFound."""
        async with self._lock(document_id):
            before = await self.get(owner, document_id)
            await self._corpus.versions.cancel(owner, document_id)
            await self._ingestion.abandon([document_id])
            if before.moving is not None:
                await self._undo_move(owner, document_id, before.moving.collection_id)
        self._ingestion.announce(document_id)
        return await self.get(owner, document_id)

    async def retry(self, owner: str, document_id: str) -> DocumentRow:
        """What failed, was cancelled, or waits for its next try, is tried now. Raises NotFound."""
        async with self._lock(document_id):
            await self._corpus.versions.retry(owner, document_id)
        self._ingestion.wake()
        self._ingestion.announce(document_id)
        return await self.get(owner, document_id)

    async def rename(self, owner: str, document_id: str, name: str) -> None:
        """Another name, also for the search. Raises NotFound."""
        async with self._lock(document_id):
            name = display_name(name)
            await self._corpus.versions.rename(owner, document_id, name)
            row = await self._rows.get(owner, document_id)
            if row.chunks:
                await self._index_name(row)
        self._ingestion.announce(document_id)

    async def _index_name(self, row: DocumentRow) -> None:
        last = 0
        while chunks := await self._corpus.chunks.texts(row.version, last, BATCH):
            last = chunks[-1].n
            terms = [(c.n, about_terms(row.language, c.title, row.name, c.heading, c.context)) for c in chunks]
            await self._corpus.chunks.set_about(row.collection_id, terms)

    async def move(self, owner: str, document_id: str, target: str) -> None:
        """Into another collection: at once where both embed alike, else a job embeds it anew first.

        Raises NotFound, Conflict (`document_duplicate`; `document_busy` while it is being read), EmbeddingMismatch.
        """
        async with self._lock(document_id):
            row = await self.get(owner, document_id)
            await self._corpus.collections.get(owner, target)
            if row.collection_id == target:
                return
            if row.status not in ("ready", "failed", "cancelled") or (row.pending and not row.settled):
                raise Conflict(
                    "The document is being read. Wait until it is ready, or cancel that (POST /documents/{id}/cancel).",
                    code="document_busy",
                )
            await self._knowledge.check(owner, [target])
            await self._corpus.transfers.check_move(document_id, target)
            move = MoveJob(self._corpus, owner, document_id, target, JobProgress(lambda: None))
            if not await move.alike():
                await self._corpus.transfers.begin_move(owner, document_id, target)
            else:
                await self._move_now(owner, document_id, target)
        self._knowledge.changed(owner)
        self._ingestion.wake()
        self._ingestion.announce(document_id)

    async def _move_now(self, owner: str, document_id: str, target: str) -> None:
        for _ in range(_MOVES):
            move = MoveJob(self._corpus, owner, document_id, target, JobProgress(lambda: None))
            try:
                while not await move.step():
                    pass
                return
            except Gone:
                return
            except (Changed, Waiting):
                continue
            except BaseException:
                await move.undo()
                raise
        raise Conflict("The document changes all the time. Try again.", code="document_busy")

    async def _undo_move(self, owner: str, document_id: str, target: str) -> None:
        at = await self._corpus.transfers.movable(owner, document_id)
        if at.active is not None and at.collection_id != target:
            await self._corpus.remove_copies(target, at.first, at.chunks)

    async def delete(self, owner: str, document_id: str) -> Receipt:
        """Nothing of it is found from the first commit on; what a crash leaves, the next start sweeps.

        Raises NotFound.
        """
        async with self._lock(document_id):
            row = await self._rows.get(owner, document_id)
            gone = await self._corpus.versions.begin_delete([document_id])
            self._knowledge.changed(owner)
            await self._ingestion.abandon([document_id])
            if row.moving is not None and row.chunks:
                first = next(v.first for v in gone if v.id == row.version) or 0
                await self._corpus.remove_copies(row.moving.collection_id, first, row.chunks)
            removed = await self._corpus.remove_versions(gone)
            await self._corpus.versions.end_delete([document_id])
        self._ingestion.announce(document_id)
        return Receipt(document_id, len(gone), removed.chunks, removed.vectors, removed.vectors_left, removed.files > 0)

    async def sweep(self, owner: str) -> Swept:
        """Find what crashes left among the owner's documents, remove it, and queue again what is missing."""
        swept = await self._sweep.of(owner, everything=owner == LOCAL)
        self._knowledge.changed(owner)
        self._ingestion.wake()
        return swept

    def _lock(self, document_id: str) -> asyncio.Lock:
        """Changes of one document come one after the other."""
        lock = self._locks.get(document_id)
        if lock is None:
            lock = self._locks[document_id] = asyncio.Lock()
        return lock


def display_name(name: str) -> str:
    """A file name fit to be shown: the last part of a path, no invisible or direction-changing characters, at most
    255 characters with its ending kept."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    seen = "".join(c for c in last if unicodedata.category(c) not in _UNSEEN)
    seen = " ".join(seen.split()).strip(". ") if set(seen) <= {".", " "} else " ".join(seen.split())
    if len(seen) > MAX_NAME:
        stem, dot, ending = seen.rpartition(".")
        ending = f"{dot}{ending}" if dot and len(ending) <= 16 else ""
        seen = (stem if ending else seen)[: MAX_NAME - len(ending) - 1] + "…" + ending
    return seen or "unnamed"


def _copy(source: BinaryIO, path: Path, max_bytes: int, name: str) -> tuple[str, int]:
    """Copy to disk; SHA-256 in hex and size in bytes. Raises TooLarge, DocumentUnreadable, StorageFull."""
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
        if error.errno == 28 or shutil.disk_usage(path.parent).free < _BLOCK:
            raise StorageFull("The disk under DATA_DIR is full. Free some space and upload again.") from None
        raise
    if size == 0:
        raise DocumentUnreadable("document_empty", f"{name} is empty. Upload a file with text in it.")
    return digest.hexdigest(), size
