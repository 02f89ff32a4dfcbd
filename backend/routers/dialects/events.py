"""The dialect `events`: `streamforge.v1` as Server-Sent Events. The id of an event is the cursor for reconnecting."""

from backend.services.runs.fold import RunFold

HEARTBEAT = b": hb\n"
"""A comment with one newline: after a second newline, some clients would see an empty event."""


class EventsEncoder:
    """Encodes an event as `data:` and `id:` lines with LF. Without `event:`, EventSource.onmessage receives it.

    `data:` comes first: some clients take an id as soon as its line arrives. If the connection were cut between the two
    lines, they would reconnect after an event that they don't have.
    """

    __slots__ = ("_run_id",)

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id.encode()

    def event(self, seq: int, line: bytes) -> bytes:
        """The event as an SSE frame."""
        return b"data: %b\nid: %b:%d\n\n" % (line, self._run_id, seq)


class EventsDialect:
    """All events, as they are in the log."""

    media_type = "text/event-stream"
    is_stateless = True

    def encoder(self, run_id: str, before: RunFold) -> EventsEncoder:
        """An encoder of the run's events."""
        del before
        return EventsEncoder(run_id)


DIALECT = EventsDialect()
