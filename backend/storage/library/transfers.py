"""From one embedding to another: a collection's next generation, and documents that move between collections."""

import json
import sqlite3
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from backend.errors import Conflict, NotFound
from backend.kit.ids import now_ms
from backend.storage.engine.database import Database
from backend.storage.library.jobs import JobRow
from backend.storage.library.versions import Discarded, Progress, insert_job


@dataclass(frozen=True, slots=True)
class Embedding:
    """A collection's next generation on its way: `model` is `provider/model`, `stage` queued or failed."""

    collection_id: str
    model: str
    stage: str
    reason_code: str | None
    reason: str | None
    progress: Progress


@dataclass(frozen=True, slots=True)
class Movable:
    """What moving a document needs to know. `first`, `chunks`: where the active version's chunks are."""

    collection_id: str
    active: str | None
    pending: Discarded | None
    pending_status: str | None
    first: int
    chunks: int


class Transfers:
    """Flips of generations and of collections, each in one commit."""

    def __init__(self, database: Database) -> None:
        self._writer = database.writer
        self._reader = database.reader

    # A collection's next generation.

    async def begin_embed(self, owner: str, collection_id: str, model: str) -> None:
        """Queue it. Raises NotFound, Conflict (`embedding_running`) while one by another model is under way."""
        await self._writer.run(lambda conn: _begin_embed(conn, owner, collection_id, model))

    async def cancel_embed(self, collection_id: str) -> bool:
        """The collection stays as it is embedded. False: nothing was under way."""
        sql = "DELETE FROM jobs WHERE collection_id = ? AND kind = 'embed'"
        return await self._writer.run(lambda conn: conn.execute(sql, (collection_id,)).rowcount > 0)

    async def embeddings(self, collection_ids: list[str]) -> dict[str, Embedding]:
        """Those of these collections that are being embedded anew."""
        sql = (
            "SELECT collection_id, stage, reason_code, reason, progress FROM jobs "
            "WHERE kind = 'embed' AND collection_id IN (SELECT value FROM json_each(?))"
        )
        found = await self._reader.run(lambda conn: conn.execute(sql, (json.dumps(collection_ids),)).fetchall())
        return {row[0]: _embedding(*row) for row in found}

    async def active(self, collection_id: str) -> dict[str, tuple[int, int]]:
        """The active versions of a collection: first chunk and how many."""
        sql = (
            "SELECT v.id, v.first_chunk, v.chunks FROM documents d JOIN document_versions v ON v.id = d.active_version "
            "WHERE d.collection_id = ?"
        )
        found = await self._reader.run(lambda conn: conn.execute(sql, (collection_id,)).fetchall())
        return {version: (first, chunks) for version, first, chunks in found}

    async def flip_generation(self, job: JobRow, fingerprint: str, done: AbstractSet[str]) -> list[str] | None:
        """Search the next generation from now on, if it has all that is active: [] then, else what is missing.

        None: the job was cancelled.
        """
        return await self._writer.run(lambda conn: _flip_generation(conn, job, fingerprint, done))

    # A document that moves.

    async def movable(self, owner: str, document_id: str) -> Movable:
        """Where a document is. Raises NotFound."""
        return await self._reader.run(lambda conn: _movable(conn, owner, document_id))

    async def check_move(self, document_id: str, target: str) -> None:
        """Raises Conflict when the target holds the same bytes (`document_duplicate`)."""
        await self._reader.run(lambda conn: _check_duplicate(conn, document_id, target))

    async def begin_move(self, owner: str, document_id: str, target: str) -> None:
        """Queue a move that has to embed the document anew, instead of one to elsewhere."""

        def begin(conn: sqlite3.Connection) -> None:
            conn.execute("DELETE FROM jobs WHERE document_id = ? AND kind = 'move'", (document_id,))
            insert_job(conn, owner, "move", target, document_id, None)

        await self._writer.run(begin)

    async def flip_collection(
        self, document_id: str, version_id: str | None, source: str, target: str, generation: int, fingerprint: str
    ) -> bool:
        """The document is in `target` from now on, if all is still as it was: its active version `version_id`, nothing
        pending that is under way, the target's embedding. Raises Conflict (`document_duplicate`)."""
        return await self._writer.run(
            lambda conn: _flip_collection(conn, document_id, version_id, source, target, generation, fingerprint)
        )


def _embedding(collection_id: str, stage: str, code: str | None, reason: str | None, progress: str) -> Embedding:
    told: dict[str, Any] = json.loads(progress)
    model = told.pop("model", "")
    return Embedding(collection_id, model, stage, code, reason, told)


def _begin_embed(conn: sqlite3.Connection, owner: str, collection_id: str, model: str) -> None:
    sql = "SELECT 1 FROM collections WHERE id = ? AND owner = ?"
    if conn.execute(sql, (collection_id, owner)).fetchone() is None:
        raise NotFound("No such collection. GET /collections lists yours.")
    sql = "SELECT stage, progress FROM jobs WHERE collection_id = ? AND kind = 'embed'"
    running = conn.execute(sql, (collection_id,)).fetchone()
    if running is not None and running[0] == "queued":
        if json.loads(running[1]).get("model") == model:
            return
        raise Conflict(
            "The collection is being embedded by another model. Cancel that first: DELETE /collections/{id}/embed.",
            code="embedding_running",
        )
    conn.execute("DELETE FROM jobs WHERE collection_id = ? AND kind = 'embed'", (collection_id,))
    insert_job(conn, owner, "embed", collection_id, None, None, json.dumps({"model": model}))


def _flip_generation(
    conn: sqlite3.Connection, job: JobRow, fingerprint: str, done: AbstractSet[str]
) -> list[str] | None:
    if conn.execute("SELECT 1 FROM jobs WHERE id = ? AND stage = 'queued'", (job.id,)).fetchone() is None:
        return None
    sql = "SELECT active_version FROM documents WHERE collection_id = ? AND active_version IS NOT NULL"
    missing = [v for (v,) in conn.execute(sql, (job.collection_id,)) if v not in done]
    if not missing:
        change = "UPDATE collections SET generation = ?, fingerprint = ? WHERE id = ?"
        conn.execute(change, (job.generation + 1, fingerprint, job.collection_id))
        conn.execute("DELETE FROM jobs WHERE id = ?", (job.id,))
    return missing


def _movable(conn: sqlite3.Connection, owner: str, document_id: str) -> Movable:
    sql = (
        "SELECT d.collection_id, d.active_version, d.pending_version, v.first_chunk, v.chunks, p.status, "
        "p.collection_id, p.first_chunk, p.chunks FROM documents d "
        "LEFT JOIN document_versions v ON v.id = d.active_version "
        "LEFT JOIN document_versions p ON p.id = d.pending_version WHERE d.id = ? AND d.owner = ?"
    )
    row = conn.execute(sql, (document_id, owner)).fetchone()
    if row is None or (row[1] is None and row[2] is None):
        raise NotFound("No such document.")
    pending = Discarded(row[2], row[6], document_id, row[7], row[8]) if row[2] is not None else None
    return Movable(row[0], row[1], pending, row[5], row[3] or 0, row[4] or 0)


def _check_duplicate(conn: sqlite3.Connection, document_id: str, target: str) -> None:
    sql = (
        "SELECT other.document_id FROM document_versions own JOIN document_versions other "
        "ON other.sha256 = own.sha256 AND other.collection_id = ? AND other.status != 'superseded' "
        "WHERE own.document_id = ? AND own.status != 'superseded' AND other.document_id != own.document_id"
    )
    if (found := conn.execute(sql, (target, document_id)).fetchone()) is not None:
        raise Conflict(
            f"That collection holds these bytes already, as document {found[0]}. Delete one of the two instead.",
            code="document_duplicate",
            document_id=found[0],
        )


def _flip_collection(
    conn: sqlite3.Connection,
    document_id: str,
    version_id: str | None,
    source: str,
    target: str,
    generation: int,
    fingerprint: str,
) -> bool:
    _check_duplicate(conn, document_id, target)
    sql = (
        "SELECT d.collection_id, d.active_version, p.status, c.generation, c.fingerprint FROM documents d "
        "JOIN collections c ON c.id = ? LEFT JOIN document_versions p ON p.id = d.pending_version WHERE d.id = ?"
    )
    found = conn.execute(sql, (target, document_id)).fetchone()
    if found is None or found[:2] != (source, version_id) or found[2] == "queued":
        return False
    if version_id is not None and (found[3] != generation or found[4] not in (None, fingerprint)):
        return False
    conn.execute("UPDATE documents SET collection_id = ?, updated_at = ? WHERE id = ?", (target, now_ms(), document_id))
    conn.execute("UPDATE document_versions SET collection_id = ? WHERE document_id = ?", (target, document_id))
    conn.execute("UPDATE jobs SET collection_id = ? WHERE document_id = ? AND kind = 'ingest'", (target, document_id))
    conn.execute("DELETE FROM jobs WHERE document_id = ? AND kind = 'move'", (document_id,))
    if version_id is not None:
        change = "UPDATE collections SET fingerprint = ? WHERE id = ? AND fingerprint IS NULL"
        conn.execute(change, (fingerprint, target))
    return True
