"""`streamforge.v1` as Server-Sent Events: the event's own JSON, its id the cursor to come back with."""

from backend.services.runs.fold import RunFold

HEARTBEAT = b": hb\n"
"""One newline: a comment followed by an empty line makes some clients see an empty event."""


class EventsEncoder:
    """One event is `id:` and `data:`, LF only, and no `event:`, so that EventSource.onmessage sees it."""

    __slots__ = ("_run_id",)

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id.encode()

    def event(self, seq: int, line: bytes) -> bytes:
        """The event as an SSE frame."""
        return b"id: %b:%d\ndata: %b\n\n" % (self._run_id, seq, line)


class EventsDialect:
    """All events, as they are in the log."""

    media_type = "text/event-stream"
    is_stateless = True

    def encoder(self, run_id: str, before: RunFold) -> EventsEncoder:
        """An encoder of the run's events."""
        del before
        return EventsEncoder(run_id)


DIALECT = EventsDialect()
