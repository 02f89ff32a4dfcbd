"""The queue of ingestion: a row a job, with a stage and a lease."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select, update

from backend.storage.database import Database
from backend.storage.documents import FINAL
from backend.storage.ids import now_ms
from backend.storage.tables import collections, document_versions, documents, jobs


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as its worker needs it. `parsed`: the text is stored already."""

    id: str
    owner: str
    document_id: str
    version_id: str
    collection_id: str
    name: str
    attempts: int
    progress: dict[str, Any]
    parsed: bool


class Jobs:
    """The queue of ingestion: rows with a stage and a lease."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def claim(self, instance_id: str, lease_ms: int) -> JobRow | None:
        """The oldest job that nobody works on, now ours; None when there is none."""
        now = now_ms()
        # One worker an instance: what carries its name while it asks for more was given up, by a storage failure.
        mine_or_free = or_(jobs.c.instance_id.is_(None), jobs.c.instance_id == instance_id, jobs.c.lease_until <= now)
        query = (
            select(
                jobs.c.id,
                jobs.c.owner,
                jobs.c.document_id,
                jobs.c.version_id,
                documents.c.collection_id,
                documents.c.name,
                jobs.c.attempts,
                jobs.c.progress,
                document_versions.c.text.is_not(None),
            )
            .join(documents, documents.c.id == jobs.c.document_id)
            .join(document_versions, document_versions.c.id == jobs.c.version_id)
            .where(jobs.c.stage.not_in(FINAL), mine_or_free)
            .order_by(jobs.c.created_at, jobs.c.id)
            .limit(1)
        )
        async with self._db.read() as conn:
            if (await conn.execute(query)).first() is None:
                return None
        async with self._db.write() as conn:
            row = (await conn.execute(query)).first()
            if row is None:
                return None
            change = {"instance_id": instance_id, "lease_until": now + lease_ms}
            await conn.execute(update(jobs).where(jobs.c.id == row.id).values(**change))
            return JobRow(*row)

    async def release(self) -> None:
        """Let go of every lease: the lock on DATA_DIR proves that no holder lives."""
        async with self._db.write() as conn:
            await conn.execute(update(jobs).values(instance_id=None, lease_until=0))

    async def stage(self, job: JobRow, stage: str, progress: dict[str, Any], lease_ms: int) -> bool:
        """Say how far the job is, and keep the lease. False: the document was deleted."""
        now = now_ms()
        async with self._db.write() as conn:
            change = {"stage": stage, "progress": progress, "lease_until": now + lease_ms, "updated_at": now}
            done = await conn.execute(update(jobs).where(jobs.c.id == job.id).values(**change))
            version = update(document_versions).where(document_versions.c.id == job.version_id)
            await conn.execute(version.values(status=stage))
            return done.rowcount == 1

    async def save_text(self, job: JobRow, **values: Any) -> None:
        """Store what reading the file gave: text, map, media_type, title, pages."""
        change = update(document_versions).where(document_versions.c.id == job.version_id).values(**values)
        async with self._db.write() as conn:
            await conn.execute(change)

    async def load_text(self, job: JobRow) -> tuple[str, dict[str, Any], str, str | None]:
        """What `save_text` stored: text, map, media_type, title."""
        v = document_versions.c
        query = select(v.text, v.map, v.media_type, v.title).where(v.id == job.version_id)
        async with self._db.read() as conn:
            row = (await conn.execute(query)).one()
            return row[0], row[1], row[2], row[3]

    async def finish(self, job: JobRow, fingerprint: str, progress: dict[str, Any]) -> bool:
        """The active version and `ready`, in one commit. False: the document was deleted."""
        now = now_ms()
        async with self._db.write() as conn:
            ready = {"active_version": job.version_id, "pending_version": None, "updated_at": now}
            change = update(documents).where(documents.c.id == job.document_id)
            if (await conn.execute(change.values(**ready))).rowcount == 0:
                return False
            version = update(document_versions).where(document_versions.c.id == job.version_id)
            await conn.execute(version.values(status="ready", reason=None, reason_code=None))
            collection = update(collections).where(collections.c.id == job.collection_id)
            await conn.execute(collection.values(fingerprint=fingerprint))
            done = {"stage": "ready", "progress": progress, "updated_at": now, "lease_until": 0, "instance_id": None}
            await conn.execute(update(jobs).where(jobs.c.id == job.id).values(**done))
            return True

    async def fail(self, job: JobRow, code: str, reason: str) -> None:
        """The document can't become searchable, for a reason in words."""
        now = now_ms()
        async with self._db.write() as conn:
            failed = {"stage": "failed", "reason": reason, "updated_at": now, "lease_until": 0, "instance_id": None}
            await conn.execute(update(jobs).where(jobs.c.id == job.id).values(**failed))
            version = update(document_versions).where(document_versions.c.id == job.version_id)
            await conn.execute(version.values(status="failed", reason_code=code, reason=reason))

    async def postpone(self, job: JobRow, until_ms: int) -> None:
        """Try again later: what failed may pass. Only failures are counted; a restart is none."""
        async with self._db.write() as conn:
            attempts = job.attempts + 1
            change = {"stage": "queued", "instance_id": "waiting", "lease_until": until_ms, "attempts": attempts}
            await conn.execute(update(jobs).where(jobs.c.id == job.id).values(**change))
            version = update(document_versions).where(document_versions.c.id == job.version_id)
            await conn.execute(version.values(status="queued"))
