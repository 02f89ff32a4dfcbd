"""All events as one tagged union, and their JSON."""

import msgspec

from backend.events.run import (
    ModelSwitched,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    Snapshot,
    Status,
)
from backend.events.sources import Sources
from backend.events.text import Citation, ReasoningDelta, ReasoningEnd, ReasoningStart, TextDelta, TextEnd, TextStart
from backend.events.usage import Usage

AnyEvent = (
    RunStarted
    | Status
    | Sources
    | ReasoningStart
    | ReasoningDelta
    | ReasoningEnd
    | TextStart
    | TextDelta
    | TextEnd
    | Citation
    | ModelSwitched
    | Usage
    | Snapshot
    | RunCompleted
    | RunFailed
    | RunCancelled
    | RunInterrupted
)


_encoder = msgspec.json.Encoder()


_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def encode(event: AnyEvent) -> bytes:
    """The event as one line of compact JSON. Its strings must hold no lone surrogates (see `clean_text`)."""
    return _encoder.encode(event)


_checker = msgspec.json.Decoder(msgspec.Raw)


def check(line: bytes) -> None:
    """Raise ValueError if the line can't be an event. Ten times as fast as `decode`."""
    if not line.startswith(b'{"type":"'):
        raise ValueError("no event")
    line.decode()
    _checker.decode(line)


def decode(line: bytes) -> AnyEvent:
    """The event of one line of JSON. Raises ValueError if it is not an event."""
    return _decoder.decode(line)
