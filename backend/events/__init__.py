"""The events of a run, in its log and on the wire (protocol `streamforge.v1`).

Each event is a msgspec struct, tagged by `type`. The log sets `seq` on append: 1, 2, 3 ... without a gap; only a
snapshot may jump. Fields that are None or at their default are left out of the JSON. Text positions (`start`,
`end`) count Unicode code points.
"""

from backend.events.base import Event
from backend.events.codec import AnyEvent, check, decode, encode
from backend.events.run import (
    PROTOCOL_VERSION,
    ModelSwitched,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunFault,
    RunInterrupted,
    RunStarted,
    Snapshot,
    Status,
    Terminal,
    status_of,
)
from backend.events.sources import Place, Source, Sources
from backend.events.text import (
    Citation,
    CitationCounts,
    Part,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    TextDelta,
    TextEnd,
    TextStart,
)
from backend.events.usage import AppliedPrice, CallStatus, Purpose, TokenUsage, Usage

__all__ = [
    "PROTOCOL_VERSION",
    "AnyEvent",
    "AppliedPrice",
    "CallStatus",
    "Citation",
    "CitationCounts",
    "Event",
    "ModelSwitched",
    "Part",
    "Place",
    "Purpose",
    "ReasoningDelta",
    "ReasoningEnd",
    "ReasoningStart",
    "RunCancelled",
    "RunCompleted",
    "RunFailed",
    "RunFault",
    "RunInterrupted",
    "RunStarted",
    "Snapshot",
    "Source",
    "Sources",
    "Status",
    "Terminal",
    "TextDelta",
    "TextEnd",
    "TextStart",
    "TokenUsage",
    "Usage",
    "check",
    "decode",
    "encode",
    "status_of",
]
