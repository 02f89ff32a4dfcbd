"""Uploaded documents: add, list, watch, read, delete."""

import asyncio
import hashlib
import os
import shutil
import unicodedata
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import BinaryIO

from backend.chains.retrieval.index import VectorIndex, index_key
from backend.errors import Conflict, DocumentUnreadable, Invalid, NotFound, StorageFull, TooLarge
from backend.services.ingestion import Ingestion
from backend.services.knowledge import Knowledge
from backend.storage.documents import FINAL, DocumentRow, Documents
from backend.storage.ids import new_id

MAX_NAME = 255
_BLOCK = 1 << 20
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


class DocumentService:
    """Documents of an owner. Files lie under `files`, named by their version's id, never by what a client said."""

    def __init__(
        self,
        documents: Documents,
        ingestion: Ingestion,
        knowledge: Knowledge,
        index: VectorIndex,
        files: Path,
        max_bytes: int,
    ) -> None:
        self._documents = documents
        self._ingestion = ingestion
        self._knowledge = knowledge
        self._index = index
        self._files = files
        self._max_bytes = max_bytes

    async def add(self, owner: str, name: str, source: BinaryIO) -> tuple[DocumentRow, bool]:
        """Store a file and queue it; the document, and whether it is new (the same bytes are the same document).

        Raises TooLarge, DocumentUnreadable (`document_empty`), EmbeddingMismatch, StorageFull.
        """
        name = display_name(name)
        await self._knowledge.check(owner)
        collection = await self._documents.collection(owner)
        version_id = new_id("ver")
        path = self._files / version_id
        try:
            sha256, size = await asyncio.to_thread(_copy, source, path, self._max_bytes, name)
            row, new = await self._documents.add(owner, collection.id, version_id, name, sha256, size)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if row.version != version_id:
            await asyncio.to_thread(_keep_one, path, self._files / row.version)
        if row.status not in FINAL:
            self._ingestion.wake()
        return row, new

    async def get(self, owner: str, document_id: str) -> DocumentRow:
        """One document. Raises NotFound."""
        return await self._documents.get(owner, document_id)

    async def page(self, owner: str, limit: int, before: str | None) -> list[DocumentRow]:
        """A page of documents, newest first."""
        return await self._documents.page(owner, limit, before)

    async def check_exist(self, owner: str, ids: Sequence[str]) -> None:
        """Raises NotFound when one of the ids is no document of the owner's."""
        if missing := await self._documents.missing(owner, ids):
            raise NotFound(f"documents: no such document: {missing[0]}. GET /documents lists yours.")

    async def watch(self, owner: str, document_id: str) -> AsyncGenerator[DocumentRow]:
        """The document, again at each change, until it is ready or failed, or the server stops. Raises NotFound."""
        last: DocumentRow | None = None
        while True:
            with self._ingestion.next_change(document_id) as change:
                row = await self._documents.get(owner, document_id)
                if row != last:
                    yield row
                    last = row
                if row.status in FINAL or self._ingestion.dismissed:
                    return
                await change

    def dismiss_watchers(self) -> None:
        """The server stops: streams of documents end."""
        self._ingestion.dismiss_watchers()

    async def settled(self, owner: str, document_id: str) -> DocumentRow:
        """The document once it is ready or failed (or the server stops). Raises NotFound when it is deleted."""
        rows = [row async for row in self.watch(owner, document_id)]
        return rows[-1]

    async def text(self, owner: str, document_id: str, version: str | None, start: int, end: int | None) -> str:
        """`[start:end]` of the canonical text. Raises NotFound, Conflict (`document_not_ready`)."""
        if end is not None and end < start:
            raise Invalid("end must not be before start.")
        text = await self._documents.text(owner, document_id, version, start, end)
        if text is None:
            raise Conflict("The document has not been read yet. GET /documents/{id} tells how far it is.",
                           code="document_not_ready")  # fmt: skip
        return text

    async def original(self, owner: str, document_id: str) -> tuple[DocumentRow, Path]:
        """The file as it was uploaded. Raises NotFound."""
        row = await self._documents.get(owner, document_id)
        path = self._files / row.version
        if not path.exists():
            raise NotFound("The stored file is gone. Upload it again.")
        return row, path

    async def delete(self, owner: str, document_id: str) -> None:
        """Rows first, then vectors and file; what a crash leaves of those, the next start sweeps. Raises NotFound."""
        row = await self._documents.get(owner, document_id)
        await self._documents.delete(owner, document_id)
        self._knowledge.changed(owner)
        self._ingestion.announce(document_id)
        await asyncio.to_thread((self._files / row.version).unlink, missing_ok=True)
        await self._index.delete_version(index_key(row.collection_id, 1), row.version)


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


def _keep_one(new: Path, known: Path) -> None:
    """The same bytes are here already; unless their file was lost, then this one takes its place."""
    if known.exists():
        new.unlink()
    else:
        new.replace(known)


def _copy(source: BinaryIO, path: Path, max_bytes: int, name: str) -> tuple[str, int]:
    """Copy to disk; SHA-256 in hex and size in bytes. Raises TooLarge, DocumentUnreadable, StorageFull."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("xb") as target:
            while block := source.read(_BLOCK):
                size += len(block)
                if size > max_bytes:
                    limit = max_bytes // 1_000_000
                    raise TooLarge(f"{name} is larger than {limit} MB (MAX_UPLOAD_MB). Split it, or raise the limit.",
                                   code="document_too_large")  # fmt: skip
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
