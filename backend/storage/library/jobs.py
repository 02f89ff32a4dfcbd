"""The queue of the work on documents: a row a job. Plain SQL on the writer's thread, since small documents come by
the thousand.

A job is queued until it is ready, failed or cancelled; before `lease_until` nobody else may take it. What it has
done is in the tables of versions and chunks, so that whoever takes it next goes on from there.
"""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backend.kit.ids import now_ms
from backend.storage.engine.database import Database
from backend.storage.library.chunks import NewChunk, add_chunks, reserve_numbers
from backend.storage.library.versions import Discarded, Progress, requeue, supersede


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as its worker needs it: with the collection as it is now, and what is known of the version.

    `parsed`: the text is stored already.
    """

    id: str
    owner: str
    kind: str
    collection_id: str
    document_id: str
    version_id: str
    attempts: int
    reason_code: str | None
    progress: Progress
    fingerprint: str | None
    generation: int
    name: str
    parsed: bool
    first_chunk: int | None
    chunks: int | None


@dataclass(frozen=True, slots=True)
class ParsedText:
    """What reading a file gave."""

    text: str
    map: dict[str, Any]
    media_type: str
    title: str | None
    language: str | None
    pages: int | None


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """How a job's last commit went: done, gone (deleted, cancelled, replaced) or changed (its collection was)."""

    outcome: str
    superseded: Discarded | None = None


_JOB = """
SELECT j.id, j.owner, j.kind, j.collection_id, j.document_id, j.version_id, j.attempts, j.reason_code, j.progress,
    c.fingerprint, c.generation, coalesce(d.name, ''), v.text IS NOT NULL, v.first_chunk, v.chunks
FROM jobs j JOIN collections c ON c.id = j.collection_id
LEFT JOIN documents d ON d.id = j.document_id LEFT JOIN document_versions v ON v.id = j.version_id
"""


class Jobs:
    """The queue. Each change is one commit."""

    def __init__(self, database: Database) -> None:
        self._writer = database.writer
        self._reader = database.reader

    async def claim(self, instance_id: str, lease_ms: int, after_owner: str) -> JobRow | None:
        """A job that nobody works on, now ours: of the next owner after that one, the one that waits longest."""
        return await self._writer.run(lambda conn: _claim(conn, instance_id, lease_ms, after_owner))

    async def renew(self, instance_id: str, lease_ms: int) -> None:
        """Keep the leases of this instance."""
        sql = "UPDATE jobs SET lease_until = ? WHERE stage = 'queued' AND instance_id = ?"
        await self._writer.run(lambda conn: conn.execute(sql, (now_ms() + lease_ms, instance_id)) and None)

    async def release(self, instance_id: str | None = None, busy: Sequence[str] = ()) -> None:
        """Let go of the leases of an instance, but for the `busy` jobs; of all: the lock on DATA_DIR proves that no
        holder lives."""
        sql = (
            "UPDATE jobs SET instance_id = NULL, lease_until = 0 WHERE stage = 'queued' AND instance_id IS NOT NULL "
            "AND (:me IS NULL OR instance_id = :me) AND id NOT IN (SELECT value FROM json_each(:busy))"
        )
        params = {"me": instance_id, "busy": json.dumps(list(busy))}
        await self._writer.run(lambda conn: conn.execute(sql, params) and None)

    async def give_way(self, job: JobRow) -> None:
        """Back to the end of the queue."""
        sql = "UPDATE jobs SET instance_id = NULL, lease_until = ? WHERE id = ? AND stage = 'queued'"
        await self._writer.run(lambda conn: conn.execute(sql, (now_ms(), job.id)) and None)

    async def postpone(self, job: JobRow, code: str, reason: str, attempts: int, until_ms: int) -> None:
        """Try again later, and tell why it waits."""
        sql = (
            "UPDATE jobs SET instance_id = NULL, lease_until = ?, attempts = ?, reason_code = ?, reason = ?, "
            "updated_at = ? WHERE id = ? AND stage = 'queued'"
        )
        params = (until_ms, attempts, code, reason, now_ms(), job.id)
        await self._writer.run(lambda conn: conn.execute(sql, params) and None)

    async def hurry(self) -> None:
        """What waits for its next try need not wait any longer."""
        sql = "UPDATE jobs SET lease_until = ? WHERE stage = 'queued' AND instance_id IS NULL AND lease_until > ?"
        now = now_ms()
        await self._writer.run(lambda conn: conn.execute(sql, (now, now)) and None)

    async def next_at(self) -> int | None:
        """When the next job may be taken, in ms; None when there is none."""
        sql = "SELECT min(lease_until) FROM jobs WHERE stage = 'queued' AND instance_id IS NULL"
        return await self._reader.run(lambda conn: conn.execute(sql).fetchone()[0])

    async def count(self) -> int:
        """How many jobs are not done yet."""
        sql = "SELECT count(*) FROM jobs WHERE stage = 'queued'"
        return await self._reader.run(lambda conn: conn.execute(sql).fetchone()[0])

    async def fail(self, job: JobRow, code: str, reason: str, progress: Progress) -> None:
        """It can't succeed, for a reason in words."""
        await self._writer.run(lambda conn: _fail(conn, job, code, reason, progress))

    async def text(self, version_id: str) -> ParsedText:
        """What `parsed` stored."""
        sql = "SELECT text, map, media_type, title, language, pages FROM document_versions WHERE id = ?"

        def read(conn: sqlite3.Connection) -> ParsedText:
            text, stored_map, *rest = conn.execute(sql, (version_id,)).fetchone()
            return ParsedText(text, json.loads(stored_map or "{}"), *rest)

        return await self._reader.run(read)

    async def parsed(self, job: JobRow, new: ParsedText | None, chunks: int) -> int | None:
        """Store what reading the file gave and reserve numbers for its chunks: the first. None: the version is gone."""
        return await self._writer.run(lambda conn: _parsed(conn, job, new, chunks))

    async def finish(self, job: JobRow, fingerprint: str, rows: Sequence[NewChunk], progress: Progress) -> FinishedJob:
        """The last chunks, and the version becomes the active one, in one commit."""
        return await self._writer.run(lambda conn: _finish(conn, job, fingerprint, rows, progress))

    async def requeue(self, version_ids: Sequence[str]) -> None:
        """Let these versions' jobs run again: something of them got lost."""

        def again(conn: sqlite3.Connection) -> None:
            for version_id in version_ids:
                requeue(conn, version_id)

        await self._writer.run(again)


def _claim(conn: sqlite3.Connection, instance_id: str, lease_ms: int, after_owner: str) -> JobRow | None:
    now = now_ms()
    free = "stage = 'queued' AND lease_until <= ?"
    owners = sorted(o for (o,) in conn.execute(f"SELECT DISTINCT owner FROM jobs WHERE {free}", (now,)))
    if not owners:
        return None
    owner = next((o for o in owners if o > after_owner), owners[0])
    sql = f"SELECT id FROM jobs WHERE {free} AND owner = ? ORDER BY lease_until, id LIMIT 1"
    (job_id,) = conn.execute(sql, (now, owner)).fetchone()
    conn.execute("UPDATE jobs SET instance_id = ?, lease_until = ? WHERE id = ?", (instance_id, now + lease_ms, job_id))
    found = conn.execute(_JOB + "WHERE j.id = ?", (job_id,)).fetchone()
    columns = list(found)
    columns[8] = json.loads(columns[8])
    return JobRow(*columns)


def _fail(conn: sqlite3.Connection, job: JobRow, code: str, reason: str, progress: Progress) -> None:
    change = (
        "UPDATE jobs SET stage = 'failed', reason_code = ?, reason = ?, progress = ?, instance_id = NULL, "
        "updated_at = ? WHERE id = ? AND stage = 'queued'"
    )
    if conn.execute(change, (code, reason, json.dumps(progress), now_ms(), job.id)).rowcount and job.kind == "ingest":
        conn.execute(
            "UPDATE document_versions SET status = 'failed', reason_code = ?, reason = ? "
            "WHERE id = ? AND status = 'queued'",
            (code, reason, job.version_id),
        )
        conn.execute("UPDATE documents SET updated_at = ? WHERE id = ?", (now_ms(), job.document_id))


def _parsed(conn: sqlite3.Connection, job: JobRow, new: ParsedText | None, chunks: int) -> int | None:
    wanted = "SELECT 1 FROM jobs WHERE id = ? AND stage = 'queued'"
    if conn.execute(wanted, (job.id,)).fetchone() is None:
        return None
    if new is not None:
        conn.execute(
            "UPDATE document_versions SET text = ?, map = ?, media_type = ?, title = ?, language = ?, pages = ? "
            "WHERE id = ?",
            (new.text, json.dumps(new.map), new.media_type, new.title, new.language, new.pages, job.version_id),
        )
    return reserve_numbers(conn, job.version_id, chunks)


def _finish(
    conn: sqlite3.Connection, job: JobRow, fingerprint: str, rows: Sequence[NewChunk], progress: Progress
) -> FinishedJob:
    sql = (
        "SELECT d.active_version, d.pending_version, d.collection_id, c.generation, c.fingerprint FROM jobs j "
        "JOIN documents d ON d.id = j.document_id JOIN collections c ON c.id = d.collection_id "
        "WHERE j.id = ? AND j.stage = 'queued'"
    )
    found = conn.execute(sql, (job.id,)).fetchone()
    if found is None or job.version_id not in found[:2]:
        return FinishedJob("gone")
    active, pending, collection_id, generation, now_print = found
    if (collection_id, generation) != (job.collection_id, job.generation) or now_print not in (None, fingerprint):
        return FinishedJob("changed")
    add_chunks(conn, collection_id, fingerprint, job.version_id, rows)
    now, superseded = now_ms(), None
    if pending == job.version_id:
        superseded = supersede(conn, active) if active is not None else None
        change = "UPDATE documents SET active_version = ?, pending_version = NULL, updated_at = ? WHERE id = ?"
        conn.execute(change, (pending, now, job.document_id))
        conn.execute("UPDATE document_versions SET status = 'ready' WHERE id = ?", (pending,))
    change = "UPDATE collections SET fingerprint = ? WHERE id = ? AND fingerprint IS NULL"
    conn.execute(change, (fingerprint, collection_id))
    conn.execute(
        "UPDATE jobs SET stage = 'ready', progress = ?, reason = NULL, reason_code = NULL, instance_id = NULL, "
        "updated_at = ? WHERE id = ?",
        (json.dumps(progress), now, job.id),
    )
    return FinishedJob("done", superseded)
