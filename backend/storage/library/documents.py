"""Queries of documents and their versions. `versions.py` changes them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import NotFound
from backend.storage.engine.database import Database
from backend.storage.library.jobs import Progress

SETTLED = ("ready", "failed", "cancelled")
"""The statuses of versions that will not change by themselves."""
_MAX_LENGTH = 2**31 - 1


@dataclass(frozen=True, slots=True)
class PendingVersionRow:
    """A version that will replace the active one, and its progress."""

    version: str
    status: str
    reason_code: str | None
    reason: str | None
    size: int
    sha256: str
    progress: Progress


@dataclass(frozen=True, slots=True)
class MovingRow:
    """The move of a document into another collection, with another embedding. `status`: queued or failed."""

    collection_id: str
    status: str
    reason: str | None
    progress: Progress


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A document with its active version, or with its pending version if no version is active. Times in ms."""

    id: str
    collection_id: str
    name: str
    status: str
    reason_code: str | None
    reason: str | None
    created_at: int
    updated_at: int
    version: str
    sha256: str
    size: int
    media_type: str | None
    title: str | None
    language: str | None
    pages: int | None
    chunks: int | None
    progress: Progress
    pending: PendingVersionRow | None
    moving: MovingRow | None

    @property
    def is_settled(self) -> bool:
        """Whether the document will not change by itself."""
        pending = self.pending is None or self.pending.status in SETTLED
        return self.status in SETTLED and pending and (self.moving is None or self.moving.status in SETTLED)


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version of a document. Times in ms."""

    version: str
    status: str
    reason_code: str | None
    reason: str | None
    sha256: str
    size: int
    media_type: str | None
    title: str | None
    pages: int | None
    chunks: int | None
    created_at: int


@dataclass(frozen=True, slots=True)
class DocumentTextPart:
    """A part of a version's canonical text. `text` is None if the file was not read yet."""

    version: str
    text: str | None
    status: str
    reason: str | None


# Rows without any version are being deleted: the API doesn't show them any more.
_DOCUMENT = """
SELECT d.id, d.collection_id, d.name, d.created_at, d.updated_at, d.active_version IS NOT NULL,
    v.id, v.status, coalesce(v.reason_code, j.reason_code), coalesce(v.reason, j.reason), v.sha256, v.size,
    v.media_type, v.title, v.language, v.pages, v.chunks, j.progress,
    p.id, p.status, coalesce(p.reason_code, pj.reason_code), coalesce(p.reason, pj.reason), p.size, p.sha256,
    pj.progress, m.collection_id, m.stage, m.reason, m.progress
FROM documents d
JOIN document_versions v ON v.id = coalesce(d.active_version, d.pending_version)
LEFT JOIN jobs j ON j.document_id = d.id AND j.version_id = v.id AND j.kind = 'ingest'
LEFT JOIN document_versions p ON p.id = d.pending_version AND p.id != v.id
LEFT JOIN jobs pj ON pj.document_id = d.id AND pj.version_id = p.id AND pj.kind = 'ingest'
LEFT JOIN jobs m ON m.document_id = d.id AND m.kind = 'move'
"""


class Documents:
    """Documents of an owner. Those of another owner raise NotFound."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def get(self, owner: str, document_id: str) -> DocumentRow:
        """One document. Raises NotFound."""
        sql = _DOCUMENT + "WHERE d.id = :id AND d.owner = :owner"
        row = await self._db.read(lambda tx: tx.one(sql, id=document_id, owner=owner))
        if row is None:
            raise NotFound("No such document.")
        return _document(row)

    async def page(
        self,
        owner: str,
        limit: int,
        before: str | None = None,
        collection_id: str | None = None,
        status: str | None = None,
        versions: Sequence[str] | None = None,
        without: Sequence[str] = (),
    ) -> list[DocumentRow]:
        """At most `limit` documents, newest first, older than the document with the id `before`.

        `status` is a stored status: queued, ready, failed or cancelled. `versions`: only documents with these
        versions; `without`: no documents with these versions.
        """
        sql = _DOCUMENT + (
            "WHERE d.owner = :owner AND (:before IS NULL OR d.id < :before) "
            "AND (:collection IS NULL OR d.collection_id = :collection) AND (:status IS NULL OR v.status = :status) "
            "AND (:versions IS NULL OR v.id IN :versions) AND v.id NOT IN :without "
            "ORDER BY d.id DESC LIMIT :limit"
        )
        rows = await self._db.read(
            lambda tx: tx.rows(
                sql,
                owner=owner,
                before=before,
                collection=collection_id,
                status=status,
                versions=versions,
                without=without,
                limit=limit,
            )
        )
        return [_document(row) for row in rows]

    async def in_collection(self, collection_id: str, limit: int) -> list[str]:
        """At most `limit` documents of a collection, including documents that are being deleted."""
        sql = "SELECT id FROM documents WHERE collection_id = :collection_id LIMIT :limit"
        return [i for (i,) in await self._db.read(lambda tx: tx.rows(sql, collection_id=collection_id, limit=limit))]

    async def missing(self, owner: str, ids: Sequence[str]) -> list[str]:
        """The ids that belong to no document of the owner."""
        sql = (
            "SELECT id FROM documents WHERE owner = :owner AND id IN :ids "
            "AND coalesce(active_version, pending_version) IS NOT NULL"
        )
        existing = {i for (i,) in await self._db.read(lambda tx: tx.rows(sql, owner=owner, ids=ids))}
        return [i for i in ids if i not in existing]

    async def has_ready(self, owner: str) -> bool:
        """Whether the owner has a searchable document."""
        sql = "SELECT 1 FROM documents WHERE owner = :owner AND active_version IS NOT NULL LIMIT 1"
        return await self._db.read(lambda tx: tx.one(sql, owner=owner)) is not None

    async def names(
        self, owner: str, collections: Sequence[str] | None, documents: Sequence[str] | None, limit: int
    ) -> list[str]:
        """The names of the owner's searchable documents, newest first: those in `collections` (None: in all), of those
        with the ids `documents` (None: all)."""
        sql = (
            "SELECT name FROM documents WHERE owner = :owner AND active_version IS NOT NULL "
            "AND (:all_collections OR collection_id IN :collections) AND (:all_documents OR id IN :documents) "
            "ORDER BY id DESC LIMIT :limit"
        )
        rows = await self._db.read(
            lambda tx: tx.rows(
                sql,
                owner=owner,
                all_collections=collections is None,
                collections=collections,
                all_documents=documents is None,
                documents=documents,
                limit=limit,
            )
        )
        return [name for (name,) in rows]

    async def count_searchable(self) -> tuple[int, int]:
        """The numbers of searchable documents and of their chunks, of all owners together."""
        sql = (
            "SELECT count(*), coalesce(sum(v.chunks), 0) FROM documents d "
            "JOIN document_versions v ON v.id = d.active_version"
        )
        ((documents, chunks),) = await self._db.read(lambda tx: tx.rows(sql))
        return documents, chunks

    async def versions(self, owner: str, document_id: str) -> list[VersionRow]:
        """All versions of a document, newest first. Raises NotFound."""
        sql = (
            "SELECT v.id, v.status, v.reason_code, v.reason, v.sha256, v.size, v.media_type, v.title, v.pages, "
            "v.chunks, v.created_at FROM document_versions v JOIN documents d ON d.id = v.document_id "
            "WHERE d.id = :id AND d.owner = :owner AND coalesce(d.active_version, d.pending_version) IS NOT NULL "
            "ORDER BY v.id DESC"
        )
        rows = await self._db.read(lambda tx: tx.rows(sql, id=document_id, owner=owner))
        if not rows:
            raise NotFound("No such document.")
        return [VersionRow(*row) for row in rows]

    async def text(
        self, owner: str, document_id: str, version: str | None, start: int, end: int | None
    ) -> DocumentTextPart:
        """`[start:end]` of a version's canonical text. Raises NotFound."""
        sql = (
            "SELECT v.id, substr(v.text, :start, :length), v.status, v.reason "
            "FROM documents d JOIN document_versions v ON v.document_id = d.id "
            "AND v.id = coalesce(:version, d.active_version, d.pending_version) "
            "WHERE d.id = :id AND d.owner = :owner AND coalesce(d.active_version, d.pending_version) IS NOT NULL"
        )
        length = _MAX_LENGTH if end is None else min(end - start, _MAX_LENGTH)
        first = min(start + 1, _MAX_LENGTH)
        row = await self._db.read(
            lambda tx: tx.one(sql, start=first, length=length, version=version, id=document_id, owner=owner)
        )
        if row is None:
            raise NotFound("No such document, or no such version of it.")
        return DocumentTextPart(*row)

    async def page_starts(self, version: str) -> list[tuple[int, int]]:
        """(start, page) of each page of a version, in order; empty if it has no pages."""
        sql = (
            "SELECT value ->> 'start', value ->> 'page' FROM document_versions v, json_each(v.map, '$.pages') "
            "WHERE v.id = :id ORDER BY key"
        )
        return [(start, page) for start, page in await self._db.read(lambda tx: tx.rows(sql, id=version))]


def _document(row: tuple[Any, ...]) -> DocumentRow:
    (id_, collection_id, name, created_at, updated_at, active, version, status, reason_code, reason) = row[:10]
    (sha256, size, media_type, title, language, pages, chunks, progress) = row[10:18]
    pending = moving = None
    if row[18] is not None:
        pending = PendingVersionRow(*row[18:24], progress=json.loads(row[24] or "{}"))
    if row[25] is not None:
        moving = MovingRow(*row[25:28], progress=json.loads(row[28]))
    return DocumentRow(
        id=id_,
        collection_id=collection_id,
        name=name,
        status=status,
        reason_code=reason_code if status != "ready" else None,
        reason=reason if status != "ready" else None,
        created_at=created_at,
        updated_at=updated_at,
        version=version,
        sha256=sha256,
        size=size,
        media_type=media_type,
        title=title,
        language=language,
        pages=pages,
        chunks=chunks if active else None,
        progress=json.loads(progress or "{}"),
        pending=pending,
        moving=moving,
    )
