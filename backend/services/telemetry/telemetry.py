"""What the server tells of its work: requests, runs, calls of models, searches and jobs, as records that have ended.

Whoever does the work tells it to `Telemetry`, which makes records of it and hands them to its sinks: the metrics, the
traces, both or none. A run is told by its events, so that a token costs nothing; a sink that fails disturbs nobody.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from backend import events as ev
from backend.chains.calling.fallback import CallObserver, ModelCandidate, Observed
from backend.chains.models.provider import Prompt
from backend.errors import RunError, StreamForgeError

if TYPE_CHECKING:
    from backend.services.runs.fold import RunFold

log = structlog.get_logger(__name__)

now = time.perf_counter_ns
"""The clock of all records, ns."""


@dataclass(slots=True, eq=False)
class RequestRecord:
    """An HTTP request. `route` is its path's pattern, `-` where there is none; `status` 0: nothing was answered."""

    telemetry: "Telemetry"
    method: str
    path: str
    headers: Mapping[bytes, bytes]
    began: int = field(default_factory=now)
    status: int = 0
    route: str = "-"
    streams: bool = False
    ended: int = 0
    span: Any = None

    def answered(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """The head of the response leaves."""
        self.status = status
        self.streams = any(name == b"content-type" and kind.startswith(b"text/event-") for name, kind in headers)
        self.telemetry.tell("request_answered", self)


@dataclass(slots=True, eq=False)
class CallRecord(Observed):
    """A call of a model. Times are None where it was told as a whole. `error` is a code; `usage` None: nothing was
    counted. `prompt` and `text`, what it was asked and wrote, are kept only where a sink wants contents."""

    model: str
    purpose: ev.Purpose = "answer"
    parameters: Any = None
    began: int | None = None
    first: int | None = None
    ended: int | None = None
    retries: list[str] = field(default_factory=list[str])
    error: str | None = None
    finish: str | None = None
    usage: ev.Usage | None = None
    prompt: Prompt | None = None
    text: str | None = None
    text_begins: int = 0

    @property
    def status(self) -> ev.CallStatus:
        """How it ended."""
        if self.usage is not None:
            return self.usage.status
        return "completed" if self.error is None else "cancelled" if self.error == "cancelled" else "failed"

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.ended = now()
        if error is not None:
            self.error = error.code if isinstance(error, RunError) else "cancelled"

    def output(self) -> None:
        """See `Observed`."""
        self.first = now()

    def retrying(self, error: RunError) -> None:
        """See `Observed`."""
        self.retries.append(error.code)


class RunObserver(CallObserver):
    """A run, for whom it may concern. This one concerns nobody."""

    def began(self) -> None:
        """Its task has its first step."""

    def noticed(self, event: ev.AnyEvent) -> None:
        """It emits this; deltas are left out."""
        del event

    def ended(self, terminal: ev.Terminal) -> None:
        """Its last event is there."""
        del terminal


@dataclass(slots=True, eq=False)
class RunRecord(RunObserver):
    """A run. `first`: when its first part begins; `switches`: (model before, code of its error)."""

    telemetry: "Telemetry"
    started: ev.RunStarted
    state: "RunFold"
    began_at: int = 0
    first: int | None = None
    ended_at: int = 0
    calls: list[CallRecord] = field(default_factory=list[CallRecord])
    switches: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    terminal: ev.Terminal | None = None
    looking: int | None = None
    span: Any = None

    @property
    def model(self) -> str:
        """The one that answered last."""
        return self.state.model or self.started.model

    def began(self) -> None:
        """See `RunObserver`."""
        self.began_at = now()
        self.telemetry.tell("run_began", self)

    def calling(self, candidate: ModelCandidate, prompt: Prompt) -> Observed:
        """See `RunObserver`."""
        call = CallRecord(candidate.name, parameters=prompt.parameters, began=now())
        if self.telemetry.contents:
            call.prompt, call.text_begins = prompt, len(self.state.text())
        self.calls.append(call)
        return call

    def noticed(self, event: ev.AnyEvent) -> None:
        """See `RunObserver`."""
        match event:
            case ev.TextStart() | ev.ReasoningStart():
                self.first = self.first or now()
            case ev.Status(phase="retrieving"):
                self.looking = now()
            case ev.ModelSwitched():
                self.switches.append((event.before, event.reason))
            case ev.Usage(purpose="answer"):
                # Told at the end of a call; one that nobody answered has none.
                for call in self._answers()[-1:]:
                    call.usage = event
            case ev.Usage():
                # Making the follow-up a question of its own is the first thing that looking something up does.
                began = self.looking if event.purpose == "condense" else None
                self.calls.append(CallRecord(event.model, event.purpose, began=began, ended=now(), usage=event))
            case _:
                pass

    def ended(self, terminal: ev.Terminal) -> None:
        """See `RunObserver`."""
        self.ended_at, self.terminal = now(), terminal
        answers = self._answers()
        if answers and isinstance(terminal, ev.RunCompleted):
            answers[-1].finish = terminal.finish_reason
        if self.telemetry.contents:
            text, end = self.state.text(), None
            for call in reversed(answers):
                call.text, end = text[call.text_begins : end], call.text_begins
        self.telemetry.tell("run_ended", self)

    def _answers(self) -> list[CallRecord]:
        return [call for call in self.calls if call.purpose == "answer"]


@dataclass(slots=True, eq=False)
class RetrievalRecord:
    """A search. `seconds` by stage."""

    queries: Sequence[tuple[str, float]]
    began: int = field(default_factory=now)
    ended: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    passages: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job of the ingestion that has ended: `ready`, or the code of why not. `seconds` by stage."""

    kind: str
    outcome: str
    seconds: Mapping[str, float]


class Sink:
    """Takes records. This one takes none."""

    contents = False
    """Whether it wants to see what was asked and answered."""

    def request_began(self, request: RequestRecord) -> None:
        """Called in the request's task."""

    def request_answered(self, request: RequestRecord) -> None:
        """The head of its response is known."""

    def request_ended(self, request: RequestRecord) -> None:
        """Called in the request's task."""

    def run_began(self, run: RunRecord) -> None:
        """Called in the run's task, which began within its request's."""

    def run_ended(self, run: RunRecord) -> None:
        """The calls of its models have ended, too."""

    def called(self, call: CallRecord) -> None:
        """A call beside the runs has ended."""

    def retrieved(self, retrieval: RetrievalRecord) -> None:
        """Called in the task that searched, a request's or a run's."""

    def job_ended(self, job: JobRecord) -> None:
        """It is not tried again."""

    async def open(self) -> None:
        """Called when the server starts."""

    async def close(self) -> None:
        """Called when it stops: a few seconds may be taken, no more."""


class Telemetry:
    """The one thing that work is told to. Without sinks it does nothing, and raises nothing with them."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self.contents = any(sink.contents for sink in sinks)

    def tell(self, what: str, *record: Any) -> None:
        """Hand a record to the sinks: `what` is the method that takes it."""
        for sink in self._sinks:
            try:
                getattr(sink, what)(*record)
            except Exception:
                log.exception("telemetry_failed", record=what)

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Generator[RequestRecord]:
        """A request, from its first byte to the last one of its response."""
        request = RequestRecord(self, method, path, headers)
        self.tell("request_began", request)
        try:
            yield request
        finally:
            request.ended = now()
            self.tell("request_ended", request)

    def run(self, started: ev.RunStarted, state: "RunFold") -> RunObserver:
        """Who is to be told of a run."""
        return RunRecord(self, started, state) if self._sinks else _UNWATCHED

    @contextmanager
    def retrieval(self, queries: Sequence[tuple[str, float]]) -> Generator[RetrievalRecord]:
        """A search; what it found is filled in by who searches."""
        retrieval = RetrievalRecord(queries)
        try:
            yield retrieval
        except StreamForgeError as error:
            retrieval.error = error.code
            raise
        finally:
            retrieval.ended = now()
            self.tell("retrieved", retrieval)

    def used(self, usage: ev.Usage) -> None:
        """A call beside the runs took this."""
        self.tell("called", CallRecord(usage.model, usage.purpose, usage=usage))

    def job(self, kind: str, outcome: str, seconds: Mapping[str, float]) -> None:
        """A job ended."""
        self.tell("job_ended", JobRecord(kind, outcome, seconds))

    async def open(self) -> None:
        """Begin."""
        for sink in self._sinks:
            await sink.open()

    async def close(self) -> None:
        """Hand out what is left."""
        for sink in self._sinks:
            await sink.close()


_UNWATCHED = RunObserver()
SILENT = Telemetry()
"""Without sinks."""
