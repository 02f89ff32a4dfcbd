"""Named points in the server where a fault can happen. The product has no hooks: its seams are wrapped from outside.

A point is passed many times; the armed one acts at its n-th pass. Points of storage lie on the writer's thread, the
others on the event loop.
"""

import functools
import inspect
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backend.routers.edge.event_stream import _Connection
from backend.services.runs.archive import RunArchive
from backend.services.runs.drive import RunDriver
from backend.services.runs.hub import RunHub
from backend.services.runs.log import MemoryLog
from backend.services.runs.run import Run
from backend.storage.engine import writer
from backend.storage.engine.tx import Tx
from backend.storage.runs import events, turns

Action = Literal["kill", "locked", "full", "broken", "delay"]

STORAGE = tuple(
    f"{operation}.{step}" for operation in ("open", "checkpoint", "close") for step in ("begin", "written", "committed")
)
"""Of the three writes of a run: before it, before its COMMIT, after its COMMIT while nobody has been told."""

EXPIRY = ("expire.deleted", "expire.written", "expire.committed")
"""While an old log is shortened."""

# name: class, method, and whether the point lies before or after the call.
_METHODS: dict[str, tuple[type, str, Literal["before", "after"]]] = {
    "run.started": (RunHub, "start", "after"),
    "log.append": (MemoryLog, "append", "before"),
    "log.appended": (MemoryLog, "append", "after"),
    "stream.send": (_Connection, "send", "before"),
    "stream.sent": (_Connection, "send", "after"),
    "checkpoint.marked": (MemoryLog, "mark_stored", "after"),
    "cancel.asked": (Run, "cancel", "after"),
    "end.begin": (RunDriver, "_end", "before"),
    "end.finish": (MemoryLog, "finish", "before"),
    "end.finished": (MemoryLog, "finish", "after"),
    "end.forgotten": (RunHub, "_forget", "after"),
    "recover.begin": (RunArchive, "recover", "before"),
    "recover.run": (RunArchive, "_end", "before"),
    "recover.ended": (RunArchive, "_end", "after"),
    "recover.done": (RunArchive, "recover", "after"),
    "shutdown.begin": (RunHub, "close", "before"),
    "shutdown.done": (RunHub, "close", "after"),
}
NAMES = (*STORAGE, *EXPIRY, *_METHODS)
POINTS = (*NAMES, "outside", "after silence", "in a flood")
"""Where kill -9 comes: at the failpoints, and from outside: at any moment, after a silence in which everything must
have been stored, and while far more has come than may be shown."""

_ERRORS = {
    "locked": sqlite3.OperationalError("database is locked"),
    "full": sqlite3.OperationalError("database or disk is full"),
    "broken": sqlite3.OperationalError("disk I/O error"),
}


@dataclass
class Armed:
    """What happens at passes `nth` to `nth + times - 1` of a point; `seconds` is the delay's."""

    name: str
    nth: int = 1
    times: int = 1
    action: Action = "kill"
    seconds: float = 0.0


class Failpoints:
    """The points of this process. `on_hit` is told the name before the point acts."""

    def __init__(self, on_hit: Callable[[str], None]) -> None:
        self._on_hit = on_hit
        self._armed: dict[str, Armed] = {}
        self._passes: dict[str, int] = {}
        self._lock = threading.Lock()

    def arm(self, armed: Armed) -> None:
        """Passes are counted from now on."""
        with self._lock:
            self._passes[armed.name] = 0
            self._armed[armed.name] = armed

    def disarm(self) -> None:
        """Nothing happens any more."""
        with self._lock:
            self._armed.clear()

    def reached(self, name: str) -> None:
        """The server is at this point. Acts if it is the armed one's turn."""
        if name not in self._armed:
            return
        with self._lock:
            armed = self._armed.get(name)
            if armed is None:
                return
            self._passes[name] += 1
            if not armed.nth <= self._passes[name] < armed.nth + armed.times:
                return
        self._on_hit(name)
        match armed.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "delay":
                time.sleep(armed.seconds)
            case error:
                raise _ERRORS[error]

    def install(self) -> None:
        """Wrap every seam."""
        for name, (cls, method, side) in _METHODS.items():
            setattr(cls, method, _wrapped(getattr(cls, method), functools.partial(self.reached, name), side))
        for module, function, operation in (
            (turns, "_open", "open"),
            (events, "append", "checkpoint"),
            (turns, "_close", "close"),
        ):
            setattr(module, function, self._operation(getattr(module, function), operation))
        writer.connect = self._connect

    def _operation(self, call: Callable[..., Any], operation: str) -> Callable[..., Any]:
        def wrapped(tx: Tx, *args: Any) -> Any:
            conn = tx.connection
            assert isinstance(conn, _Connected)
            # `_close` writes the last events with `append`: that is no checkpoint.
            if conn.inside is None:
                conn.kinds.append(operation)
                self.reached(f"{operation}.begin")
            outer, conn.inside = conn.inside, operation
            try:
                return call(tx, *args)
            finally:
                conn.inside = outer

        return wrapped

    def _connect(self, path: Path) -> sqlite3.Connection:
        conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=_Connected)
        assert isinstance(conn, _Connected)
        conn.reached = self.reached
        writer.apply_pragmas(conn)
        return conn


class _Connected(sqlite3.Connection):
    """The writer's connection: it knows which operations the open transaction holds."""

    reached: Callable[[str], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kinds: list[str] = []
        self.inside: str | None = None

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql == "BEGIN IMMEDIATE":
            self.kinds.clear()
        if sql == "COMMIT":
            for kind in self.kinds:
                self.reached(f"{kind}.written")
        cursor = super().execute(sql, *args)
        if sql == "COMMIT":
            for kind in self.kinds:
                self.reached(f"{kind}.committed")
        elif sql.startswith("DELETE FROM run_events"):
            self.kinds.append("expire")
            self.reached("expire.deleted")
        return cursor


def _wrapped(call: Callable[..., Any], reached: Callable[[], None], side: str) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(call):

        @functools.wraps(call)
        async def waiting(*args: Any, **kwargs: Any) -> Any:
            if side == "before":
                reached()
            result = await call(*args, **kwargs)
            if side == "after":
                reached()
            return result

        return waiting

    @functools.wraps(call)
    def calling(*args: Any, **kwargs: Any) -> Any:
        if side == "before":
            reached()
        result = call(*args, **kwargs)
        if side == "after":
            reached()
        return result

    return calling
