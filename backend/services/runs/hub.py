"""The run hub: owns the task of every live run, its log, its checkpoints, and its one terminal event."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import replace
from math import ceil
from typing import Any, Literal

import structlog

from backend import events as ev
from backend.config.groups.runs import OnDisconnect, RunSettings
from backend.errors import (
    Conflict,
    InternalError,
    NotSaved,
    RunError,
    ShuttingDown,
    StreamForgeError,
    TooManyRuns,
    Unavailable,
)
from backend.events import status_of
from backend.kit.ids import new_id
from backend.kit.times import now_ms
from backend.services.runs.archive import RunArchive, closed_turn
from backend.services.runs.dialect import Dialect
from backend.services.runs.fold import RunFold
from backend.services.runs.log import LogFull, RunLog, SendPace, replay
from backend.services.runs.run import Body, CancelledBy, Run
from backend.services.telemetry.telemetry import SILENT, Telemetry
from backend.storage.runs.turns import ClosedTurn, StoredRun, Turns

log = structlog.get_logger(__name__)

LEASE_MS = 60_000
_LONGEST_WAIT = 86_400
"""Seconds; a provider may ask for any number of them."""
_ARRIVING = 1.0
"""Seconds in which who asked for a run comes to watch it, some steps of the loop after it begins."""


class RunHub:
    """All live runs of this process, and the door to the stored ones. `charge` puts the cost into a usage."""

    def __init__(
        self,
        turns: Turns,
        settings: RunSettings,
        retention_hours: float,
        charge: Callable[[ev.Usage], None],
        telemetry: Telemetry = SILENT,
    ) -> None:
        self.instance_id = new_id("ins")
        self._turns = turns
        self._charge = charge
        self._telemetry = telemetry
        self._archive = RunArchive(turns, charge)
        self._settings = settings
        self._pace = SendPace(settings.send_window_ms / 1000)
        self._retention_ms = int(retention_hours * 3_600_000)
        self._runs: dict[str, Run] = {}
        self._by_session: dict[str, list[Run]] = {}
        self._unsaved: dict[Run, ClosedTurn] = {}
        self._places = 0
        self._closing = self._grace_over = False
        self._checkpoint_now = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """End what an earlier process left unfinished, then keep checkpoints and leases going."""
        await self._archive.recover()
        self._keeper = asyncio.create_task(self._keep(), name="run-keeper")

    # --- live runs

    def reserve(self) -> None:
        """Take a place among MAX_RUNS. Raises TooManyRuns, or Unavailable while shutting down."""
        if self._closing:
            raise Unavailable("The server is shutting down. Try again in a moment.", code="shutdown")
        if self._places >= self._settings.max_runs:
            raise TooManyRuns(
                f"{self._places} answers are under way, the most this server allows (MAX_RUNS). Try again in a moment."
            )
        self._places += 1

    def release(self) -> None:
        """Give a reserved place back: the run was not started."""
        self._places -= 1

    def start(
        self,
        owner: str,
        started: ev.RunStarted,
        body: Body,
        request_id: str | None,
        on_disconnect: OnDisconnect | None = None,
    ) -> Run:
        """Begin a run whose place was reserved: its log opens with `started`, its task runs `body`.

        `on_disconnect` is the setting's where it is None.
        """
        settings, state = self._settings, RunFold()
        run_log = RunLog(
            started.run_id,
            pace=self._pace,
            max_events=settings.log_tail_events,
            max_bytes=int(settings.log_tail_mb * 1_048_576),
        )
        run = Run(
            owner=owner,
            started=started,
            log=run_log,
            charge=self._charge,
            watch=self._telemetry.run(started, state),
            state=state,
            request_id=request_id,
            backlog=self._checkpoint_now,
            backlog_size=settings.checkpoint_events,
            leave_after=settings.disconnect_grace if (on_disconnect or settings.on_disconnect) == "cancel" else None,
        )
        run.emit(started)
        self._runs[run.id] = run
        self._by_session.setdefault(started.session_id, []).append(run)
        run.task = asyncio.create_task(self._drive(run, body), name=f"run {run.id}")
        if self._grace_over:
            self.cancel(run, "shutdown")
        return run

    @property
    def live_count(self) -> int:
        """How many runs are under way."""
        return self._places

    def live(self, owner: str, run_id: str) -> Run | None:
        """The live run of that id, if it is the owner's."""
        run = self._runs.get(run_id)
        return run if run is not None and run.owner == owner else None

    def live_in_session(self, session_id: str) -> Run | None:
        """The last live run of a session (others may wait behind each other before it)."""
        runs = self._by_session.get(session_id)
        return runs[-1] if runs else None

    def all_in_session(self, session_id: str) -> list[Run]:
        """Every live run of a session, in order."""
        return list(self._by_session.get(session_id, ()))

    def cancel(self, run: Run, by: CancelledBy | Literal["shutdown"]) -> None:
        """Ask the run to end. A run that is already ending ends as it was going to."""
        if run.ending or run.cancelled_by is not None or run.task is None:
            return
        run.cancelled_by = by
        # A task that is cancelled before its first step never runs, and would leave the run without an end.
        if run.begun:
            run.task.cancel()

    # --- watching

    async def follow(self, owner: str, run_id: str, after: int, dialect: Dialect) -> AsyncGenerator[bytes] | None:
        """The bytes of a run's events after seq `after`, live or stored. None: the terminal event was delivered before.

        Raises NotFound, Conflict (`cursor_ahead`).
        """
        run = self.live(owner, run_id)
        if run is not None:
            if after > run.log.head:
                raise _ahead(after, run.log.head)
            if run.log.done and after == run.log.head:
                return None
            stream = run.log.follow(after, dialect, self._turns.events)
            return stream if run.leave_after is None else self._attended(run, stream)
        await self._turns.run(owner, run_id)
        rows = await self._turns.events(run_id, 0, 1)
        last = await self._turns.last_seq(run_id)
        if after > last:
            raise _ahead(after, last)
        # A log past its verbatim life begins with a snapshot; the seq before was the terminal event's.
        if after == last or (rows and rows[0].first_seq > 1 and after == rows[0].first_seq - 1):
            return None
        return replay(run_id, after, dialect, self._turns.events)

    async def outcome(self, owner: str, run_id: str) -> RunFold:
        """What a run's events say, once it has ended. Raises NotFound."""
        run = self.live(owner, run_id)
        if run is not None:
            with self._watching(run):
                await run.log.finished()
            return run.state
        return await self._archive.fold(await self._turns.run(owner, run_id))

    async def stored(self, owner: str, run_id: str) -> StoredRun:
        """The run as the database has it. Raises NotFound."""
        row = await self._turns.run(owner, run_id)
        run = self._runs.get(run_id)
        late = self._unsaved.get(run) if run is not None else None
        # What its watchers were told, although it is not stored yet.
        return replace(row, status=late.status, error=late.error, usage=late.usage) if late is not None else row

    async def _attended(self, run: Run, stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        with self._watching(run):
            async with contextlib.aclosing(stream):
                async for chunk in stream:
                    yield chunk

    @contextlib.contextmanager
    def _watching(self, run: Run) -> Generator[None]:
        run.watchers += 1
        self._mind_watchers(run)
        try:
            yield
        finally:
            run.watchers -= 1
            self._mind_watchers(run)

    def _mind_watchers(self, run: Run, at_least: float = 0.0) -> None:
        if run.unwatched is not None:
            run.unwatched.cancel()
            run.unwatched = None
        if run.leave_after is not None and not run.watchers and not run.ending:
            loop = asyncio.get_running_loop()
            run.unwatched = loop.call_later(max(run.leave_after, at_least), self.cancel, run, "no_watcher")

    # --- one run

    async def _drive(self, run: Run, body: Body) -> None:
        structlog.contextvars.bind_contextvars(run_id=run.id)
        terminal: ev.Terminal
        run.begun = True
        run.watch.began()
        self._mind_watchers(run, _ARRIVING)
        try:
            if run.cancelled_by is not None:
                raise asyncio.CancelledError
            finish_reason = await body(run)
            terminal = ev.RunCompleted(finish_reason=finish_reason, **_totals(run))
        except asyncio.CancelledError:
            # Nobody but `cancel` cancels this task, and it must live on to store the partial answer.
            if run.task is not None:
                run.task.uncancel()
            terminal = self._cancelled(run)
        except LogFull:
            log.warning("log_full", run_id=run.id)
            terminal = _failed(run, _not_saved())
        except RunError as error:
            terminal = _failed(run, error)
        except StreamForgeError as error:
            # Storage or embeddings: the code says so, as it does before a stream begins.
            terminal = _failed(run, error)
            log.warning("run_failed", code=error.code, run_id=run.id)
        except Exception:
            log.exception("run_crashed", run_id=run.id)
            terminal = _failed(run, InternalError("Something went wrong here. The server's log has the details."))
        run.ending = True
        self._mind_watchers(run)
        try:
            await self._end(run, terminal)
        finally:
            self._forget(run)

    def _cancelled(self, run: Run) -> ev.Terminal:
        match run.cancelled_by:
            case "shutdown":
                message = "The server was stopped while it answered. Ask again, or continue from the partial answer."
                return _failed(run, ShuttingDown(message))
            case None:
                return _failed(run, InternalError("The answer was broken off by the server."))
            case by:
                return ev.RunCancelled(by=by, **_totals(run))

    async def _end(self, run: Run, terminal: ev.Terminal) -> None:
        last: list[ev.AnyEvent] = [*run.state.closing_events(), terminal]
        for event in last:
            run.state.apply(event)
        try:
            if not await self._turns.close(closed_turn(run, run.state, terminal, run.log.encode_next(last))):
                # Its session was deleted under it: nobody may be told that the answer is there.
                last[-1] = terminal = ev.RunCancelled(by="session_deleted", usage=run.state.total())
            run.log.finish(last, stored=True)
        except Exception as error:
            log.error("run_not_saved", run_id=run.id, exc_info=not isinstance(error, StreamForgeError))
            terminal = _failed(run, _not_saved())
            ends = run.log.drop_hidden()
            last = [*(last[:-1] if ends is None else ends), terminal]
            self._unsaved[run] = closed_turn(run, run.state, terminal, run.log.encode_next(last))
            run.log.finish(last, stored=False)
        run.watch.ended(terminal)
        code = terminal.error.code if isinstance(terminal, ev.RunFailed) else None
        log.info("run_ended", run_id=run.id, status=status_of(terminal), code=code, events=run.log.head)

    def _forget(self, run: Run) -> None:
        self._places -= 1
        if run not in self._unsaved:
            self._runs.pop(run.id, None)
        session_id = run.started.session_id
        rest = [r for r in self._by_session.get(session_id, ()) if r is not run]
        if rest:
            self._by_session[session_id] = rest
        else:
            self._by_session.pop(session_id, None)

    # --- checkpoints and leases

    async def _keep(self) -> None:
        interval = self._settings.checkpoint_seconds
        renewed = swept = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(interval):
                    await self._checkpoint_now.wait()
            except TimeoutError:
                pass
            self._checkpoint_now.clear()
            try:
                await self._checkpoint()
                await self._save_late()
                if loop.time() - renewed > LEASE_MS / 4000 and self._runs:
                    await self._turns.renew_leases(self.instance_id, now_ms() + LEASE_MS)
                    renewed = loop.time()
                if loop.time() - swept > 600 or swept == 0:
                    await self._archive.expire(now_ms() - self._retention_ms)
                    swept = loop.time()
            except Exception as error:
                code = error.code if isinstance(error, StreamForgeError) else "internal"
                log.warning("checkpoint_failed", code=code, exc_info=not isinstance(error, StreamForgeError))
                # A full backlog asks again at every event: once a second is enough.
                await asyncio.sleep(min(interval, 1.0))

    async def _checkpoint(self) -> None:
        batch = [(r, lines) for r in self._runs.values() if not r.ending and (lines := r.log.unstored_lines())]
        if not batch:
            return
        await self._turns.append([lines for _, lines in batch])
        for run, lines in batch:
            run.log.mark_stored(lines.last_seq)

    async def _save_late(self) -> None:
        """Store what could not be stored when it ended, as the failure that its watchers were told of."""
        for run, closed in list(self._unsaved.items()):
            await self._turns.close(closed)
            del self._unsaved[run]
            self._runs.pop(run.id, None)

    # --- the end

    async def close(self, grace: float) -> None:
        """Refuse new runs, let live ones finish for `grace` seconds, end the rest with a terminal event."""
        self._closing = True
        tasks = [r.task for r in self._runs.values() if r.task is not None]
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        self._grace_over = True
        for run in list(self._runs.values()):
            self.cancel(run, "shutdown")
        tasks = [r.task for r in self._runs.values() if r.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=7)
        with contextlib.suppress(StreamForgeError):
            await self._save_late()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)


def _totals(run: Run) -> dict[str, Any]:
    """What a run's end says of the whole answer."""
    state = run.state
    return {"usage": state.total(), "citation_counts": state.citation_counts(), "unlinked": state.unlinked()}


def _failed(run: Run, error: StreamForgeError) -> ev.RunFailed:
    wait = error.retry_after if isinstance(error, RunError) else None
    fault = ev.RunFault(
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        request_id=run.request_id,
        retry_after=ceil(min(wait, _LONGEST_WAIT)) if wait else None,
    )
    return ev.RunFailed(error=fault)


def _not_saved() -> NotSaved:
    return NotSaved(
        "The answer could not be stored: the database is gone, or the disk is full or too slow. It may be missing from "
        "the history."
    )


def _ahead(after: int, head: int) -> Conflict:
    return Conflict(f"The cursor {after} is ahead of the run, which is at {head}.", code="cursor_ahead", head=head)
