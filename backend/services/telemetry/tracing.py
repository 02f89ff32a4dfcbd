"""Sends spans to OpenTelemetry, by its conventions for HTTP and generative AI: request > run > calls and searches.

The environment's standard variables say where spans go, how many, and under which service name. A thread of the SDK
sends them from a bounded queue: if the collector is down, spans are lost, and no answer waits. Spans hold prompts and
answers only if OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says so.
"""

import asyncio
import importlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from backend import __version__
from backend import events as ev
from backend.chains.models.prompt import Image, Prompt
from backend.events import status_of
from backend.services.telemetry import exporter
from backend.services.telemetry.records import PROBES, CallRecord, RequestRecord, RetrievalRecord, RunRecord, now
from backend.services.telemetry.telemetry import Sink

_CONTENTS = frozenset({"true", "span_only", "span_and_event"})
_CLOSING = 3.0
_PROVIDERS = {
    "google": "gcp.gemini",
    "azure": "azure.ai.openai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""OpenTelemetry's names of providers, if they differ from ours."""


class Tracing(Sink):
    """Sends records as spans."""

    def __init__(self) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter_module = importlib.import_module(exporter.module())
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        # Attributes of the environment win over these.
        ours = Resource({SERVICE_NAME: "streamforge", SERVICE_VERSION: __version__})
        self._provider = TracerProvider(resource=ours.merge(_environment_resource()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter_module.OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("streamforge", __version__)
        setting = os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "")
        self.contents = setting.lower() in _CONTENTS

    @override
    async def close(self) -> None:
        # The SDK's own shutdown waits half a minute if the collector is down.
        sending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, _CLOSING)

    @override
    def request_began(self, request: RequestRecord) -> None:
        from opentelemetry import context, propagate, trace

        if request.path in PROBES:
            return
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
        span = self._tracer.start_span(
            request.method,
            context=propagate.extract(given),
            kind=trace.SpanKind.SERVER,
            attributes={"http.request.method": request.method},
            start_time=_at(request.began),
        )
        request.span = (span, context.attach(trace.set_span_in_context(span)))

    @override
    def request_ended(self, request: RequestRecord) -> None:
        from opentelemetry import context

        if request.span is None:
            return
        span, token = request.span
        context.detach(token)
        if request.route != "-":
            span.update_name(f"{request.method} {request.route}")
            span.set_attribute("http.route", request.route)
        span.set_attribute("http.response.status_code", request.status)
        _end(span, request.ended, str(request.status) if request.status >= 500 else None)

    @override
    def run_began(self, run: RunRecord) -> None:
        from opentelemetry import context, trace

        started = run.started
        run.span = self._tracer.start_span(
            "invoke_workflow answer",
            attributes={
                "gen_ai.operation.name": "invoke_workflow",
                "gen_ai.workflow.name": "answer",
                "gen_ai.conversation.id": started.session_id,
                "gen_ai.request.model": started.model,
                "streamforge.run.id": started.run_id,
                "streamforge.message.id": started.message_id,
            },
            start_time=_at(run.began_at),
        )
        # The run's task has a context of its own, which ends with it.
        context.attach(trace.set_span_in_context(run.span))

    @override
    def run_ended(self, run: RunRecord) -> None:
        from opentelemetry import trace

        inside = trace.set_span_in_context(run.span)
        for call in run.calls:
            self._call(call, inside)
        total, terminal = run.state.total(), run.terminal
        assert terminal is not None
        attributes: dict[str, Any] = {
            "gen_ai.response.model": run.model,
            "gen_ai.usage.input_tokens": total.input_tokens,
            "gen_ai.usage.output_tokens": total.output_tokens,
            "gen_ai.response.time_to_first_chunk": _seconds(run.began_at, run.first),
            "streamforge.run.status": status_of(terminal),
            "streamforge.cost_dollars": total.cost / 1_000_000 if total.cost is not None else None,
        }
        _set(run.span, attributes)
        _end(run.span, run.ended_at, terminal.error.code if isinstance(terminal, ev.RunFailed) else None)

    @override
    def call_ended(self, call: CallRecord) -> None:
        self._call(call, None)

    @override
    def retrieval_ended(self, retrieval: RetrievalRecord) -> None:
        span = self._tracer.start_span("retrieval", start_time=_at(retrieval.began))
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "retrieval",
            "streamforge.retrieval.passages": retrieval.passages,
            **{f"streamforge.retrieval.{stage}_seconds": spent for stage, spent in retrieval.seconds.items()},
        }
        if self.contents:
            attributes["gen_ai.retrieval.query.text"] = retrieval.queries[0][0]
        _set(span, attributes)
        _end(span, retrieval.ended, retrieval.error)

    def _call(self, call: CallRecord, inside: Any) -> None:
        from opentelemetry import trace

        provider, _, model = call.model.partition("/")
        # A call without times was recorded after it had ended.
        ended = call.ended or now()
        span = self._tracer.start_span(
            f"chat {model}" if call.purpose != "embedding" else f"embeddings {model}",
            context=inside,
            kind=trace.SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat" if call.purpose != "embedding" else "embeddings",
                "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
                "gen_ai.request.model": model,
                "gen_ai.response.model": model,
                "streamforge.call.purpose": call.purpose,
            },
            start_time=_at(call.began or ended),
        )
        _set(span, {**_request(call), **_usage(call), **_contents(call)})
        _end(span, ended, call.error)


def _request(call: CallRecord) -> dict[str, Any]:
    parameters = call.parameters
    attributes: dict[str, Any] = {
        "gen_ai.response.time_to_first_chunk": _seconds(call.began, call.first),
        "gen_ai.response.finish_reasons": [call.finish] if call.finish else None,
        "streamforge.call.retries": len(call.retries) or None,
    }
    if parameters is not None:
        attributes |= {
            "gen_ai.request.stream": True,
            "gen_ai.request.max_tokens": parameters.max_tokens,
            "gen_ai.request.temperature": parameters.temperature,
            "gen_ai.request.top_p": parameters.top_p,
            "gen_ai.request.seed": parameters.seed,
            "gen_ai.request.stop_sequences": list(parameters.stop) or None,
        }
    return attributes


def _usage(call: CallRecord) -> dict[str, Any]:
    usage = call.usage
    if usage is None:
        return {}
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        "streamforge.usage.estimated": usage.estimated or None,
        "streamforge.cost_dollars": usage.cost / 1_000_000 if usage.cost is not None else None,
    }


def _contents(call: CallRecord) -> dict[str, Any]:
    """What the model was sent and what it wrote, as JSON by OpenTelemetry's conventions, images without their bytes.
    Empty if contents are not recorded."""
    if call.prompt is None:
        return {}
    sent = [_message(message.role, message.text_for_model, message.images) for message in call.prompt.messages]
    answer = {**_message("assistant", call.text or ""), "finish_reason": call.finish or call.error or ""}
    return {
        "gen_ai.system_instructions": _json(_system(call.prompt)),
        "gen_ai.input.messages": _json(sent),
        "gen_ai.output.messages": _json([answer]),
    }


def _system(prompt: Prompt) -> list[dict[str, str]]:
    return [{"type": "text", "content": prompt.system}] if prompt.system else []


def _message(role: str, text: str, images: Sequence[Image] = ()) -> dict[str, Any]:
    parts = [{"type": "blob", "modality": "image", "mime_type": image.media_type} for image in images]
    return {"role": role, "parts": [{"type": "text", "content": text}, *parts]}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _environment_resource() -> Any:
    """The attributes of OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES."""
    from opentelemetry.sdk.resources import OTELResourceDetector

    return OTELResourceDetector().detect()


def _set(span: Any, attributes: Mapping[str, Any]) -> None:
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})


def _end(span: Any, when: int, error: str | None) -> None:
    if error is not None:
        from opentelemetry.trace import StatusCode

        span.set_attribute("error.type", error)
        if error != "cancelled":
            span.set_status(StatusCode.ERROR)
    span.end(end_time=_at(when))


def _at(when: int) -> int:
    """A time of the records as ns since 1970."""
    return when + time.time_ns() - now()


def _seconds(begin: int | None, end: int | None) -> float | None:
    return (end - begin) / 1e9 if begin is not None and end is not None else None
