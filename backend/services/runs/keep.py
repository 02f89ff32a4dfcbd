"""Keeps live runs safe: checkpoints, leases, and ends that could not be stored at once."""

import asyncio
from collections.abc import MutableMapping
from typing import Protocol

import structlog

from backend.config.groups.runs import RunSettings
from backend.errors import StreamForgeError
from backend.kit.ids import new_id
from backend.kit.times import now_ms
from backend.services.runs.archive import RunArchive
from backend.services.runs.run import Run
from backend.storage.runs.turns import ClosedTurn, StoredRun, Turns

log = structlog.get_logger(__name__)

LEASE_MS = 60_000
_EXPIRE_SECONDS = 600
"""How often the logs of old runs are shortened."""


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
        """Runs that an earlier process left unfinished. Only for the start, before any run is live."""
        await self._turns.release_leases()
        return await self._turns.unfinished(now_ms())


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
        batch = [(r, lines) for r in self._runs.values() if not r.is_ending and (lines := r.log.unstored_lines())]
        if not batch:
            return
        await self._turns.append([lines for _, lines in batch])
        for run, lines in batch:
            run.log.mark_stored(lines.last_seq)

    async def save_late(self) -> None:
        """Store the ends that could not be stored at once, as the failures that watchers were sent."""
        for run, closed in list(self.unsaved.items()):
            await self._turns.close(closed)
            del self.unsaved[run]
            self._runs.pop(run.id, None)

    async def _keep(self) -> None:
        renewed = expired = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await self.checkpoint_now.wait()
            except TimeoutError:
                pass
            self.checkpoint_now.clear()
            try:
                await self.checkpoint()
                await self.save_late()
                if loop.time() - renewed > LEASE_MS / 4000 and self._runs:
                    await self._leases.renew()
                    renewed = loop.time()
                if loop.time() - expired > _EXPIRE_SECONDS or expired == 0:
                    await self._archive.expire(now_ms() - self._retention_ms)
                    expired = loop.time()
            except Exception as error:
                code = error.code if isinstance(error, StreamForgeError) else "internal"
                log.warning("checkpoint_failed", code=code, exc_info=not isinstance(error, StreamForgeError))
                # A full log sets `checkpoint_now` at every event. One attempt a second is enough.
                await asyncio.sleep(min(self._interval, 1.0))
