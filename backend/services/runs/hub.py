"""The run hub: all live runs of this process, and access to the stored ones."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from backend import events as ev
from backend.config.groups.runs import OnDisconnect, RunSettings
from backend.errors import StreamForgeError, TooManyRuns, Unavailable
from backend.services.runs.archive import RunArchive
from backend.services.runs.dialect import Dialect
from backend.services.runs.drive import RunDriver
from backend.services.runs.fold import RunFold
from backend.services.runs.keep import OnlyProcess, RunKeeper
from backend.services.runs.log import MemoryLog, SendPace
from backend.services.runs.run import Body, Run
from backend.services.runs.watch import follow_live, follow_stored, watching
from backend.services.telemetry.telemetry import SILENT, Telemetry
from backend.storage.runs.turns import StoredRun as StoredRun
from backend.storage.runs.turns import Turns

log = structlog.get_logger(__name__)

_END_SECONDS = 7
"""How long runs have to store their ends after they were cancelled by a shutdown."""


class RunHub:
    """Starts, finds and ends runs. `charge` puts the cost into a usage event."""

    def __init__(
        self,
        turns: Turns,
        settings: RunSettings,
        retention_hours: float,
        charge: Callable[[ev.Usage], None],
        telemetry: Telemetry = SILENT,
        *,
        shows_advice: bool = True,
    ) -> None:
        self._turns = turns
        self._charge = charge
        self._telemetry = telemetry
        self._settings = settings
        self._runs: dict[str, Run] = {}
        self._by_session: dict[str, list[Run]] = {}
        self._run_count = 0  # live runs, and reserved places
        self._pace = SendPace(settings.send_window_ms / 1000)
        self._is_closing = self._is_grace_over = False
        self._leases = OnlyProcess(turns)
        self._archive = RunArchive(turns, charge)
        retention_ms = int(retention_hours * 3_600_000)
        self._keeper = RunKeeper(turns, self._archive, self._leases, self._runs, settings, retention_ms)
        self._driver = RunDriver(
            turns,
            self._keeper.unsaved,
            self._forget,
            shows_advice=shows_advice,
            shows_provider_errors=settings.show_provider_errors,
        )

    @property
    def instance_id(self) -> str:
        """The id of this process, which holds the leases of its runs."""
        return self._leases.instance_id

    async def open(self) -> None:
        """End the runs that an earlier process left unfinished, then begin with checkpoints and leases."""
        try:
            await self._keeper.recover()
        except StreamForgeError as error:
            # The disk is full, for example. Stored runs can be read, and the keeper tries again.
            log.error("runs_not_recovered", code=error.code)
        self._keeper.open()

    async def close(self, grace: float) -> None:
        """Refuse new runs, let live ones finish for `grace` seconds, end the rest with a terminal event."""
        self._is_closing = True
        tasks = [r.task for r in self._runs.values() if r.task is not None]
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        self._is_grace_over = True
        for run in list(self._runs.values()):
            run.cancel("shutdown")
        tasks = [r.task for r in self._runs.values() if r.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_END_SECONDS)
        with suppress(StreamForgeError):
            await self._keeper.save_late()
        await self._keeper.close()

    def reserve(self) -> None:
        """Take a place among MAX_RUNS. Raises TooManyRuns, or Unavailable while shutting down."""
        if self._is_closing:
            raise Unavailable("The server is shutting down. Try again in a moment.", code="shutdown")
        count = self._run_count
        if count >= self._settings.max_runs:
            raise TooManyRuns(
                f"{count} answers are under way, the most this server allows. Try again in a moment.",
                advice="MAX_RUNS sets the limit.",
            )
        self._run_count += 1

    def release(self) -> None:
        """Give a reserved place back: the run was not started."""
        self._run_count -= 1

    def start(
        self,
        owner: str,
        started: ev.RunStarted,
        body: Body,
        request_id: str | None,
        on_disconnect: OnDisconnect | None = None,
    ) -> Run:
        """Begin a run whose place was reserved: its log opens with `started`, its task runs `body`.

        If `on_disconnect` is None, the setting ON_DISCONNECT applies.
        """
        settings, fold = self._settings, RunFold()
        observer = self._telemetry.run(started, fold)
        run_log = MemoryLog(
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
            observer=observer,
            state=fold,
            request_id=request_id,
            checkpoint_now=self._keeper.checkpoint_now,
            checkpoint_events=settings.checkpoint_events,
            leave_after=settings.disconnect_grace if (on_disconnect or settings.on_disconnect) == "cancel" else None,
        )
        run_log.append(started)
        fold.apply(started)
        self._runs[run.id] = run
        self._by_session.setdefault(started.session_id, []).append(run)
        run.task = asyncio.create_task(self._driver.drive(run, body), name=f"run {run.id}")
        if self._is_grace_over:
            run.cancel("shutdown")
        return run

    @property
    def live_count(self) -> int:
        """How many runs are under way."""
        return self._run_count

    def live(self, owner: str, run_id: str) -> Run | None:
        """The live run of that id, if it is the owner's."""
        run = self._runs.get(run_id)
        return run if run is not None and run.owner == owner else None

    def live_in_session(self, session_id: str) -> Run | None:
        """The last live run of a session; it may be queued behind earlier ones."""
        runs = self._by_session.get(session_id)
        return runs[-1] if runs else None

    def all_in_session(self, session_id: str) -> list[Run]:
        """Every live run of a session, in order."""
        return list(self._by_session.get(session_id, ()))

    async def follow(self, owner: str, run_id: str, after: int, dialect: Dialect) -> AsyncGenerator[bytes] | None:
        """The bytes of a run's events after seq `after`, live or stored. None: the terminal event was delivered before.

        Raises NotFound, Conflict (`cursor_ahead`).
        """
        run = self.live(owner, run_id)
        if run is not None:
            return follow_live(run, after, dialect, self._turns)
        return await follow_stored(await self._turns.run(owner, run_id), after, dialect, self._turns)

    async def outcome(self, owner: str, run_id: str) -> RunFold:
        """The fold of all of a run's events, once the run has ended. Raises NotFound."""
        run = self.live(owner, run_id)
        if run is not None:
            with watching(run):
                await run.log.wait_for_end()
            return run.state
        return await self._archive.fold(await self._turns.run(owner, run_id))

    async def stored(self, owner: str, run_id: str) -> StoredRun:
        """The stored run. Raises NotFound."""
        return self._with_late_end(await self._turns.run(owner, run_id))

    async def page(
        self, owner: str, limit: int, before: tuple[int, str] | None, session_id: str | None, status: str | None
    ) -> list[StoredRun]:
        """At most `limit` stored runs after `before` (started_at, id), the last started first; of a session, and with a
        status if given.
        """
        rows = await self._turns.page(owner, limit, before, session_id, status)
        return [self._with_late_end(row) for row in rows]

    def _with_late_end(self, row: StoredRun) -> StoredRun:
        run = self._runs.get(row.id)
        late = self._keeper.unsaved.get(run) if run is not None else None
        # If the end is not stored yet, show the end that the watchers were sent.
        return replace(row, status=late.status, error=late.error, usage=late.usage) if late is not None else row

    def _forget(self, run: Run) -> None:
        """The run has ended. If its end is not stored yet, it can be looked up here until it is."""
        self._run_count -= 1
        if run not in self._keeper.unsaved:
            self._runs.pop(run.id, None)
        session_id = run.started.session_id
        remaining = [r for r in self._by_session.get(session_id, ()) if r is not run]
        if remaining:
            self._by_session[session_id] = remaining
        else:
            self._by_session.pop(session_id, None)
