"""Metrics that Prometheus reads at GET /metrics. A label has at most 50 values; others become `other`."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from backend.events import status_of
from backend.services.telemetry.records import CallRecord, JobRecord, RequestRecord, RetrievalRecord, RunRecord
from backend.services.telemetry.telemetry import Sink

_MOST_VALUES = 50
_OTHER = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LAG_EVERY = 0.5
_NS = 1e-9

_BRIEF = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_FIRST = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
_WHOLE = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)

METRICS: Mapping[str, tuple[str, str, tuple[str, ...], tuple[float, ...]]] = {
    "http_requests": ("Counter", "HTTP requests.", ("method", "route", "status"), ()),
    "http_request_seconds": (
        "Histogram",
        "Time until the last byte of a response, also for streams.",
        ("route",),
        _WHOLE,
    ),
    "event_streams": ("Gauge", "Open responses that stream events.", (), ()),
    "runs_started": ("Counter", "Answers that were started.", (), ()),
    "runs_ended": ("Counter", "Answers that ended; model is the one that answered last.", ("status", "model"), ()),
    "runs_live": ("Gauge", "Live answers.", (), ()),
    "run_seconds": ("Histogram", "Duration of answers.", ("model",), _WHOLE),
    "run_first_token_seconds": (
        "Histogram",
        "Time until an answer's first token, including retrieval.",
        ("model",),
        _FIRST,
    ),
    "model_calls": ("Counter", "Calls of models.", ("model", "purpose", "status"), ()),
    "model_first_token_seconds": (
        "Histogram",
        "Time until a model's first token, including retries.",
        ("model",),
        _FIRST,
    ),
    "model_retries": ("Counter", "Retries, by the error code of the failure.", ("model", "code"), ()),
    "model_switches": ("Counter", "How often another model took over from this one.", ("model", "code"), ()),
    "tokens": ("Counter", "Tokens; direction is input or output.", ("model", "direction"), ()),
    "cost_dollars": ("Counter", "Cost in US dollars of calls with a known price.", ("model",), ()),
    "feedback": ("Counter", "Ratings of answers; rating is up or down.", ("rating",), ()),
    "retrieval_seconds": ("Histogram", "Duration of searches, by stage.", ("stage",), _BRIEF),
    "ingestion_jobs": ("Gauge", "Unfinished jobs on documents, by stage.", ("stage",), ()),
    "ingestion_jobs_ended": ("Counter", "Jobs that ended; outcome is ready or an error code.", ("kind", "outcome"), ()),
    "ingestion_seconds": ("Histogram", "Duration of ended jobs, by stage.", ("stage",), _WHOLE),
    "documents": ("Gauge", "Searchable documents of all owners.", (), ()),
    "chunks": ("Gauge", "Chunks of these documents.", (), ()),
    "event_loop_lag_seconds": ("Histogram", "How late the event loop runs its callbacks.", (), _BRIEF),
}
"""By name: type, description, labels, buckets."""
_UNBOUNDED = ("model", "code", "outcome")


@dataclass(frozen=True, slots=True)
class Levels:
    """Numbers of the present moment. `jobs`: unfinished jobs by stage."""

    live_runs: int
    jobs: Mapping[str, int]
    documents: int
    chunks: int


class Metrics(Sink):
    """Counts records. Metric names begin with `streamforge_`, except for those of the process."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        prometheus.disable_created_metrics()
        self._registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self._registry)
        self._seen: dict[str, set[str]] = {label: set() for label in _UNBOUNDED}
        self._of: dict[str, Any] = {}
        for name, (kind, about, labels, buckets) in METRICS.items():
            more = {"buckets": buckets} if buckets else {}
            make = getattr(prometheus, kind)
            self._of[name] = make(f"streamforge_{name}", about, labels, registry=self._registry, **more)
        self._lag: asyncio.Task[None] | None = None

    @override
    async def open(self) -> None:
        self._lag = asyncio.create_task(self._watch_lag(), name="event-loop-lag")

    @override
    async def close(self) -> None:
        if self._lag is not None:
            self._lag.cancel()
            await asyncio.gather(self._lag, return_exceptions=True)

    def text(self, levels: Levels) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and the media type."""
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

        self._of["runs_live"].set(levels.live_runs)
        self._of["documents"].set(levels.documents)
        self._of["chunks"].set(levels.chunks)
        for stage, count in levels.jobs.items():
            self._of["ingestion_jobs"].labels(stage).set(count)
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    @override
    def request_answered(self, request: RequestRecord) -> None:
        if request.streams:
            self._of["event_streams"].inc()

    @override
    def request_ended(self, request: RequestRecord) -> None:
        method = request.method if request.method in _METHODS else _OTHER
        self._at("http_requests", method=method, route=request.route, status=str(request.status)).inc()
        self._at("http_request_seconds", route=request.route).observe((request.ended - request.began) * _NS)
        if request.streams:
            self._of["event_streams"].dec()

    @override
    def run_began(self, run: RunRecord) -> None:
        self._of["runs_started"].inc()

    @override
    def run_ended(self, run: RunRecord) -> None:
        assert run.terminal is not None
        self._at("runs_ended", status=status_of(run.terminal), model=run.model).inc()
        self._at("run_seconds", model=run.model).observe((run.ended_at - run.began_at) * _NS)
        if run.first is not None:
            self._at("run_first_token_seconds", model=run.model).observe((run.first - run.began_at) * _NS)
        for model, code in run.switches:
            self._at("model_switches", model=model, code=code).inc()
        for call in run.calls:
            self.call_ended(call)

    @override
    def call_ended(self, call: CallRecord) -> None:
        self._at("model_calls", model=call.model, purpose=call.purpose, status=call.status).inc()
        if call.first is not None and call.began is not None:
            self._at("model_first_token_seconds", model=call.model).observe((call.first - call.began) * _NS)
        for code in call.retries:
            self._at("model_retries", model=call.model, code=code).inc()
        if call.usage is not None:
            self._at("tokens", model=call.model, direction="input").inc(call.usage.input_tokens)
            self._at("tokens", model=call.model, direction="output").inc(call.usage.output_tokens)
            if call.usage.cost is not None:
                self._at("cost_dollars", model=call.model).inc(call.usage.cost / 1_000_000)

    @override
    def retrieval_ended(self, retrieval: RetrievalRecord) -> None:
        for stage, seconds in retrieval.seconds.items():
            self._at("retrieval_seconds", stage=stage).observe(seconds)
        self._at("retrieval_seconds", stage="all").observe((retrieval.ended - retrieval.began) * _NS)

    @override
    def job_ended(self, job: JobRecord) -> None:
        self._at("ingestion_jobs_ended", kind=job.kind, outcome=job.outcome).inc()
        for stage, seconds in job.seconds.items():
            self._at("ingestion_seconds", stage=stage).observe(seconds)

    @override
    def feedback_given(self, rating: str) -> None:
        self._at("feedback", rating=rating).inc()

    def _at(self, name: str, **labels: str) -> Any:
        return self._of[name].labels(**{label: self._bounded(label, value) for label, value in labels.items()})

    def _bounded(self, label: str, value: str) -> str:
        """The value, or `other` if the label has too many values: Prometheus keeps each for the life of the process."""
        seen = self._seen.get(label)
        if seen is None or value in seen:
            return value
        if len(seen) >= _MOST_VALUES:
            return _OTHER
        seen.add(value)
        return value

    async def _watch_lag(self) -> None:
        while True:
            due = time.perf_counter() + _LAG_EVERY
            await asyncio.sleep(_LAG_EVERY)
            self._of["event_loop_lag_seconds"].observe(max(0.0, time.perf_counter() - due))
