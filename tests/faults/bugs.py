"""Bugs planted on purpose: the driver must find each of them, or its silence means nothing."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backend import events as ev
from backend.routers.edge import event_stream
from backend.services.runs import archive
from backend.services.runs.dialect import Watcher
from backend.services.runs.drive import RunDriver
from backend.services.runs.keep import RunKeeper
from backend.services.runs.log import MemoryLog
from backend.services.runs.run import Run
from tests.faults.failpoints import POINTS


@dataclass(frozen=True)
class Bug:
    """`plant` changes the server before it starts. `schedules` of `kind` find it, as a violation `found_as`."""

    plant: Callable[[], None]
    kind: str
    schedules: range
    found_as: str


def _skipped_event() -> None:
    """A watcher that is given several events at once misses one, though the log has it."""
    original = MemoryLog._chunk

    def chunk(self: MemoryLog, watcher: Watcher) -> bytes | None:
        frames = (original(self, watcher) or b"").split(b"\n\n")
        if len(frames) > 3:
            del frames[1]
        return b"\n\n".join(frames)

    MemoryLog._chunk = chunk


def _second_terminal() -> None:
    """The end of a run is told twice, under two seqs."""
    original = MemoryLog.finish

    def finish(self: MemoryLog, events: list[ev.AnyEvent], *, stored: bool) -> None:
        original(self, [*events, events[-1]], stored=stored)

    MemoryLog.finish = finish


def _late_checkpoint() -> None:
    """Checkpoints are made at one turn in a hundred."""
    original = RunKeeper.checkpoint
    turn = 0

    async def checkpoint(self: RunKeeper) -> None:
        nonlocal turn
        turn += 1
        if turn % 100 == 0:
            await original(self)

    RunKeeper.checkpoint = checkpoint


def _leaked_task() -> None:
    """A response that ends leaves a task behind."""
    original = event_stream._Connection.close
    kept: list[Any] = []

    def close(self: event_stream._Connection) -> None:
        kept.append(asyncio.get_running_loop().create_task(asyncio.sleep(3600), name="forgotten"))
        original(self)

    event_stream._Connection.close = close


def _repeated_seq() -> None:
    """Recovery goes on right after the last stored seq, as if no client had seen more."""
    archive.RECOVERY_GAP = 1


def _early_terminal() -> None:
    """The end is shown before it is stored."""

    async def end(self: RunDriver, run: Run, terminal: ev.Terminal) -> None:
        last: list[ev.AnyEvent] = [*run.state.closing_events(), terminal]
        lines = run.log.encode_next(last)
        run.log.finish(last, stored=False)
        await asyncio.sleep(0.02)
        for event in last:
            run.state.apply(event)
        await self._turns.close(archive.closed_turn(run, run.state, terminal, lines))

    RunDriver._end = end


def _only(point: str) -> range:
    at = POINTS.index(point)
    return range(at, at + 1)


BUGS = {
    "skipped_event": Bug(_skipped_event, "second_watcher", range(4), "gap"),
    "second_terminal": Bug(_second_terminal, "client_cut", range(4), "terminal"),
    "late_checkpoint": Bug(_late_checkpoint, "kill9", _only("after silence"), "late_checkpoint"),
    "leaked_task": Bug(_leaked_task, "client_cut", range(4), "leak"),
    "repeated_seq": Bug(_repeated_seq, "kill9", _only("in a flood"), "repeated_seq"),
    "early_terminal": Bug(_early_terminal, "client_cut", range(4), "status"),
}
