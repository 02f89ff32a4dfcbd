"""A run while it lives: its log, its state, its task, and who watches."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from backend import events as ev
from backend.services.runs.fold import RunFold
from backend.services.runs.log import RunLog
from backend.services.telemetry.telemetry import RunObserver

_DELTAS = frozenset({ev.TextDelta, ev.ReasoningDelta})
CancelledBy = Literal["user", "replaced", "session_deleted", "no_watcher"]


@dataclass(eq=False, slots=True)
class Run:
    """A live run. `body` appends events through `emit`; the hub appends the terminal one. `charge` puts the cost into a
    usage.

    `leave_after`: seconds without a watcher after which it is cancelled; None, and it goes on.
    """

    owner: str
    started: ev.RunStarted
    log: RunLog
    charge: Callable[[ev.Usage], None]
    watch: RunObserver
    state: RunFold
    request_id: str | None = None
    ending: bool = False
    cancelled_by: CancelledBy | Literal["shutdown"] | None = None
    task: asyncio.Task[None] | None = None
    begun: bool = False
    backlog: asyncio.Event = field(default_factory=asyncio.Event)
    backlog_size: int = 500
    leave_after: float | None = None
    watchers: int = 0
    unwatched: asyncio.TimerHandle | None = None

    @property
    def id(self) -> str:
        """The run's id."""
        return self.started.run_id

    @property
    def session_id(self) -> str:
        """Its session's."""
        return self.started.session_id

    def emit(self, event: ev.AnyEvent) -> None:
        """Append one event to the log. Raises LogFull when storage has been gone for too long."""
        if type(event) not in _DELTAS:
            if isinstance(event, ev.Usage):
                self.charge(event)
            self.watch.noticed(event)
        self.log.append(event)
        self.state.apply(event)
        if self.log.unstored >= self.backlog_size or self.log.half_full:
            self.backlog.set()


Body = Callable[[Run], Awaitable[str]]
"""Answers the message by emitting events; returns the finish reason. Raises RunError."""
