"""The workers of this process: they take jobs from the queue in the database and do them, a batch at a time.

    queued -> parsing -> chunking -> embedding -> indexing -> ready | failed | cancelled

A job that has done a batch goes to the end of its owner's queue, and owners take turns: no owner waits for a thousand
pages of another one. The stages between "queued" and the end are on the board (progress.py), not in the database: what
a job has done is in the tables of versions and chunks, and a job continues from there after a crash.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from typing import Protocol

import structlog

from backend.chains.reading.parser import Parser
from backend.errors import (
    BudgetExceeded,
    DocumentUnreadable,
    EmbeddingFailed,
    EmbeddingMismatch,
    RequestError,
    StreamForgeError,
)
from backend.kit.ids import new_id
from backend.kit.times import now_ms
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.ingest import IngestJob
from backend.services.library.jobs.move import MoveJob
from backend.services.library.jobs.progress import JobBlocked, JobObsolete, JobOutdated, JobProgress, ProgressBoard
from backend.services.library.jobs.reembed import ReembedJob
from backend.services.library.search.search import LibrarySearch, Metering
from backend.services.telemetry.telemetry import SILENT, Telemetry
from backend.storage.library.jobs import JobRow, Progress

log = structlog.get_logger(__name__)

LEASE_MS = 120_000
MAX_ATTEMPTS = 5
"""Attempts of a job that fails by a fault of ours."""
MAX_WAITS = 300
"""Attempts of a job that fails because the provider of embeddings is down: with the longest pause, a day."""
_WORKERS = 4
_PAUSED_JOBS = 4
"""Jobs in the queue whose text is kept in memory, so that their next batch need not read it again."""
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 2_000, 300_000
_IDLE_SECONDS = 30.0
"""Seconds between looks into the queue if no job comes."""
_TROUBLE_SECONDS = 5.0
"""Seconds between looks into the queue while the database can't be used."""


class JobWork(Protocol):
    """The work of a job."""

    async def step(self) -> bool:
        """Do one batch. Returns whether that was the last one."""
        ...


class JobWorkers:
    """The workers of the queue. They put their jobs on the board while they are at it."""

    def __init__(
        self,
        holdings: Holdings,
        parser: Parser,
        board: ProgressBoard,
        search: LibrarySearch,
        chunk_size: int,
        metering: Metering,
        telemetry: Telemetry = SILENT,
        *,
        shows_advice: bool = True,
    ) -> None:
        self._holdings = holdings
        self._jobs = holdings.jobs
        self._parser = parser
        self._board = board
        self._search = search
        self._chunk_size = chunk_size
        self._metering = metering
        self._telemetry = telemetry
        self._shows_advice = shows_advice
        self._instance_id = new_id("ins")
        self._queue_changed = asyncio.Event()
        self._free_workers = asyncio.Semaphore(_WORKERS)
        self._tasks: list[asyncio.Task[None]] = []
        self._active: dict[str, tuple[JobRow, asyncio.Task[None]]] = {}
        self._paused: OrderedDict[str, tuple[JobWork, JobProgress]] = OrderedDict()
        self._handing_out = asyncio.Lock()
        self._last_owner = ""
        self._has_trouble = False

    async def open(self) -> None:
        """Continue the jobs that an earlier process left, and take new ones."""
        await self._jobs.release()
        self._tasks = [
            asyncio.create_task(self._run(), name="ingestion"),
            asyncio.create_task(self._renew_leases(), name="ingestion-leases"),
        ]

    async def close(self) -> None:
        """Stop. Unfinished jobs continue at the next start."""
        tasks = [*self._tasks, *(task for _, task in self._active.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """Look into the queue now: there is a new job, or a job may be tried again."""
        self._queue_changed.set()

    async def abandon(self, ids: Iterable[str]) -> None:
        """Stop the jobs of these documents, and the re-embedding of these collections; forget what they have begun."""
        subjects = set(ids)
        tasks = [task for job, task in self._active.values() if _subject(job) in subjects]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for entry in self._board.entries():
            if _subject(entry.job) in subjects:
                self._forget(entry.job.id)
        async with self._handing_out:
            await self._jobs.release(self._instance_id, list(self._active))

    async def abandon_all(self) -> None:
        """Stop all jobs; they begin anew, with what is stored of them."""
        await self.abandon([_subject(entry.job) for entry in self._board.entries()])

    async def _run(self) -> None:
        """Hand out jobs, as many at a time as there are workers."""
        while True:
            await self._free_workers.acquire()
            while not await self._hand_out():
                with suppress(TimeoutError):
                    async with asyncio.timeout(await self._seconds_to_next_job()):
                        await self._queue_changed.wait()

    async def _hand_out(self) -> bool:
        """Begin the next job. Returns whether there was one."""
        self._queue_changed.clear()
        try:
            async with self._handing_out:
                if self._has_trouble:
                    await self._jobs.release(self._instance_id, list(self._active))
                    self._has_trouble = False
                job = await self._jobs.claim(self._instance_id, LEASE_MS, self._last_owner)
                if job is not None:
                    self._last_owner = job.owner
                    task = asyncio.create_task(self._process(job), name=f"job-{job.id}")
                    self._active[job.id] = (job, task)
                    task.add_done_callback(lambda ended: self._free_worker(job.id, ended))
                return job is not None
        except StreamForgeError as error:
            log.warning("ingestion_paused", code=error.code)
        except Exception:
            log.exception("ingestion_crashed")
        self._has_trouble = True
        return False

    def _free_worker(self, job_id: str, task: "asyncio.Task[None]") -> None:
        # A job that went back to the queue may be with another worker already.
        if self._active.get(job_id, (None, None))[1] is task:
            del self._active[job_id]
        self._free_workers.release()

    async def _seconds_to_next_job(self) -> float:
        """Seconds until the next job may be taken, if no new one comes."""
        if not self._has_trouble:
            with _logged_trouble():
                at = await self._jobs.next_at()
                return _IDLE_SECONDS if at is None else min(_IDLE_SECONDS, max(0, at - now_ms()) / 1000)
        return _TROUBLE_SECONDS

    async def _renew_leases(self) -> None:
        """A slow job keeps its lease."""
        while True:
            await asyncio.sleep(LEASE_MS / 3000)
            with _logged_trouble():
                await self._jobs.renew(self._instance_id, LEASE_MS)

    async def _process(self, job: JobRow) -> None:
        """Do one step of a job; then end it, put it back into the queue, or handle its failure."""
        began = time.monotonic()
        try:
            work, progress = self._begin_or_resume(job)
            with self._metering(job.owner):
                was_last = await work.step()
            if was_last:
                self._forget(job.id)
                self._telemetry.job(job.kind, "ready", progress.seconds_by_stage())
                log.info("job_done", kind=job.kind, document_id=job.document_id, chunks=progress.total)
                if job.attempts:
                    await self._jobs.end_waits()
            else:
                progress.pause()
                self._keep(job.id, work, progress)
                await self._jobs.put_back(job)
        except asyncio.CancelledError:
            self._forget(job.id)
            raise
        except Exception as error:
            await self._handle_failure(job, error)
        finally:
            self._search.forget(job.owner)
            self._board.announce(job.document_id)
            self._queue_changed.set()
            log.debug("job_step", kind=job.kind, seconds=round(time.monotonic() - began, 3))

    def _begin_or_resume(self, job: JobRow) -> tuple[JobWork, JobProgress]:
        if (paused := self._paused.pop(job.id, None)) is not None:
            paused[1].resume()
            return paused
        progress = self._board.start(job)
        match job.kind:
            case "embed":
                return ReembedJob(self._holdings, job, progress), progress
            case "move":
                return MoveJob(self._holdings, job.owner, job.document_id, job.collection_id, progress), progress
            case _:
                return IngestJob(self._holdings, self._parser, self._chunk_size, job, progress), progress

    def _keep(self, job_id: str, work: JobWork, progress: JobProgress) -> None:
        self._paused[job_id] = (work, progress)
        if len(self._paused) > _PAUSED_JOBS:
            evicted, _ = self._paused.popitem(last=False)
            self._board.remove(evicted)

    def _forget(self, job_id: str) -> None:
        self._paused.pop(job_id, None)
        self._board.remove(job_id)

    async def _handle_failure(self, job: JobRow, error: Exception) -> None:
        """Store whether the job is tried again, and when. If that can't be stored now, it is after the trouble."""
        entry = self._board.get(job.id)
        self._forget(job.id)
        progress = {**job.progress, **(entry.progress.as_json() if entry is not None else {})}
        reason = "Something went wrong here. The server's log has the details."
        if isinstance(error, StreamForgeError):
            reason = error.text(with_advice=self._shows_advice)
        try:
            match error:
                case JobObsolete():
                    pass
                case JobOutdated():
                    await self._jobs.put_back(job)
                case JobBlocked():
                    await self._jobs.postpone(job, "waiting", "Another change comes first.", 0, now_ms() + 1_000)
                case DocumentUnreadable() | EmbeddingMismatch():
                    await self._give_up(job, error.code, reason, progress)
                    log.warning("job_failed", kind=job.kind, document_id=job.document_id, code=error.code)
                case EmbeddingFailed():
                    await self._try_later(job, error.code, reason, MAX_WAITS, progress)
                case BudgetExceeded() if error.retry_after is not None:
                    # A job has time: it waits until the budget's period ends, if need be.
                    pause = min(_LONGEST_PAUSE_MS, error.retry_after * 1000)
                    await self._jobs.postpone(job, error.code, reason, 0, now_ms() + pause)
                case RequestError() if error.status < 500:
                    # What the job needs was deleted, or exists twice.
                    await self._give_up(job, error.code, reason, progress)
                case StreamForgeError() | OSError():
                    self._has_trouble = True
                    log.warning("ingestion_paused", error=type(error).__name__)
                case _:
                    log.error("job_crashed", kind=job.kind, document_id=job.document_id, exc_info=error)
                    await self._try_later(job, "internal", reason, MAX_ATTEMPTS, progress)
        except Exception as trouble:
            self._has_trouble = True
            log.warning("ingestion_paused", error=type(trouble).__name__)

    async def _give_up(self, job: JobRow, code: str, reason: str, progress: Progress) -> None:
        await self._jobs.fail(job, code, reason, progress)
        self._telemetry.job(job.kind, code, progress.get("seconds") or {})

    async def _try_later(self, job: JobRow, code: str, reason: str, max_attempts: int, progress: Progress) -> None:
        """Postpone a job, with growing pauses. Failures of another kind don't count as attempts."""
        attempts = job.attempts + 1 if job.reason_code == code else 1
        if attempts >= max_attempts:
            await self._give_up(job, code, reason, progress)
            return
        pause = min(_LONGEST_PAUSE_MS, _FIRST_PAUSE_MS * 2 ** min(attempts - 1, 20))
        await self._jobs.postpone(job, code, reason, attempts, now_ms() + pause)


@contextmanager
def _logged_trouble() -> Generator[None]:
    """A block whose failure is only logged, so that its task lives on."""
    try:
        yield
    except StreamForgeError as error:
        log.warning("ingestion_paused", code=error.code)
    except Exception:
        log.exception("ingestion_crashed")


def _subject(job: JobRow) -> str:
    """The id of the document that a job is about, or of the collection that it re-embeds."""
    return job.collection_id if job.kind == "embed" else job.document_id
