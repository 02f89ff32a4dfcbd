"""A live run: its log, its fold, its task, and the number of its watchers."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from backend import events as ev
from backend.services.runs.fold import RunFold
from backend.services.runs.log import RunLog
from backend.services.telemetry.telemetry import RunObserver

now = time.monotonic
"""Seconds of a clock that only goes forward."""
_DELTAS = frozenset({ev.TextDelta, ev.ReasoningDelta})
CancelledBy = Literal["user", "replaced", "session_deleted", "no_watcher"]


@dataclass(eq=False, slots=True, weakref_slot=True)
class Run:
    """A live run. Its body appends events with `emit`; the driver appends the terminal event. `charge` adds the cost to
    a usage event.

    A run without watchers is cancelled after `leave_after` seconds; if that is None, it goes on.
    """

    owner: str
    started: ev.RunStarted
    log: RunLog
    charge: Callable[[ev.Usage], None]
    observer: RunObserver
    state: RunFold
    request_id: str | None = None
    is_ending: bool = False
    cancelled_by: CancelledBy | Literal["shutdown"] | None = None
    task: asyncio.Task[None] | None = None
    has_begun: bool = False
    checkpoint_now: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when so many events are in memory only that they should be stored at once."""
    checkpoint_events: int = 500
    leave_after: float | None = None
    watcher_count: int = 0
    leave_timer: asyncio.TimerHandle | None = None
    began_at: float = field(default_factory=now)
    first_output_at: float | None = None
    """When the model wrote its first text or reasoning."""
    advice: str = ""
    """What whoever runs the server can do about the run's failure."""

    @property
    def id(self) -> str:
        """The run's id."""
        return self.started.run_id

    @property
    def session_id(self) -> str:
        """The id of the run's session."""
        return self.started.session_id

    def emit(self, event: ev.AnyEvent) -> None:
        """Append one event to the log. Raises LogFull if the database has been gone for too long."""
        if type(event) not in _DELTAS:
            if isinstance(event, ev.Usage):
                self.charge(event)
            elif self.first_output_at is None and isinstance(event, ev.TextStart | ev.ReasoningStart):
                self.first_output_at = now()
            self.observer.noticed(event)
        self.log.append(event)
        self.state.apply(event)
        if self.log.unstored_count >= self.checkpoint_events or self.log.is_half_full:
            self.checkpoint_now.set()

    def cancel(self, reason: CancelledBy | Literal["shutdown"]) -> None:
        """Cancel the run's task for this reason. If the run is ending already, this has no effect."""
        if self.is_ending or self.cancelled_by is not None or self.task is None:
            return
        self.cancelled_by = reason
        # A task that is cancelled before its first step never runs, and would leave the run without an end.
        if self.has_begun:
            self.task.cancel()


Body = Callable[[Run], Awaitable[str]]
"""Answers the message by emitting events; returns the finish reason. Raises RunError."""
