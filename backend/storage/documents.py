"""Documents, their versions and chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.errors import NotFound
from backend.storage.database import Database
from backend.storage.ids import new_id, now_ms
from backend.storage.tables import collections, document_versions, documents, jobs

FINAL = ("ready", "failed")
DEFAULT_COLLECTION = "default"


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """A collection; `fingerprint` is the embedding that filled it, None while empty."""

    id: str
    fingerprint: str | None
    generation: int = 1


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A document with its (only) version and its job's progress. Times in ms."""

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
    pages: int | None
    chunks: int | None
    progress: dict[str, Any]


_DOCUMENT = (
    select(
        documents.c.id,
        documents.c.collection_id,
        documents.c.name,
        document_versions.c.status,
        document_versions.c.reason_code,
        document_versions.c.reason,
        documents.c.created_at,
        documents.c.updated_at,
        document_versions.c.id.label("version"),
        document_versions.c.sha256,
        document_versions.c.size,
        document_versions.c.media_type,
        document_versions.c.title,
        document_versions.c.pages,
        document_versions.c.chunks,
        jobs.c.progress,
    )
    .join(document_versions, document_versions.c.document_id == documents.c.id)
    .join(jobs, jobs.c.version_id == document_versions.c.id)
)


class Documents:
    """Documents of an owner. Somebody else's raise NotFound."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def collection(self, owner: str) -> CollectionRow:
        """The owner's collection; made when it isn't there."""
        query = select(collections.c.id, collections.c.fingerprint, collections.c.generation).where(
            collections.c.owner == owner, collections.c.name == DEFAULT_COLLECTION
        )
        async with self._db.read() as conn:
            row = (await conn.execute(query)).first()
        if row is not None:
            return CollectionRow(*row)
        async with self._db.write() as conn:
            row = (await conn.execute(query)).first()
            if row is not None:
                return CollectionRow(*row)
            made = CollectionRow(new_id("col"), None)
            values = {"id": made.id, "owner": owner, "name": DEFAULT_COLLECTION, "generation": 1}
            await conn.execute(insert(collections).values(**values, created_at=now_ms()))
            return made

    async def collections(self) -> list[CollectionRow]:
        """Every collection of every owner, for the sweep."""
        async with self._db.read() as conn:
            rows = await conn.execute(select(collections.c.id, collections.c.fingerprint, collections.c.generation))
            return [CollectionRow(*row) for row in rows]

    async def add(
        self, owner: str, collection_id: str, version_id: str, name: str, sha256: str, size: int
    ) -> tuple[DocumentRow, bool]:
        """The document of these bytes and whether it is new; a failed one is queued again."""
        known = and_(document_versions.c.collection_id == collection_id, document_versions.c.sha256 == sha256)
        async with self._db.write() as conn:
            row = (await conn.execute(_DOCUMENT.where(known))).first()
            if row is None:
                await _insert_document(conn, owner, collection_id, version_id, name, sha256, size)
            elif row.status == "failed":
                await _requeue(conn, row.id)
            found = (await conn.execute(_DOCUMENT.where(known))).one()
            return DocumentRow(*found), row is None

    async def get(self, owner: str, document_id: str) -> DocumentRow:
        """One document. Raises NotFound."""
        query = _DOCUMENT.where(documents.c.id == document_id, documents.c.owner == owner)
        async with self._db.read() as conn:
            row = (await conn.execute(query)).first()
        if row is None:
            raise NotFound("No such document.")
        return DocumentRow(*row)

    async def page(self, owner: str, limit: int, before: str | None) -> list[DocumentRow]:
        """At most `limit` documents, the newest first, older than the one named `before`."""
        query = _DOCUMENT.where(documents.c.owner == owner)
        if before is not None:
            query = query.where(documents.c.id < before)
        async with self._db.read() as conn:
            rows = await conn.execute(query.order_by(documents.c.id.desc()).limit(limit))
            return [DocumentRow(*row) for row in rows]

    async def missing(self, owner: str, ids: Sequence[str]) -> list[str]:
        """Those of the ids that are no documents of the owner's."""
        query = select(documents.c.id).where(documents.c.owner == owner, documents.c.id.in_(ids))
        async with self._db.read() as conn:
            found = {row.id for row in await conn.execute(query)}
        return [i for i in ids if i not in found]

    async def any_ready(self, owner: str) -> bool:
        """Whether the owner has a searchable document."""
        query = select(documents.c.id).where(documents.c.owner == owner, documents.c.active_version.is_not(None))
        async with self._db.read() as conn:
            return (await conn.execute(query.limit(1))).first() is not None

    async def delete(self, owner: str, document_id: str) -> None:
        """Delete the rows; vectors and file are the caller's, afterwards. Raises NotFound."""
        remove = delete(documents).where(documents.c.id == document_id, documents.c.owner == owner)
        async with self._db.write() as conn:
            if (await conn.execute(remove)).rowcount == 0:
                raise NotFound("No such document.")

    async def text(self, owner: str, document_id: str, version: str | None, start: int, end: int | None) -> str | None:
        """`[start:end]` of the canonical text; None before it was read. Raises NotFound."""
        length = func.length(document_versions.c.text) if end is None else end - start
        query = (
            select(func.substr(document_versions.c.text, start + 1, length))
            .join(documents, documents.c.id == document_versions.c.document_id)
            .where(documents.c.id == document_id, documents.c.owner == owner)
        )
        if version is not None:
            query = query.where(document_versions.c.id == version)
        async with self._db.read() as conn:
            row = (await conn.execute(query)).first()
        if row is None:
            raise NotFound("No such document, or no such version of it.")
        return row[0]

    async def version_map(self, version: str) -> dict[str, Any]:
        """The stored map of pages and headings of a version; empty when there is none."""
        query = select(document_versions.c.map).where(document_versions.c.id == version)
        async with self._db.read() as conn:
            return (await conn.execute(query)).scalar() or {}

    async def active_beyond(self, collection_id: str, versions: set[str]) -> list[str]:
        """Documents of the collection whose active version is none of these."""
        query = select(documents.c.id, documents.c.active_version).where(
            documents.c.collection_id == collection_id, documents.c.active_version.is_not(None)
        )
        async with self._db.read() as conn:
            return [row.id for row in await conn.execute(query) if row.active_version not in versions]

    async def requeue(self, document_id: str) -> None:
        """Let its job run again; what was read of the file is kept, and nothing of it is found until it is ready."""
        async with self._db.write() as conn:
            await _requeue(conn, document_id)

    async def version_ids(self) -> set[str]:
        """Every version there is, for the sweep of vectors and files."""
        async with self._db.read() as conn:
            return {row[0] for row in await conn.execute(select(document_versions.c.id))}


async def _insert_document(
    conn: AsyncConnection, owner: str, collection_id: str, version_id: str, name: str, sha256: str, size: int
) -> None:
    now = now_ms()
    document_id = new_id("doc")
    await conn.execute(
        insert(documents).values(
            id=document_id,
            owner=owner,
            collection_id=collection_id,
            name=name,
            pending_version=version_id,
            created_at=now,
            updated_at=now,
        )
    )
    await conn.execute(
        insert(document_versions).values(
            id=version_id,
            owner=owner,
            document_id=document_id,
            collection_id=collection_id,
            sha256=sha256,
            size=size,
            status="queued",
            created_at=now,
        )
    )
    await conn.execute(
        insert(jobs).values(
            id=new_id("job"),
            owner=owner,
            kind="ingest",
            collection_id=collection_id,
            document_id=document_id,
            version_id=version_id,
            stage="queued",
            progress={},
            attempts=0,
            lease_until=0,
            created_at=now,
            updated_at=now,
        )
    )


async def _requeue(conn: AsyncConnection, document_id: str) -> None:
    now = now_ms()
    job: dict[str, Any] = {
        "stage": "queued",
        "attempts": 0,
        "progress": {},
        "reason": None,
        "instance_id": None,
        "lease_until": 0,
    }
    await conn.execute(update(jobs).where(jobs.c.document_id == document_id).values(**job, updated_at=now))
    status: dict[str, Any] = {"status": "queued", "reason": None, "reason_code": None}
    versions = update(document_versions).where(document_versions.c.document_id == document_id)
    await conn.execute(versions.values(**status))
