"""The product's one vocabulary: what a run's log holds and what goes over the wire (protocol `streamforge.v1`).

Each event is a msgspec struct, tagged by `type`; `seq` is given by the log on append (1, 2, 3 ... without a gap; only
a snapshot may jump). Fields that are None or at their default are left out of the JSON. Text positions (`start`,
`end`) count Unicode code points.
"""

from decimal import Decimal
from typing import Literal

import msgspec

from backend import events as ev

PROTOCOL_VERSION = 1


class Event(msgspec.Struct, tag_field="type", omit_defaults=True, kw_only=True):
    """Base of every event. `seq` 0 means: not in a log yet."""

    seq: int = 0


class Place(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The position of a quote: `[start:end]` of the canonical text of that version of the document."""

    document_id: str
    version: str
    page: int | None = None
    start: int
    end: int


class Source(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A passage that the answer may cite. `n` is its number in the answer's `[n]` marks, from 1; `score` is 0 to 1.

    `title` is the name of the document; in code it is `Passage.document_name`. Clients depend on the older name.
    """

    source_id: str
    n: int
    title: str
    document_id: str
    version: str
    chunk_id: str
    page: int | None = None
    heading: str | None = None
    score: float
    snippet: str


class TokenUsage(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Tokens of all calls of a run. `cost` is in micro-dollars; unknown is null, never zero."""

    input_tokens: int = msgspec.field(default_factory=int)
    output_tokens: int = msgspec.field(default_factory=int)
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    estimated: bool = False
    cost: int | None = None


class CitationCounts(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Numbers of citations of a run. `given`: the model named the source; `matched`: the model wrote no marks and
    the server found the source; `dropped`: marks that were removed, because the source doesn't support the sentence
    or doesn't exist.
    """

    given: int = 0
    matched: int = 0
    dropped: int = 0


class RunFault(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Why a run failed. `code` never changes, `message` says what to do, `retry_after` has the seconds that the
    provider asks to wait.
    """

    code: str
    message: str
    retryable: bool
    request_id: str | None = None
    retry_after: int | None = None


class RunStarted(Event, tag="run.started", kw_only=True):
    """The first event of a run, before retrieval and the model begin. `message_id` is the id of the answer's
    message.
    """

    run_id: str
    session_id: str
    user_message_id: str
    message_id: str
    model: str
    v: int


class Status(Event, tag="status", kw_only=True):
    """The present phase of the run."""

    phase: Literal["queued", "retrieving", "generating", "tool"]


class Sources(Event, tag="sources", kw_only=True):
    """The passages that the model is given. This event comes before all citations."""

    items: list[Source]


class ReasoningStart(Event, tag="reasoning.start", kw_only=True):
    """A part with the model's reasoning begins."""

    part_id: str


class ReasoningDelta(Event, tag="reasoning.delta", kw_only=True):
    """More of the reasoning."""

    part_id: str
    text: str


class ReasoningEnd(Event, tag="reasoning.end", kw_only=True):
    """The reasoning part is complete. `unlinked` is as in `text.end`."""

    part_id: str
    unlinked: int = 0


class TextStart(Event, tag="text.start", kw_only=True):
    """A part of the answer's text begins."""

    part_id: str


class TextDelta(Event, tag="text.delta", kw_only=True):
    """More text of the part, without citation marks."""

    part_id: str
    text: str


class TextEnd(Event, tag="text.end", kw_only=True):
    """The text part is complete. `dropped`: number of citation marks that were removed. `unlinked`: number of links
    and images that were replaced by plain text, because neither the passages nor the user's messages contain their
    URLs.
    """

    part_id: str
    dropped: int = 0
    unlinked: int = 0


class Citation(Event, tag="citation", kw_only=True):
    """A sentence of the part, `[start:end]`, and the exact `quote` from the document that supports it. `n` is the
    source's number.

    `matched`: the model wrote no marks, and the server found the source after the part was complete.
    """

    part_id: str
    source_id: str
    n: int
    start: int
    end: int
    quote: str
    document: Place
    matched: bool = False


class ModelSwitched(Event, tag="model.switched", kw_only=True):
    """Another model takes over. `reason` is the error code of the model that failed. If that model wrote text, the
    text stays as a separate part, and the new model starts the answer again.
    """

    before: str = msgspec.field(name="from")
    now: str = msgspec.field(name="to")
    reason: str


class AppliedPrice(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The rates of one call, in US dollars per million tokens. If `cached` is null, cached input costs as much as
    other input. `source` is `settings`, `built in`, or `genai-prices` with its version.
    """

    source: str
    input: Decimal
    output: Decimal
    cached: Decimal | None = None


Purpose = Literal["answer", "condense", "title", "summary", "embedding"]
CallStatus = Literal["completed", "failed", "cancelled"]


class Usage(Event, tag="usage", kw_only=True):
    """Tokens of one call of a model. `estimated`: the provider reported none, so they were estimated. `purpose`
    condense is the call that rewrites a follow-up question. `cost` is in micro-dollars at the rates of `price`;
    unknown is null, never zero.
    """

    model: str
    purpose: Purpose = "answer"
    status: CallStatus = "completed"
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    estimated: bool = False
    cost: int | None = None
    price: AppliedPrice | None = None


class Part(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A part of a message. Only snapshots contain parts that are not complete. `dropped` and `unlinked` are as in
    `text.end`.
    """

    kind: Literal["text", "reasoning"]
    part_id: str
    text: str
    open: bool = False
    dropped: int = 0
    unlinked: int = 0


class Snapshot(Event, tag="snapshot", kw_only=True):
    """The whole run so far; it replaces everything that a client received before. `model` is the model that answers
    now.
    """

    run_id: str
    session_id: str
    user_message_id: str
    message_id: str
    model: str
    v: int
    parts: list[Part]
    sources: list[Source]
    citations: list[Citation]
    usage: list[Usage]


class RunCompleted(Event, tag="run.completed", kw_only=True):
    """Terminal: the answer is complete and stored. `unlinked` is the total of all parts."""

    finish_reason: str
    usage: TokenUsage
    citation_counts: CitationCounts | None = None
    unlinked: int = 0


class RunFailed(Event, tag="run.failed", kw_only=True):
    """Terminal: the run failed. The text so far is kept, except perhaps with the code `not_saved`."""

    error: RunFault


class RunCancelled(Event, tag="run.cancelled", kw_only=True):
    """Terminal: the run was cancelled. The text so far is kept."""

    by: Literal["user", "replaced", "session_deleted", "no_watcher"]
    usage: TokenUsage
    citation_counts: CitationCounts | None = None
    unlinked: int = 0


class RunInterrupted(Event, tag="run.interrupted", kw_only=True):
    """Terminal: the run waits for a person's decision on these calls (with agents)."""

    approvals: list[str]


Terminal = RunCompleted | RunFailed | RunCancelled | RunInterrupted
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
TERMINAL_TYPES = (RunCompleted, RunFailed, RunCancelled, RunInterrupted)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def encode(event: AnyEvent) -> bytes:
    """The event as one line of compact JSON. Its strings must hold no lone surrogates (see `clean_text`)."""
    return _encoder.encode(event)


def decode(line: bytes) -> AnyEvent:
    """The event of one line of JSON. Raises msgspec.ValidationError on what is no event."""
    return _decoder.decode(line)


def status_of(terminal: ev.Terminal) -> str:
    """The run's status after this event."""
    match terminal:
        case ev.RunCompleted():
            return "completed"
        case ev.RunCancelled():
            return "cancelled"
        case ev.RunInterrupted():
            return "interrupted"
        case ev.RunFailed():
            return "failed"
