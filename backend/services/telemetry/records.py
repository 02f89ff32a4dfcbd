"""Records of what the server did: requests, runs, calls of models, searches and jobs. Telemetry hands them to
its sinks. Times are in nanoseconds of `now`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from typing_extensions import override

from backend import events as ev
from backend.chains.calling.fallback import ObservedCall
from backend.chains.models.prompt import Parameters, Prompt
from backend.errors import RunError

now = time.perf_counter_ns
"""The clock of all records, in nanoseconds."""
PROBES = frozenset({"/health", "/ready", "/chat/health", "/metrics"})
"""Paths that machines request every few seconds: they get no spans, and no log line above DEBUG."""


@dataclass(slots=True, eq=False)
class RequestRecord:
    """An HTTP request and its response."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    began: int = field(default_factory=now)
    status: int = 0
    """0 if no response was sent."""
    route: str = "-"
    """The pattern of the path, or `-` if no route matches."""
    streams: bool = False
    """Whether the response is a stream of events."""
    ended: int = 0
    span: Any = None
    """Used by tracing only."""


@dataclass(slots=True, eq=False)
class CallRecord(ObservedCall):
    """A call of a model. It is made when the call begins, or afterwards from the call's usage; then it has no times."""

    model: str
    purpose: ev.Purpose = "answer"
    parameters: Parameters | None = None
    began: int | None = None
    first: int | None = None
    """When the first output came."""
    ended: int | None = None
    retries: list[str] = field(default_factory=list[str])
    """The error code of each attempt that was retried."""
    error: str | None = None
    """The code of the error that ended the call; `cancelled` if it was stopped."""
    finish: str | None = None
    """Why the model stopped writing."""
    usage: ev.Usage | None = None
    prompt: Prompt | None = None
    """What the model was sent; only if a sink records contents."""
    text: str | None = None
    """What the model wrote; only if a sink records contents."""
    text_begins: int = 0
    """The length of the run's text when the call began."""

    @property
    def status(self) -> ev.CallStatus:
        """How the call ended."""
        if self.usage is not None:
            return self.usage.status
        return "completed" if self.error is None else "cancelled" if self.error == "cancelled" else "failed"

    @override
    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.ended = now()
        if error is not None:
            self.error = error.code if isinstance(error, RunError) else "cancelled"

    @override
    def output(self) -> None:
        self.first = now()

    @override
    def retrying(self, error: RunError) -> None:
        self.retries.append(error.code)


class AnswerSoFar(Protocol):
    """What a live run has written. Telemetry reads it when a call or the run ends."""

    @property
    def model(self) -> str | None:
        """The model that took over, if one did."""
        ...

    def text(self) -> str:
        """The text parts of the answer so far."""
        ...

    def total(self) -> ev.TokenUsage:
        """The tokens of all calls together."""
        ...


@dataclass(slots=True, eq=False)
class RunRecord:
    """A run, with the calls that belong to it."""

    started: ev.RunStarted
    state: AnswerSoFar
    began_at: int = 0
    retrieval_began: int | None = None
    first: int | None = None
    """When the first part of the answer began."""
    ended_at: int = 0
    calls: list[CallRecord] = field(default_factory=list[CallRecord])
    switches: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(model that failed, code of its error) for each time that another model took over."""
    terminal: ev.Terminal | None = None
    span: Any = None
    """Used by tracing only."""

    @property
    def model(self) -> str:
        """The model that answered last."""
        return self.state.model or self.started.model

    @property
    def answer_calls(self) -> list[CallRecord]:
        """The calls that wrote the answer."""
        return [call for call in self.calls if call.purpose == "answer"]


@dataclass(slots=True, eq=False)
class RetrievalRecord:
    """A search."""

    queries: Sequence[tuple[str, float]]
    """The texts that were searched for, with their weights."""
    began: int = field(default_factory=now)
    ended: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds by stage."""
    passages: int = 0
    """The number of passages that the search returned."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job on documents that has ended and is not retried."""

    kind: str
    outcome: str
    """`ready`, or an error code."""
    seconds: Mapping[str, float]
    """Seconds by stage."""
