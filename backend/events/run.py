"""The life of a run: its start, what it is doing, and its end."""

from typing import Literal

import msgspec

from backend.events.base import Event
from backend.events.sources import Source
from backend.events.text import Citation, CitationCounts, Part
from backend.events.usage import TokenUsage, Usage

PROTOCOL_VERSION = 1


class RunFault(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Why a run failed. `code` never changes, `message` says what to do, `retry_after` has the seconds that the
    provider asks to wait. `detail` has the provider's own words, if the server shows them (SHOW_PROVIDER_ERRORS).
    """

    code: str
    message: str
    retryable: bool
    request_id: str | None = None
    retry_after: int | None = None
    detail: str | None = None


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


class ModelSwitched(Event, tag="model.switched", kw_only=True):
    """Another model takes over. `reason` is the error code of the model that failed. If that model wrote text, the
    text stays as a separate part, and the new model starts the answer again.
    """

    before: str = msgspec.field(name="from")
    now: str = msgspec.field(name="to")
    reason: str


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


def status_of(terminal: Terminal) -> str:
    """The run's status after this event."""
    match terminal:
        case RunCompleted():
            return "completed"
        case RunCancelled():
            return "cancelled"
        case RunInterrupted():
            return "interrupted"
        case RunFailed():
            return "failed"
