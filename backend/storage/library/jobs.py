"""The queue of jobs on documents. Only this module writes the table jobs.

A job is queued until it is ready, failed or cancelled. Before `lease_until` no other process may take it. Its results
are in the tables of versions and chunks, so the next process that takes the job continues there.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from backend.kit.ids import new_id
from backend.kit.times import now_ms
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx
from backend.storage.library import collections, document_rows
from backend.storage.library.chunks import NewChunk, add_chunks, reserve_numbers
from backend.storage.library.document_rows import Discarded, ParsedText

Progress = dict[str, Any]
"""`done` of `total` chunks, `rate` in chunks per second, `seconds` spent in each stage; an embedding also has `model`.
"""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job with the data that its worker needs: of the collection as it is now, and of the version.

    `is_parsed`: the version's text is stored already.
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
    is_parsed: bool
    first_chunk: int | None
    chunks: int | None


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """The result of a job's last commit. `outcome`: done, gone (the document or job was deleted, cancelled or replaced)
    or changed (the collection has another embedding). `superseded` is the version that was active before.
    """

    outcome: str
    superseded: Discarded | None = None


class Jobs:
    """The queue. Each change is one commit."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def claim(self, instance_id: str, lease_ms: int, after_owner: str) -> JobRow | None:
        """A job for this instance; None if no job waits. Owners take turns: the job is the one that waits longest of
        the next owner after `after_owner`.
        """
        return await self._db.write(lambda tx: _claim(tx, instance_id, lease_ms, after_owner))

    async def renew(self, instance_id: str, lease_ms: int) -> None:
        """Extend the leases of this instance's jobs."""
        sql = "UPDATE jobs SET lease_until = :until WHERE stage = 'queued' AND instance_id = :me"
        await self._db.write(lambda tx: tx.execute(sql, until=now_ms() + lease_ms, me=instance_id))

    async def release(self, instance_id: str | None = None, busy: Sequence[str] = ()) -> None:
        """End the leases of an instance, except those of the `busy` jobs. Without an instance, end all leases: only at
        the start, because the lock on DATA_DIR proves that no other process works on a job.
        """
        sql = (
            "UPDATE jobs SET instance_id = NULL, lease_until = 0 WHERE stage = 'queued' AND instance_id IS NOT NULL "
            "AND (:me IS NULL OR instance_id = :me) AND id NOT IN :busy"
        )
        await self._db.write(lambda tx: tx.execute(sql, me=instance_id, busy=busy))

    async def put_back(self, job: JobRow) -> None:
        """Put the job at the end of the queue."""
        sql = "UPDATE jobs SET instance_id = NULL, lease_until = :now WHERE id = :id AND stage = 'queued'"
        await self._db.write(lambda tx: tx.execute(sql, now=now_ms(), id=job.id))

    async def postpone(self, job: JobRow, code: str, reason: str, attempts: int, until_ms: int) -> None:
        """Let the job wait until a time (ms) for its next attempt, and store why it waits."""
        sql = (
            "UPDATE jobs SET instance_id = NULL, lease_until = :until, attempts = :attempts, reason_code = :code, "
            "reason = :reason, updated_at = :now WHERE id = :id AND stage = 'queued'"
        )
        await self._db.write(
            lambda tx: tx.execute(
                sql, until=until_ms, attempts=attempts, code=code, reason=reason, now=now_ms(), id=job.id
            )
        )

    async def end_waits(self) -> None:
        """Let all jobs that wait for their next attempt run now."""
        sql = "UPDATE jobs SET lease_until = :now WHERE stage = 'queued' AND instance_id IS NULL AND lease_until > :now"
        await self._db.write(lambda tx: tx.execute(sql, now=now_ms()))

    async def next_at(self) -> int | None:
        """The time (ms) at which the next job may be taken; None if there is none."""
        sql = "SELECT min(lease_until) FROM jobs WHERE stage = 'queued' AND instance_id IS NULL"
        return await self._db.read(lambda tx: tx.value(sql))

    async def count(self) -> int:
        """The number of queued jobs."""
        return await self._db.read(lambda tx: tx.value("SELECT count(*) FROM jobs WHERE stage = 'queued'"))

    async def fail(self, job: JobRow, code: str, reason: str, progress: Progress) -> None:
        """Mark the job as failed. `reason` tells the user why."""
        await self._db.write(lambda tx: _fail(tx, job, code, reason, progress))

    async def text(self, version_id: str) -> ParsedText:
        """The text that `store_text` stored."""
        sql = "SELECT text, map, media_type, title, language, pages FROM document_versions WHERE id = :id"
        ((text, stored_map, *rest),) = await self._db.read(lambda tx: tx.rows(sql, id=version_id))
        return ParsedText(text, json.loads(stored_map or "{}"), *rest)

    async def store_text(self, job: JobRow, new: ParsedText | None, chunks: int) -> int | None:
        """The first of the numbers for the version's chunks; None: the version is gone. Stores the text, if given."""
        return await self._db.write(lambda tx: _store_text(tx, job, new, chunks))

    async def finish(self, job: JobRow, fingerprint: str, rows: Sequence[NewChunk], progress: Progress) -> FinishedJob:
        """The result of the job's last commit: it stores the last chunks and makes the version the active one."""
        return await self._db.write(lambda tx: _finish(tx, job, fingerprint, rows, progress))

    async def requeue(self, version_ids: Sequence[str]) -> None:
        """Let these versions' jobs run again, because a part of their results is missing."""

        def requeue_all(tx: Tx) -> None:
            for version_id in version_ids:
                requeue(tx, version_id)

        await self._db.write(requeue_all)


def _claim(tx: Tx, instance_id: str, lease_ms: int, after_owner: str) -> JobRow | None:
    now = now_ms()
    free = "stage = 'queued' AND lease_until <= :now"
    owners = sorted(o for (o,) in tx.rows(f"SELECT DISTINCT owner FROM jobs WHERE {free}", now=now))
    if not owners:
        return None
    owner = next((o for o in owners if o > after_owner), owners[0])
    sql = f"SELECT id FROM jobs WHERE {free} AND owner = :owner ORDER BY lease_until, id LIMIT 1"
    job_id = tx.value(sql, now=now, owner=owner)
    sql = "UPDATE jobs SET instance_id = :me, lease_until = :until WHERE id = :id"
    tx.execute(sql, me=instance_id, until=now + lease_ms, id=job_id)
    columns = list(tx.rows(_JOB, id=job_id)[0])
    columns[8] = _progress(columns[8])
    return JobRow(*columns)


def _progress(stored: str) -> Progress:
    """The stored progress; none if it is damaged, since one such job must not keep the others from being claimed."""
    try:
        progress = json.loads(stored)
    except ValueError:
        progress = None
    return cast(Progress, progress) if isinstance(progress, dict) else {}


_JOB = """
SELECT j.id, j.owner, j.kind, j.collection_id, j.document_id, j.version_id, j.attempts, j.reason_code, j.progress,
    c.fingerprint, c.generation, coalesce(d.name, ''), v.text IS NOT NULL, v.first_chunk, v.chunks
FROM jobs j JOIN collections c ON c.id = j.collection_id
LEFT JOIN documents d ON d.id = j.document_id LEFT JOIN document_versions v ON v.id = j.version_id
WHERE j.id = :id"""


def _fail(tx: Tx, job: JobRow, code: str, reason: str, progress: Progress) -> None:
    failed = tx.count_changes(
        "UPDATE jobs SET stage = 'failed', reason_code = :code, reason = :reason, progress = :progress, "
        "instance_id = NULL, updated_at = :now WHERE id = :id AND stage = 'queued'",
        code=code,
        reason=reason,
        progress=json.dumps(progress),
        now=now_ms(),
        id=job.id,
    )
    if failed and job.kind == "ingest":
        document_rows.fail(tx, job.version_id, code, reason)
        document_rows.touch(tx, job.document_id)


def _store_text(tx: Tx, job: JobRow, new: ParsedText | None, chunks: int) -> int | None:
    if not is_queued(tx, job.id):
        return None
    if new is not None:
        document_rows.set_text(tx, job.version_id, new)
    return reserve_numbers(tx, job.version_id, chunks)


def _finish(tx: Tx, job: JobRow, fingerprint: str, rows: Sequence[NewChunk], progress: Progress) -> FinishedJob:
    row = tx.one(
        "SELECT d.active_version, d.pending_version, d.collection_id, c.generation, c.fingerprint FROM jobs j "
        "JOIN documents d ON d.id = j.document_id JOIN collections c ON c.id = d.collection_id "
        "WHERE j.id = :id AND j.stage = 'queued'",
        id=job.id,
    )
    if row is None or job.version_id not in row[:2]:
        return FinishedJob("gone")
    active, pending, collection_id, generation, stored_print = row
    if (collection_id, generation) != (job.collection_id, job.generation) or stored_print not in (None, fingerprint):
        return FinishedJob("changed")
    add_chunks(tx, collection_id, fingerprint, job.version_id, rows)
    superseded = None
    if pending == job.version_id:
        if active is not None:
            drop_ingest(tx, active)
            superseded = document_rows.supersede(tx, active)
        document_rows.activate(tx, job.document_id, pending)
    collections.set_first_fingerprint(tx, collection_id, fingerprint)
    tx.execute(
        "UPDATE jobs SET stage = 'ready', progress = :progress, reason = NULL, reason_code = NULL, "
        "instance_id = NULL, updated_at = :now WHERE id = :id",
        progress=json.dumps(progress),
        now=now_ms(),
        id=job.id,
    )
    return FinishedJob("done", superseded)


# Parts of a caller's commit.


def queue(
    tx: Tx,
    owner: str,
    kind: str,
    collection_id: str,
    document_id: str | None,
    version_id: str | None,
    progress: Progress | None = None,
) -> None:
    """Queue a job."""
    tx.execute(
        "INSERT INTO jobs (id, owner, kind, collection_id, document_id, version_id, stage, progress, attempts, "
        "lease_until, created_at, updated_at) "
        "VALUES (:id, :owner, :kind, :collection_id, :document_id, :version_id, 'queued', :progress, 0, :now, :now, "
        ":now)",
        id=new_id("job"),
        owner=owner,
        kind=kind,
        collection_id=collection_id,
        document_id=document_id,
        version_id=version_id,
        progress=json.dumps(progress or {}),
        now=now_ms(),
    )


def is_queued(tx: Tx, job_id: str) -> bool:
    """Whether the job is queued."""
    return tx.one("SELECT 1 FROM jobs WHERE id = :id AND stage = 'queued'", id=job_id) is not None


def requeue(tx: Tx, version_id: str) -> None:
    """Let a version's job run now. It continues where it stopped."""
    document_rows.requeue(tx, version_id)
    tx.execute(
        "UPDATE jobs SET stage = 'queued', attempts = 0, progress = '{}', reason = NULL, reason_code = NULL, "
        "instance_id = NULL, lease_until = :now, updated_at = :now WHERE version_id = :id AND kind = 'ingest' AND "
        "document_id = (SELECT document_id FROM document_versions WHERE id = :id)",
        now=now_ms(),
        id=version_id,
    )


def end_waits_of_document(tx: Tx, document_id: str) -> None:
    """Let the jobs of a document that wait for their next attempt run now."""
    tx.execute(
        "UPDATE jobs SET lease_until = :now WHERE document_id = :id AND stage = 'queued' AND instance_id IS NULL",
        now=now_ms(),
        id=document_id,
    )


def cancel_ingest(tx: Tx, document_id: str, version_id: str | None) -> None:
    """Cancel the job that reads this version of the document, if it is queued."""
    tx.execute(
        "UPDATE jobs SET stage = 'cancelled', instance_id = NULL, reason = NULL, reason_code = NULL, "
        "updated_at = :now WHERE document_id = :document_id AND version_id = :version_id AND stage = 'queued'",
        now=now_ms(),
        document_id=document_id,
        version_id=version_id,
    )


def move(tx: Tx, document_id: str, collection_id: str) -> None:
    """Change the collection of the document's ingest job, and remove the job that moved the document."""
    sql = "UPDATE jobs SET collection_id = :collection_id WHERE document_id = :id AND kind = 'ingest'"
    tx.execute(sql, collection_id=collection_id, id=document_id)
    drop_move(tx, document_id)


def drop(tx: Tx, job_id: str) -> None:
    """Remove a job."""
    tx.execute("DELETE FROM jobs WHERE id = :id", id=job_id)


def drop_ingest(tx: Tx, version_id: str) -> None:
    """Remove the job of a version."""
    tx.execute(
        "DELETE FROM jobs WHERE document_id = (SELECT document_id FROM document_versions WHERE id = :id) "
        "AND version_id = :id",
        id=version_id,
    )


def drop_move(tx: Tx, document_id: str) -> None:
    """Remove the job that moves a document."""
    tx.execute("DELETE FROM jobs WHERE document_id = :id AND kind = 'move'", id=document_id)


def drop_embed(tx: Tx, collection_id: str) -> bool:
    """Whether there was a job that embeds the collection. It is removed."""
    return tx.count_changes("DELETE FROM jobs WHERE collection_id = :id AND kind = 'embed'", id=collection_id) > 0


def drop_of_documents(tx: Tx, document_ids: Sequence[str]) -> None:
    """Remove all jobs of these documents."""
    tx.execute("DELETE FROM jobs WHERE document_id IN :ids", ids=document_ids)
