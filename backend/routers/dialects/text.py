"""The dialects with only the answer's text and `[n]` after cited sentences: as a plain body, or as SSE frames."""

from backend import events as ev
from backend.messages import begins_json
from backend.services.runs.fold import RunFold

_LONGEST_BEGINNING = 1_000
_EVENTS_WITH_TEXT = (b'{"type":"text.', b'{"type":"citation"', b'{"type":"run.')


class TextEncoder:
    """Encodes events as text: with an empty line between two parts of the answer, and a failure on its own line."""

    __slots__ = ("_beginning", "_has_text")

    def __init__(self, before: RunFold) -> None:
        self._has_text = before.has_text_part
        self._beginning = before.open_text()[:_LONGEST_BEGINNING]

    def event(self, seq: int, line: bytes) -> bytes:
        """The text that the event adds."""
        del seq
        return self.text(line).encode()

    def text(self, line: bytes) -> str:
        """The text that the event adds, not encoded."""
        if not line.startswith(_EVENTS_WITH_TEXT):
            return ""
        match ev.decode(line):
            case ev.TextDelta(text=text):
                if not self._beginning.strip():
                    self._beginning = text[:_LONGEST_BEGINNING]
                return text
            case ev.Citation(n=n):
                return "" if begins_json(self._beginning) else f" [{n}]"
            case ev.TextStart():
                self._beginning = ""
                between, self._has_text = "\n\n" if self._has_text else "", True
                return between
            case ev.RunFailed(error=error):
                return f"\n[{error.code}: {error.message}]\n"
            case ev.RunCancelled():
                return "\n[cancelled]\n"
            case ev.RunCompleted():
                return "\n"
            case _:
                return ""


class FrameEncoder(TextEncoder):
    """Encodes the same text as SSE frames without an id."""

    __slots__ = ()

    def event(self, seq: int, line: bytes) -> bytes:
        """The text that the event adds, as one frame; the newline at the end of an answer is left out."""
        del seq
        text = self.text(line)
        if not text or (text == "\n" and line.startswith(b'{"type":"run.')):
            return b""
        return "".join(f"data: {part}\n" for part in text.replace("\r", "").split("\n")).encode() + b"\n"


class TextDialect:
    """The bare text, for `Accept: text/plain`."""

    media_type = "text/plain"
    is_stateless = False

    def encoder(self, run_id: str, before: RunFold) -> TextEncoder:
        """An encoder of the events after those of `before`."""
        del run_id
        return TextEncoder(before)


class FramesDialect:
    """The text as SSE frames, for `?format=text`."""

    media_type = "text/event-stream"
    is_stateless = False

    def encoder(self, run_id: str, before: RunFold) -> FrameEncoder:
        """An encoder of the events after those of `before`."""
        del run_id
        return FrameEncoder(before)


PLAIN = TextDialect()
FRAMES = FramesDialect()
