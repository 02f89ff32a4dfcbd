"""Watching runs: their events in a dialect, live or stored, and DISCONNECT_GRACE for runs without watchers."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager

from backend import events as ev
from backend.errors import Conflict
from backend.services.runs.archive import replay, stored_terminal
from backend.services.runs.dialect import Dialect
from backend.services.runs.run import Run
from backend.storage.runs.events import EventLines
from backend.storage.runs.turns import StoredRun, Turns

ARRIVAL_SECONDS = 1.0
"""The client that starts a run begins to watch it a little later than the run begins, at most this much later."""


def follow_live(run: Run, after: int, dialect: Dialect, turns: Turns) -> AsyncGenerator[bytes] | None:
    """The bytes of a live run's events after seq `after`. None: the terminal event was delivered before.

    Raises Conflict (`cursor_ahead`).
    """
    if after > run.log.head:
        raise _cursor_ahead(after, run.log.head)
    if run.log.is_done and after == run.log.head:
        return None
    stream = run.log.follow(after, dialect, turns.events)
    return stream if run.leave_after is None else _watched_stream(run, stream)


async def follow_stored(stored: StoredRun, after: int, dialect: Dialect, turns: Turns) -> AsyncGenerator[bytes] | None:
    """The bytes of a stored run's events after seq `after`. None: the terminal event was delivered before.

    Raises Conflict (`cursor_ahead`).
    """
    rows = await turns.events(stored.id, 0, 1)
    last_row = await turns.last_events(stored.id)
    last = last_row.last_seq if last_row is not None else 1
    if after > last:
        raise _cursor_ahead(after, last)
    # A log that was shortened begins with a snapshot. The event before the snapshot was the terminal one.
    if after == last or (rows and rows[0].first_seq > 1 and after == rows[0].first_seq - 1):
        return None
    terminal = None if _has_end(last_row) else stored_terminal(stored)
    return replay(stored.id, after, dialect, turns.events, (last, terminal) if terminal is not None else None)


def _has_end(row: EventLines | None) -> bool:
    """Whether the row ends with a terminal event."""
    line = row.lines.rpartition(b"\n")[2] if row is not None else b""
    try:
        return isinstance(ev.decode(line), ev.Terminal)
    except ValueError:
        return False


@contextmanager
def watching(run: Run) -> Generator[None]:
    """A block in which the run has one more watcher."""
    run.watcher_count += 1
    schedule_leave(run)
    try:
        yield
    finally:
        run.watcher_count -= 1
        schedule_leave(run)


def schedule_leave(run: Run, at_least: float = 0.0) -> None:
    """Cancel the run after `leave_after` seconds, at least `at_least`, if it has no watcher now and gets none until
    then."""
    if run.leave_timer is not None:
        run.leave_timer.cancel()
        run.leave_timer = None
    if run.leave_after is not None and not run.watcher_count and not run.is_ending:
        loop = asyncio.get_running_loop()
        run.leave_timer = loop.call_later(max(run.leave_after, at_least), run.cancel, "no_watcher")


async def _watched_stream(run: Run, stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The stream; while it is read, the run has one more watcher."""
    with watching(run):
        async with aclosing(stream):
            async for chunk in stream:
                yield chunk


def _cursor_ahead(after: int, head: int) -> Conflict:
    return Conflict(f"The cursor {after} is ahead of the run, which is at {head}.", code="cursor_ahead", head=head)
