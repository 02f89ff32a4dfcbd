"""The answer's text alone, `[n]` where a citation stands: as a plain body, and as `data: word` frames."""

from backend import events as ev

_SHOWN = (b'{"type":"text.', b'{"type":"citation"', b'{"type":"run.')


def plain_frame(run_id: str, seq: int, line: bytes) -> bytes:
    """The text of one event, for `Accept: text/plain`; a failure says so on a line of its own."""
    del run_id, seq
    return _text(line).encode()


def data_frame(run_id: str, seq: int, line: bytes) -> bytes:
    """The text of one event as an SSE frame without an id, for `?format=text`."""
    del run_id, seq
    text = _text(line)
    if not text or (text == "\n" and line.startswith(b'{"type":"run.')):
        return b""
    return "".join(f"data: {part}\n" for part in text.replace("\r", "").split("\n")).encode() + b"\n"


def _text(line: bytes) -> str:
    if not line.startswith(_SHOWN):
        return ""
    match ev.decode(line):
        case ev.TextDelta(text=text):
            return text
        case ev.Citation(n=n):
            return f" [{n}]"
        case ev.TextStart(part_id=part_id):
            return "" if part_id in ("p1", "p2") else "\n\n"
        case ev.RunFailed(error=error):
            return f"\n[{error.code}: {error.message}]\n"
        case ev.RunCancelled():
            return "\n[cancelled]\n"
        case ev.RunCompleted():
            return "\n"
        case _:
            return ""
