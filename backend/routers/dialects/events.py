"""The dialect `events`: `streamforge.v1` as Server-Sent Events. The id of an event is the cursor for reconnecting."""

from backend.services.runs.fold import RunFold

HEARTBEAT = b": hb\n"
"""A comment with one newline: after a second newline, some clients would see an empty event."""


class EventsEncoder:
    """Encodes an event as `id:` and `data:` lines with LF. Without `event:`, EventSource.onmessage receives it."""

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
