"""What happens to documents and their versions: each operation is one commit on the writer's thread."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import Conflict, NotFound
from backend.kit.ids import new_id, now_ms
from backend.storage.engine.database import Database

Progress = dict[str, Any]
"""`done` of `total` chunks, `rate` in chunks a second, `seconds` spent in each stage; of an embedding also `model`."""


@dataclass(frozen=True, slots=True)
class Discarded:
    """A version that nothing leads to any more: its chunks `first`.., its vectors and its file are to be removed."""

    id: str
    collection_id: str
    document_id: str
    first: int | None
    chunks: int | None


@dataclass(frozen=True, slots=True)
class Replaced:
    """What a new content did: `version` has these bytes, `unchanged` when it had them already; `discarded` is the
    version that waited before it."""

    version: str
    unchanged: bool
    discarded: Discarded | None = None


_DISCARDED = "id, collection_id, document_id, first_chunk, chunks"


class Versions:
    """Changes to the documents of an owner. Somebody else's raise NotFound."""

    def __init__(self, database: Database) -> None:
        self._writer = database.writer
        self._reader = database.reader

    async def add(
        self, owner: str, collection_id: str, version_id: str, name: str, sha256: str, size: int
    ) -> tuple[str, str, bool]:
        """The document of these bytes, its version, and whether it is new; a failed one is queued again.

        Raises NotFound when the collection is gone.
        """
        return await self._writer.run(lambda conn: _add(conn, owner, collection_id, version_id, name, sha256, size))

    async def replace(self, owner: str, document_id: str, version_id: str, sha256: str, size: int) -> Replaced:
        """These bytes are to become the document's content. Raises NotFound, Conflict (`document_duplicate`)."""
        return await self._writer.run(lambda conn: _replace(conn, owner, document_id, version_id, sha256, size))

    async def exists(self, version_id: str) -> bool:
        """Whether there is such a version, once all that is queued is stored."""
        sql = "SELECT 1 FROM document_versions WHERE id = ?"
        return await self._writer.run(lambda conn: conn.execute(sql, (version_id,)).fetchone() is not None)

    async def cancel(self, owner: str, document_id: str) -> None:
        """What of it waits or is under way is cancelled; nothing else changes. Raises NotFound."""
        await self._writer.run(lambda conn: _cancel(conn, owner, document_id))

    async def retry(self, owner: str, document_id: str) -> None:
        """What failed, was cancelled, or waits for its next try, is tried now. Raises NotFound."""
        await self._writer.run(lambda conn: _retry(conn, owner, document_id))

    async def rename(self, owner: str, document_id: str, name: str) -> None:
        """Another name. Raises NotFound."""
        sql = "UPDATE documents SET name = ?, updated_at = ? WHERE id = ? AND owner = ?"

        def change(conn: sqlite3.Connection) -> None:
            _check(conn, owner, document_id)
            conn.execute(sql, (name, now_ms(), document_id, owner))

        await self._writer.run(change)

    async def begin_delete(self, document_ids: Sequence[str]) -> list[Discarded]:
        """From now on nothing of these documents is found or worked on; what is to be removed of them."""
        return await self._writer.run(lambda conn: _begin_delete(conn, document_ids))

    async def end_delete(self, document_ids: Sequence[str]) -> None:
        """Remove the rows of documents of which nothing else is left."""
        sql = (
            "DELETE FROM documents WHERE id IN (SELECT value FROM json_each(?)) "
            "AND coalesce(active_version, pending_version) IS NULL"
        )
        ids = json.dumps(list(document_ids))
        await self._writer.run(lambda conn: conn.execute(sql, (ids,)) and None)

    async def cleaned(self, version_ids: Sequence[str]) -> None:
        """Nothing but the text is left of these superseded versions; those that were never active go altogether."""
        await self._writer.run(lambda conn: _cleaned(conn, version_ids))

    async def half_deleted(self) -> list[str]:
        """Documents whose deletion was begun and not ended."""
        sql = "SELECT id FROM documents WHERE coalesce(active_version, pending_version) IS NULL"
        return await self._reader.run(lambda conn: [i for (i,) in conn.execute(sql)])

    async def superseded(self, owner: str | None = None) -> list[Discarded]:
        """Superseded versions that were not cleaned, of one owner or of all."""
        sql = (
            f"SELECT {_DISCARDED} FROM document_versions WHERE status = 'superseded' AND (first_chunk IS NOT NULL "
            "OR text IS NULL) AND (:owner IS NULL OR owner = :owner)"
        )
        return await self._reader.run(lambda conn: [Discarded(*r) for r in conn.execute(sql, {"owner": owner})])


def _check(conn: sqlite3.Connection, owner: str, document_id: str) -> tuple[str, str | None, str | None]:
    """Collection, active and pending version of a document. Raises NotFound."""
    sql = "SELECT collection_id, active_version, pending_version FROM documents WHERE id = ? AND owner = ?"
    found = conn.execute(sql, (document_id, owner)).fetchone()
    if found is None or (found[1] is None and found[2] is None):
        raise NotFound("No such document.")
    return found


def _add(
    conn: sqlite3.Connection, owner: str, collection_id: str, version_id: str, name: str, sha256: str, size: int
) -> tuple[str, str, bool]:
    sql = (
        "SELECT document_id, id, status FROM document_versions "
        "WHERE collection_id = ? AND sha256 = ? AND status != 'superseded'"
    )
    if (known := conn.execute(sql, (collection_id, sha256)).fetchone()) is not None:
        if known[2] in ("failed", "cancelled"):
            requeue(conn, known[1])
        return known[0], known[1], False
    if conn.execute("SELECT 1 FROM collections WHERE id = ? AND owner = ?", (collection_id, owner)).fetchone() is None:
        raise NotFound("No such collection. GET /collections lists yours.")
    now, document_id = now_ms(), new_id("doc")
    conn.execute(
        "INSERT INTO documents (id, owner, collection_id, name, pending_version, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (document_id, owner, collection_id, name, version_id, now, now),
    )
    _insert_version(conn, owner, collection_id, document_id, version_id, sha256, size)
    return document_id, version_id, True


def _insert_version(
    conn: sqlite3.Connection,
    owner: str,
    collection_id: str,
    document_id: str,
    version_id: str,
    sha256: str,
    size: int,
) -> None:
    now = now_ms()
    conn.execute(
        "INSERT INTO document_versions (id, owner, document_id, collection_id, sha256, size, status, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, 'queued', ?)",
        (version_id, owner, document_id, collection_id, sha256, size, now),
    )
    insert_job(conn, owner, "ingest", collection_id, document_id, version_id)


def insert_job(
    conn: sqlite3.Connection,
    owner: str,
    kind: str,
    collection_id: str,
    document_id: str | None,
    version_id: str | None,
    progress: str = "{}",
) -> None:
    """Queue a job. For use inside the writer's operations."""
    now = now_ms()
    conn.execute(
        "INSERT INTO jobs (id, owner, kind, collection_id, document_id, version_id, stage, progress, attempts, "
        "lease_until, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, 0, ?, ?, ?)",
        (new_id("job"), owner, kind, collection_id, document_id, version_id, progress, now, now, now),
    )


def _replace(
    conn: sqlite3.Connection, owner: str, document_id: str, version_id: str, sha256: str, size: int
) -> Replaced:
    collection_id, _, pending = _check(conn, owner, document_id)
    sql = (
        "SELECT id, document_id, status FROM document_versions "
        "WHERE collection_id = ? AND sha256 = ? AND status != 'superseded'"
    )
    known = conn.execute(sql, (collection_id, sha256)).fetchone()
    if known is not None and known[1] != document_id:
        raise Conflict(
            f"The collection holds these bytes already, as document {known[1]}. Delete one of the two first.",
            code="document_duplicate",
            document_id=known[1],
        )
    if known is not None and known[0] == pending:
        if known[2] in ("failed", "cancelled"):
            requeue(conn, known[0])
        return Replaced(known[0], unchanged=True)
    discarded = _discard(conn, pending) if pending is not None else None
    waiting = version_id if known is None else None
    if known is None:
        _insert_version(conn, owner, collection_id, document_id, version_id, sha256, size)
    if waiting != pending:
        change = "UPDATE documents SET pending_version = ?, updated_at = ? WHERE id = ?"
        conn.execute(change, (waiting, now_ms(), document_id))
    return Replaced(known[0] if known else version_id, known is not None, discarded)


def _discard(conn: sqlite3.Connection, version_id: str) -> Discarded:
    """A version that was never active is not wanted any more; its text isn't either."""
    _drop_job(conn, version_id)
    change = (
        "UPDATE document_versions SET status = 'superseded', text = NULL, map = NULL WHERE id = ? "
        f"RETURNING {_DISCARDED}"
    )
    return Discarded(*conn.execute(change, (version_id,)).fetchone())


def _drop_job(conn: sqlite3.Connection, version_id: str) -> None:
    sql = (
        "DELETE FROM jobs WHERE document_id = (SELECT document_id FROM document_versions WHERE id = ?) "
        "AND version_id = ?"
    )
    conn.execute(sql, (version_id, version_id))


def supersede(conn: sqlite3.Connection, version_id: str) -> Discarded:
    """A version gives way to the next one; its text stays. For use inside the writer's operations."""
    _drop_job(conn, version_id)
    change = f"UPDATE document_versions SET status = 'superseded' WHERE id = ? RETURNING {_DISCARDED}"
    return Discarded(*conn.execute(change, (version_id,)).fetchone())


def requeue(conn: sqlite3.Connection, version_id: str) -> None:
    """Let a version's job run now, from where it was. For use inside the writer's operations."""
    now = now_ms()
    conn.execute(
        "UPDATE document_versions SET status = iif(status = 'ready', 'ready', 'queued'), reason = NULL, "
        "reason_code = NULL WHERE id = ?",
        (version_id,),
    )
    conn.execute(
        "UPDATE jobs SET stage = 'queued', attempts = 0, progress = '{}', reason = NULL, reason_code = NULL, "
        "instance_id = NULL, lease_until = ?, updated_at = ? WHERE version_id = ? AND kind = 'ingest' AND "
        "document_id = (SELECT document_id FROM document_versions WHERE id = ?)",
        (now, now, version_id, version_id),
    )


def _cancel(conn: sqlite3.Connection, owner: str, document_id: str) -> None:
    _, _, pending = _check(conn, owner, document_id)
    now = now_ms()
    conn.execute("DELETE FROM jobs WHERE document_id = ? AND kind = 'move'", (document_id,))
    conn.execute(
        "UPDATE jobs SET stage = 'cancelled', instance_id = NULL, reason = NULL, reason_code = NULL, updated_at = ? "
        "WHERE document_id = ? AND version_id = ? AND stage = 'queued'",
        (now, document_id, pending),
    )
    conn.execute("UPDATE document_versions SET status = 'cancelled' WHERE id = ? AND status = 'queued'", (pending,))


def _retry(conn: sqlite3.Connection, owner: str, document_id: str) -> None:
    _, _, pending = _check(conn, owner, document_id)
    sql = "SELECT status FROM document_versions WHERE id = ?"
    status = conn.execute(sql, (pending,)).fetchone()
    if status is not None and status[0] in ("failed", "cancelled"):
        requeue(conn, pending or "")
    conn.execute(
        "UPDATE jobs SET lease_until = ? WHERE document_id = ? AND stage = 'queued' AND instance_id IS NULL",
        (now_ms(), document_id),
    )


def _begin_delete(conn: sqlite3.Connection, document_ids: Sequence[str]) -> list[Discarded]:
    ids = json.dumps(list(document_ids))
    some = "(SELECT value FROM json_each(?))"
    conn.execute(f"UPDATE documents SET active_version = NULL, pending_version = NULL WHERE id IN {some}", (ids,))
    conn.execute(f"DELETE FROM jobs WHERE document_id IN {some}", (ids,))
    change = f"UPDATE document_versions SET status = 'superseded' WHERE document_id IN {some} RETURNING {_DISCARDED}"
    return [Discarded(*row) for row in conn.execute(change, (ids,)).fetchall()]


def _cleaned(conn: sqlite3.Connection, version_ids: Sequence[str]) -> None:
    ids = json.dumps(list(version_ids))
    some = "id IN (SELECT value FROM json_each(?)) AND status = 'superseded'"
    conn.execute(f"DELETE FROM document_versions WHERE {some} AND text IS NULL", (ids,))
    conn.execute(f"UPDATE document_versions SET first_chunk = NULL WHERE {some}", (ids,))
