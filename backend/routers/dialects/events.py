"""`streamforge.v1` as Server-Sent Events: the event's own JSON, its id the cursor to come back with."""

HEARTBEAT = b": hb\n"
"""One newline: a comment followed by an empty line makes some clients see an empty event."""


def event_frame(run_id: str, seq: int, line: bytes) -> bytes:
    """One event: `id:` and `data:`, LF only, and no `event:`, so that EventSource.onmessage sees it."""
    return b"id: %b:%d\ndata: %b\n\n" % (run_id.encode(), seq, line)
