"""Keeps live runs safe: checkpoints, leases, and ends that could not be stored at once."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import replace
from typing import Protocol
from weakref import WeakSet

import structlog

from backend.config.groups.runs import RunSettings
from backend.errors import StreamForgeError
from backend.kit.ids import new_id
from backend.kit.times import now_ms
from backend.services.runs.archive import RunArchive, bare_end
from backend.services.runs.run import Run
from backend.storage.runs.events import EventLines
from backend.storage.runs.turns import ClosedTurn, StoredRun, Turns

log = structlog.get_logger(__name__)

LEASE_MS = 60_000
_EXPIRE_SECONDS = 600
"""How often the logs of old runs are shortened."""
_MAX_SET_ASIDE = 100
"""Ends that can't be stored, which clients still find in memory."""


class Leases(Protocol):
    """Which process works on which run. No other process may end a run before its lease is over."""

    instance_id: str

    async def renew(self) -> None:
        """Keep the live runs of this process for another `LEASE_MS`."""
        ...

    async def abandoned(self) -> list[StoredRun]:
        """Runs that are stored as live although no process works on them."""
        ...


class OnlyProcess:
    """The leases of the process that holds the lock on DATA_DIR. No other process can hold leases."""

    def __init__(self, turns: Turns) -> None:
        self.instance_id = new_id("ins")
        self._turns = turns

    async def renew(self) -> None:
        """Keep the live runs of this process for another `LEASE_MS`."""
        await self._turns.renew_leases(self.instance_id, now_ms() + LEASE_MS)

    async def abandoned(self) -> list[StoredRun]:
        """Runs that an earlier process left unfinished."""
        await self._turns.release_leases(self.instance_id)
        return await self._turns.unfinished(now_ms(), self.instance_id)


class RunKeeper:
    """Stores events of live runs at intervals, renews their leases, and shortens logs of runs that finished
    `retention_ms` ago. `runs` are the live runs of the hub; a run whose end is stored late is removed from them."""

    def __init__(
        self,
        turns: Turns,
        archive: RunArchive,
        leases: Leases,
        runs: MutableMapping[str, Run],
        settings: RunSettings,
        retention_ms: int,
    ) -> None:
        self.checkpoint_now = asyncio.Event()
        """A run sets this if it has so many unstored events that a checkpoint is due at once."""
        self.unsaved: dict[Run, ClosedTurn] = {}
        """Runs whose end could not be stored yet."""
        self._turns = turns
        self._archive = archive
        self._leases = leases
        self._runs = runs
        self._interval = settings.checkpoint_seconds
        self._retention_ms = retention_ms
        self._task: asyncio.Task[None] | None = None
        self._set_aside: WeakSet[Run] = WeakSet()
        """Live runs whose events can't be stored."""
        self._ends_set_aside: dict[Run, None] = {}
        """Runs whose end can't be stored, whatever is left out of it."""
        self._renewed_at = self._expires_at = 0.0
        self._began_at = now_ms()
        self.is_recovered = False
        """Whether the runs that an earlier process left unfinished have an end."""

    def open(self) -> None:
        """Start the task that keeps the runs."""
        self._task = asyncio.create_task(self._keep(), name="run-keeper")

    async def close(self) -> None:
        """Stop the task that keeps the runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def checkpoint(self) -> None:
        """Store the events of live runs that are in memory only."""
        batch = [
            (r, lines)
            for r in self._runs.values()
            if not r.is_ending and r not in self._set_aside and (lines := r.log.unstored_lines())
        ]
        if not batch:
            return
        try:
            await self._turns.append([lines for _, lines in batch])
        except StreamForgeError:
            raise
        except Exception:
            await self._checkpoint_each(batch)
            return
        for run, lines in batch:
            run.log.mark_stored(lines.last_seq)

    async def _checkpoint_each(self, batch: Sequence[tuple[Run, EventLines]]) -> None:
        """Store the events of each run alone. A run whose events can't be stored is set aside: it fails when its log
        is full, or at its end."""
        for run, lines in batch:
            try:
                await self._turns.append([lines])
                run.log.mark_stored(lines.last_seq)
            except StreamForgeError:
                raise
            except Exception:
                self._set_aside.add(run)
                log.exception("events_set_aside", run_id=run.id, events=len(lines.lines))

    async def recover(self) -> None:
        """End the runs that an earlier process left unfinished, unless that is done."""
        if not self.is_recovered:
            await self._archive.recover(await self._leases.abandoned(), self._began_at)
            self.is_recovered = True

    async def save_late(self) -> None:
        """Store the ends that could not be stored at once, as the failures that watchers were sent."""
        for run, closed in list(self.unsaved.items()):
            if run in self._ends_set_aside:
                continue
            if await self._save_end(run, closed):
                del self.unsaved[run]
                self._runs.pop(run.id, None)
            else:
                self._set_end_aside(run)

    async def _save_end(self, run: Run, closed: ClosedTurn) -> bool:
        """Whether the end is stored: as it is, else without the calls, else without the answer. Raises StreamForgeError
        if nothing can be stored now."""
        for turn in (closed, replace(closed, calls=[]), bare_end(closed), replace(bare_end(closed), events=[])):
            try:
                await self._turns.close(turn)
                return True
            except StreamForgeError:
                raise
            except Exception:
                log.exception("run_set_aside", run_id=run.id, calls=len(turn.calls), parts=len(turn.parts))
        return False

    def _set_end_aside(self, run: Run) -> None:
        """Keep the end in memory, where clients find it, for a while. The next start ends the stored run."""
        self._ends_set_aside[run] = None
        if len(self._ends_set_aside) > _MAX_SET_ASIDE:
            oldest = next(iter(self._ends_set_aside))
            del self._ends_set_aside[oldest], self.unsaved[oldest]
            self._runs.pop(oldest.id, None)

    async def _keep(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await self.checkpoint_now.wait()
            except TimeoutError:
                pass
            self.checkpoint_now.clear()
            # Each step alone: one that fails doesn't keep the others from their work.
            steps = (self.recover, self.checkpoint, self.save_late, self._renew, self._expire)
            if not all([await self._try(step) for step in steps]):
                # A full log sets `checkpoint_now` at every event. One attempt a second is enough.
                await asyncio.sleep(min(self._interval, 1.0))

    async def _try(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Whether the step succeeded."""
        try:
            await step()
        except StreamForgeError as error:
            log.warning("keeping_failed", step=step.__name__.strip("_"), code=error.code)
        except Exception:
            log.exception("keeping_failed", step=step.__name__.strip("_"), code="internal")
        else:
            return True
        return False

    async def _renew(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._runs and now - self._renewed_at > LEASE_MS / 4000:
            await self._leases.renew()
            self._renewed_at = now

    async def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._expires_at:
            await self._archive.expire(now_ms() - self._retention_ms)
            self._expires_at = now + _EXPIRE_SECONDS
