"""The workers of this process: they take jobs from the queue in the database and do them, a batch at a time.

    queued -> parsing -> chunking -> embedding -> indexing -> ready | failed | cancelled

A job that has done a batch goes to the end of its owner's queue, and owners take turns: nobody waits for somebody
else's thousand pages. Stages between queued and the end live here, not in the database: what a job has done is in the
tables of versions and chunks, and goes on from there after a crash.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import replace
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
from backend.services.library.jobs.progress import STAGES, Changed, Gone, JobProgress, Waiting
from backend.services.library.jobs.reembed import MoveJob, ReembedJob
from backend.services.library.search.search import LibrarySearch, Metering
from backend.services.telemetry.telemetry import SILENT, Telemetry
from backend.storage.library.documents import DocumentRow
from backend.storage.library.jobs import JobRow, Progress

log = structlog.get_logger(__name__)

LEASE_MS = 120_000
MAX_ATTEMPTS = 5
"""Tries of what fails by a fault of ours."""
MAX_WAITS = 300
"""Tries of what fails since the provider of embeddings is away: with the longest pause, a day."""
_WORKERS = 4
_PAUSED = 4
"""Jobs in the queue whose text is kept in memory, so that their next batch need not read it again."""
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 2_000, 300_000
_IDLE = 30.0
_TROUBLE = 5.0
"""Seconds between looks into the queue: while nothing happens, and while the database can't be used."""


class Work(Protocol):
    """What a job does."""

    async def step(self) -> bool:
        """Some of it; whether that was the last."""
        ...


class JobWorkers:
    """The queue's workers, and the bell that tells watchers of a document's progress."""

    def __init__(
        self,
        corpus: Holdings,
        parser: Parser,
        knowledge: LibrarySearch,
        chunk_size: int,
        metering: Metering,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._corpus = corpus
        self._jobs = corpus.jobs
        self._parser = parser
        self._knowledge = knowledge
        self._chunk_size = chunk_size
        self._metering = metering
        self._telemetry = telemetry
        self._instance_id = new_id("ins")
        self._new = asyncio.Event()
        self._free = asyncio.Semaphore(_WORKERS)
        self._tasks: list[asyncio.Task[None]] = []
        self._active: dict[str, tuple[JobRow, asyncio.Task[None]]] = {}
        self._paused: OrderedDict[str, Work] = OrderedDict()
        self._stages: dict[str, tuple[JobRow, JobProgress]] = {}
        self._handing_out = asyncio.Lock()
        self._last_owner = ""
        self._trouble = False
        self._watchers: dict[str, set[asyncio.Future[None]]] = {}
        self.dismissed = False

    async def open(self) -> None:
        """Go on with the jobs that an earlier process left, and take new ones."""
        await self._jobs.release()
        self._tasks = [
            asyncio.create_task(self._run(), name="ingestion"),
            asyncio.create_task(self._renew(), name="ingestion-leases"),
        ]

    async def close(self) -> None:
        """Stop; unfinished jobs go on at the next start."""
        tasks = [*self._tasks, *(task for _, task in self._active.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._parser.aclose()

    def wake(self) -> None:
        """There is a new job, or one may be tried again."""
        self._new.set()

    async def abandon(self, ids: Iterable[str]) -> None:
        """Stop working on these documents, or on the embedding of these collections; forget what was begun."""
        subjects = set(ids)
        tasks = [task for job, task in self._active.values() if _subject(job) in subjects]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for job_id, (job, _) in list(self._stages.items()):
            if _subject(job) in subjects:
                self._forget(job_id)
        async with self._handing_out:
            await self._jobs.release(self._instance_id, list(self._active))

    # What others see.

    def at_work(self, document_id: str) -> list[tuple[JobRow, JobProgress]]:
        """The jobs of a document that have begun."""
        return [(job, stages) for job, stages in self._stages.values() if job.document_id == document_id]

    def current(self, row: DocumentRow, begun: Iterable[tuple[JobRow, JobProgress]] = ()) -> DocumentRow:
        """A document with the stages that its jobs are in. `begun`: those at work before the row was read: a row that
        says queued was read before they ended."""
        for job, stages in [*begun, *self.at_work(row.id)]:
            if job.kind == "move" and row.moving is not None:
                row = replace(row, moving=replace(row.moving, progress=stages.told()))
            elif job.version_id == row.version and row.status == "queued":
                row = replace(row, status=stages.stage, progress=stages.told())
            elif row.pending is not None and job.version_id == row.pending.version and row.pending.status == "queued":
                row = replace(row, pending=replace(row.pending, status=stages.stage, progress=stages.told()))
        return row

    async def jobs_by_stage(self) -> dict[str, int]:
        """How many jobs are in each stage; those that wait are `queued`."""
        begun = Counter(stages.stage for _, stages in self._stages.values())
        counts = {stage: begun[stage] for stage in STAGES}
        return {**counts, "queued": max(0, await self._jobs.count() - sum(counts.values()))}

    def stages_of(self, collection_id: str) -> JobProgress | None:
        """How far the embedding of a collection is, while it is worked on."""
        for job, stages in self._stages.values():
            if job.kind == "embed" and job.collection_id == collection_id:
                return stages
        return None

    def versions_in(self, stage: str | None) -> list[str]:
        """The versions that are in this stage at the moment, or in any but queued."""
        return [
            job.version_id
            for job, stages in self._stages.values()
            if job.kind == "ingest" and (stages.stage == stage if stage else stages.stage != "queued")
        ]

    @contextmanager
    def next_change(self, document_id: str) -> Generator["asyncio.Future[None]"]:
        """Done when something about the document changes; ask before you read, so that nothing is missed between."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.setdefault(document_id, set()).add(future)
        try:
            yield future
        finally:
            watchers = self._watchers.get(document_id, set())
            watchers.discard(future)
            if not watchers:
                self._watchers.pop(document_id, None)

    def announce(self, document_id: str) -> None:
        """Tell the watchers of a document that it changed."""
        for future in self._watchers.pop(document_id, ()):
            if not future.done():
                future.set_result(None)

    def dismiss_watchers(self) -> None:
        """The server stops: nobody is told of changes any more."""
        self.dismissed = True
        for document_id in list(self._watchers):
            self.announce(document_id)

    # The queue.

    async def _run(self) -> None:
        """Hand out jobs, as many at a time as there are workers."""
        while True:
            await self._free.acquire()
            while not await self._hand_out():
                with suppress(TimeoutError):
                    async with asyncio.timeout(await self._pause()):
                        await self._new.wait()

    async def _hand_out(self) -> bool:
        """Begin the next job, if there is one."""
        self._new.clear()
        try:
            async with self._handing_out:
                if self._trouble:
                    await self._jobs.release(self._instance_id, list(self._active))
                    self._trouble = False
                job = await self._jobs.claim(self._instance_id, LEASE_MS, self._last_owner)
                if job is not None:
                    self._last_owner = job.owner
                    task = asyncio.create_task(self._process(job), name=f"job-{job.id}")
                    self._active[job.id] = (job, task)
                    task.add_done_callback(lambda ended: self._ended(job.id, ended))
                return job is not None
        except StreamForgeError as error:
            log.warning("ingestion_paused", code=error.code)
        except Exception:
            log.exception("ingestion_crashed")
        self._trouble = True
        return False

    def _ended(self, job_id: str, task: "asyncio.Task[None]") -> None:
        # A job that gave way may be at work again already.
        if self._active.get(job_id, (None, None))[1] is task:
            del self._active[job_id]
        self._free.release()

    async def _pause(self) -> float:
        """Seconds until the next job may be taken, if nothing new comes."""
        if not self._trouble:
            with suppress(StreamForgeError):
                at = await self._jobs.next_at()
                return _IDLE if at is None else min(_IDLE, max(0, at - now_ms()) / 1000)
        return _TROUBLE

    async def _renew(self) -> None:
        """A slow job keeps its lease."""
        while True:
            await asyncio.sleep(LEASE_MS / 3000)
            with suppress(StreamForgeError):
                await self._jobs.renew(self._instance_id, LEASE_MS)

    async def _process(self, job: JobRow) -> None:
        """One step of a job, and what follows from how it went."""
        began = time.monotonic()
        try:
            work, stages = self._work_of(job)
            with self._metering(job.owner):
                done = await work.step()
            if done:
                self._forget(job.id)
                self._telemetry.job(job.kind, "ready", stages.spent())
                log.info("job_done", kind=job.kind, document_id=job.document_id, chunks=stages.total)
                if job.attempts:
                    await self._jobs.hurry()
            else:
                stages.pause()
                self._keep(job.id, work)
                await self._jobs.give_way(job)
        except asyncio.CancelledError:
            self._forget(job.id)
            raise
        except Exception as error:
            await self._failed(job, error)
        finally:
            self._knowledge.changed(job.owner)
            self.announce(job.document_id)
            self._new.set()
            log.debug("job_step", kind=job.kind, seconds=round(time.monotonic() - began, 3))

    def _work_of(self, job: JobRow) -> tuple[Work, JobProgress]:
        if (kept := self._paused.pop(job.id, None)) is not None:
            stages = self._stages[job.id][1]
            stages.resume()
            return kept, stages
        stages = JobProgress(lambda: self.announce(job.document_id))
        self._stages[job.id] = (job, stages)
        match job.kind:
            case "embed":
                return ReembedJob(self._corpus, job, stages), stages
            case "move":
                return MoveJob(self._corpus, job.owner, job.document_id, job.collection_id, stages), stages
            case _:
                return IngestJob(self._corpus, self._parser, self._chunk_size, job, stages), stages

    def _keep(self, job_id: str, work: Work) -> None:
        self._paused[job_id] = work
        if len(self._paused) > _PAUSED:
            evicted, _ = self._paused.popitem(last=False)
            self._stages.pop(evicted, None)

    def _forget(self, job_id: str) -> None:
        self._paused.pop(job_id, None)
        self._stages.pop(job_id, None)

    async def _failed(self, job: JobRow, error: Exception) -> None:
        """Whether it is tried again, and when. What the database can't store now is tried after its trouble."""
        kept = self._stages.get(job.id)
        self._forget(job.id)
        progress = {**job.progress, **(kept[1].told() if kept else {})}
        try:
            match error:
                case Gone():
                    pass
                case Changed():
                    await self._jobs.give_way(job)
                case Waiting():
                    await self._jobs.postpone(job, "waiting", "Another change comes first.", 0, now_ms() + 1_000)
                case DocumentUnreadable() | EmbeddingMismatch():
                    await self._give_up(job, error.code, error.message, progress)
                    log.info("job_failed", kind=job.kind, document_id=job.document_id, code=error.code)
                case EmbeddingFailed():
                    await self._again(job, error.code, error.message, MAX_WAITS, progress)
                case BudgetExceeded() if error.retry_after is not None:
                    # It has time: until the period ends, if need be.
                    pause = min(_LONGEST_PAUSE_MS, error.retry_after * 1000)
                    await self._jobs.postpone(job, error.code, error.message, 0, now_ms() + pause)
                case RequestError() if error.status < 500:
                    # What it needs was taken away, or is there twice.
                    await self._give_up(job, error.code, error.message, progress)
                case StreamForgeError() | OSError():
                    self._trouble = True
                    log.warning("ingestion_paused", error=type(error).__name__)
                case _:
                    log.error("job_crashed", kind=job.kind, document_id=job.document_id, exc_info=error)
                    reason = "Something went wrong here. The server's log has the details."
                    await self._again(job, "internal", reason, MAX_ATTEMPTS, progress)
        except Exception as trouble:
            self._trouble = True
            log.warning("ingestion_paused", error=type(trouble).__name__)

    async def _give_up(self, job: JobRow, code: str, reason: str, progress: Progress) -> None:
        await self._jobs.fail(job, code, reason, progress)
        self._telemetry.job(job.kind, code, progress.get("seconds") or {})

    async def _again(self, job: JobRow, code: str, reason: str, most: int, progress: Progress) -> None:
        """Later, with growing pauses; failures of another kind don't count."""
        attempts = job.attempts + 1 if job.reason_code == code else 1
        if attempts >= most:
            await self._give_up(job, code, reason, progress)
            return
        pause = min(_LONGEST_PAUSE_MS, _FIRST_PAUSE_MS * 2 ** min(attempts - 1, 20))
        await self._jobs.postpone(job, code, reason, attempts, now_ms() + pause)


def _subject(job: JobRow) -> str:
    """What the job is about: a document, or a collection whose next embedding it is."""
    return job.collection_id if job.kind == "embed" else job.document_id
