"""Observes requests, runs, calls of models, searches and jobs, and hands a record of each to the sinks.

The sinks are metrics and tracing, if they are on. A run is observed through its events without deltas, so a token costs
nothing. A sink that fails disturbs nothing: its exception is logged.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

import structlog
from typing_extensions import override

from backend import events as ev
from backend.chains.calling.fallback import CallObserver, ModelCandidate, ObservedCall
from backend.chains.models.prompt import Prompt
from backend.errors import StreamForgeError
from backend.services.telemetry.records import (
    AnswerSoFar,
    CallRecord,
    JobRecord,
    RequestRecord,
    RetrievalRecord,
    RunRecord,
    now,
)

log = structlog.get_logger(__name__)


class Sink:
    """Receives records. The base class ignores all of them."""

    contents = False
    """Whether the sink records what models are sent and what they write."""

    def request_began(self, request: RequestRecord) -> None:
        """Called in the request's task."""

    def request_answered(self, request: RequestRecord) -> None:
        """Called when the head of the response is sent."""

    def request_ended(self, request: RequestRecord) -> None:
        """Called in the request's task, after the last byte of the response."""

    def run_began(self, run: RunRecord) -> None:
        """Called in the run's task, which began within its request's."""

    def run_ended(self, run: RunRecord) -> None:
        """Called after the calls of the run have ended, too."""

    def call_ended(self, call: CallRecord) -> None:
        """Called for a call that belongs to no run."""

    def retrieval_ended(self, retrieval: RetrievalRecord) -> None:
        """Called in the task that searched: a request's or a run's."""

    def job_ended(self, job: JobRecord) -> None:
        """Called when a job has ended and is not retried."""

    def feedback_given(self, rating: str) -> None:
        """A user rated an answer: up or down."""

    async def open(self) -> None:
        """Called when the server starts."""

    async def close(self) -> None:
        """Called when the server stops. It may take a few seconds, no more."""


class RunObserver(CallObserver):
    """Hears how a run goes; the base class ignores everything."""

    def began(self) -> None:
        """The run's task begins."""

    def noticed(self, event: ev.AnyEvent) -> None:
        """The run emits an event other than a delta."""
        del event

    def ended(self, terminal: ev.Terminal) -> None:
        """The run has emitted its last event."""
        del terminal


class Telemetry:
    """Makes records and hands them to its sinks. Without sinks it does nothing."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self.contents = any(sink.contents for sink in sinks)

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Generator[RequestRecord]:
        """Record a request, from its first byte to the last one of its response."""
        request = RequestRecord(method, path, headers)
        self._notify("request_began", lambda sink: sink.request_began(request))
        try:
            yield request
        finally:
            request.ended = now()
            self._notify("request_ended", lambda sink: sink.request_ended(request))

    def answer(self, request: RequestRecord, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Record the head of a request's response."""
        request.status = status
        request.streams = any(name == b"content-type" and kind.startswith(b"text/event-") for name, kind in headers)
        self._notify("request_answered", lambda sink: sink.request_answered(request))

    def run(self, started: ev.RunStarted, state: AnswerSoFar) -> RunObserver:
        """An observer that records a run."""
        return _RunRecorder(self, started, state) if self._sinks else _IGNORE

    def run_began(self, run: RunRecord) -> None:
        """Hand out a run that begins."""
        self._notify("run_began", lambda sink: sink.run_began(run))

    def run_ended(self, run: RunRecord) -> None:
        """Hand out a run that has ended."""
        self._notify("run_ended", lambda sink: sink.run_ended(run))

    @contextmanager
    def retrieval(self, queries: Sequence[tuple[str, float]]) -> Generator[RetrievalRecord]:
        """Record a search. The caller fills in what the search returned."""
        retrieval = RetrievalRecord(queries)
        try:
            yield retrieval
        except StreamForgeError as error:
            retrieval.error = error.code
            raise
        finally:
            retrieval.ended = now()
            self._notify("retrieval_ended", lambda sink: sink.retrieval_ended(retrieval))

    def call(self, usage: ev.Usage) -> None:
        """Record a call that belongs to no run and has ended."""
        call = CallRecord(usage.model, usage.purpose, usage=usage)
        self._notify("call_ended", lambda sink: sink.call_ended(call))

    def job(self, kind: str, outcome: str, seconds: Mapping[str, float]) -> None:
        """Record a job that has ended."""
        job = JobRecord(kind, outcome, seconds)
        self._notify("job_ended", lambda sink: sink.job_ended(job))

    def feedback(self, rating: str) -> None:
        """Record that a user rated an answer."""
        self._notify("feedback_given", lambda sink: sink.feedback_given(rating))

    async def open(self) -> None:
        """Open the sinks."""
        for sink in self._sinks:
            await sink.open()

    async def close(self) -> None:
        """Close the sinks, which send what they still hold."""
        for sink in self._sinks:
            await sink.close()

    def _notify(self, record: str, notify: Callable[[Sink], None]) -> None:
        for sink in self._sinks:
            try:
                notify(sink)
            except Exception:
                log.exception("telemetry_failed", record=record)


class _RunRecorder(RunObserver):
    """Makes the record of a run from what the run emits."""

    def __init__(self, telemetry: Telemetry, started: ev.RunStarted, state: AnswerSoFar) -> None:
        self._telemetry = telemetry
        self._run = RunRecord(started, state)

    @override
    def began(self) -> None:
        self._run.began_at = now()
        self._telemetry.run_began(self._run)

    @override
    def observe_call(self, candidate: ModelCandidate, prompt: Prompt) -> ObservedCall:
        call = CallRecord(candidate.name, parameters=prompt.parameters, began=now())
        if self._telemetry.contents:
            call.prompt, call.text_begins = prompt, len(self._run.state.text())
        self._run.calls.append(call)
        return call

    @override
    def noticed(self, event: ev.AnyEvent) -> None:
        run = self._run
        match event:
            case ev.TextStart() | ev.ReasoningStart():
                run.first = run.first or now()
            case ev.Status(phase="retrieving"):
                run.retrieval_began = now()
            case ev.ModelSwitched():
                run.switches.append((event.before, event.reason))
            case ev.Usage(purpose="answer"):
                # The event comes at the end of a call. An answer without a call of a model has none.
                for call in run.answer_calls[-1:]:
                    call.usage = event
            case ev.Usage():
                # A retrieval begins with the call that rewrites a follow-up.
                began = run.retrieval_began if event.purpose == "condense" else None
                run.calls.append(CallRecord(event.model, event.purpose, began=began, ended=now(), usage=event))
            case _:
                pass

    @override
    def ended(self, terminal: ev.Terminal) -> None:
        run = self._run
        run.ended_at, run.terminal = now(), terminal
        answers = run.answer_calls
        if answers and isinstance(terminal, ev.RunCompleted):
            answers[-1].finish = terminal.finish_reason
        if self._telemetry.contents:
            text, end = run.state.text(), None
            for call in reversed(answers):
                call.text, end = text[call.text_begins : end], call.text_begins
        self._telemetry.run_ended(run)


_IGNORE = RunObserver()
SILENT = Telemetry()
"""Telemetry without sinks."""
