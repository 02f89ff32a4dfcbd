"""Traces, as a collector gets them over the wire."""

import asyncio
import base64
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from backend.services.telemetry.exporter import missing
from tests.contract.protocols import KEY, RAW
from tests.support.collector import Collector, Span, grpc_collector, http_collector
from tests.support.harness import Running, free_port, serving, text_of
from tests.support.provider_protocol import answer, chunk, done, error, rate_limited, usage_chunk
from tests.support.provider_server import ProviderServer

SERVER, CLIENT = 2, 3
CONTENTS = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
CARAVAN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
QUESTION = "Which colour has the bridge at Elsmere?"
ANSWER = "The bridge was painted green in 1911 [1]."
PASSAGE = b"The bridge at Elsmere was painted green in 1911."

Env = Callable[..., None]


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Env:
    """Sets OpenTelemetry's variables; spans leave at once."""

    def set_(endpoint: str, **more: str) -> None:
        for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50", **more}.items():
            monkeypatch.setenv(name, value)

    return set_


@pytest.fixture
def collector() -> Iterator[Collector]:
    with grpc_collector() as listening:
        yield listening


def wire(provider: ProviderServer, **more: Any) -> dict[str, Any]:
    return {
        "openai_api_key": KEY,
        "openai_base_url": provider.base_url,
        "llm_model": "openai/test-model",
        "cooldown_seconds": 0,
        **more,
    }


async def one(collector: Collector, name: str) -> Span:
    return await asyncio.to_thread(collector.one, name)


async def asked(server: Running, **more: Any) -> list[dict[str, Any]]:
    return await server.events({"message": QUESTION, **more}, headers={"traceparent": CARAVAN})


@pytest.mark.parametrize(("protocol", "listening"), [("grpc", grpc_collector), ("http/protobuf", http_collector)])
async def test_spans_arrive_nested_in_the_callers_trace(
    tmp_path: Path,
    provider: ProviderServer,
    env: Env,
    protocol: str,
    listening: Callable[[], AbstractContextManager[Collector]],
) -> None:
    with listening() as collector:
        env(collector.endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol, OTEL_SERVICE_NAME="answers")
        async with serving(tmp_path / "data", **wire(provider)) as server:
            await server.upload("bridge.txt", PASSAGE)
            provider.script([chunk({"content": ANSWER}), chunk({}, "stop"), usage_chunk(120, 9), done()])
            events = await asked(server, temperature=0.3)
            request, run = await one(collector, "POST /chat"), await one(collector, "invoke_workflow answer")
            call, search = await one(collector, "chat test-model"), await one(collector, "retrieval")
        assert events[-1]["type"] == "run.completed"
        _, trace_id, caller, _ = CARAVAN.split("-")
        assert {span.trace_id for span in (request, run, call, search)} == {trace_id}
        assert (request.parent_id, run.parent_id) == (caller, request.span_id)
        assert call.parent_id == search.parent_id == run.span_id
        assert (request.kind, call.kind) == (SERVER, CLIENT)
        assert run.begin <= search.begin <= search.end <= call.begin <= call.end <= run.end
        assert request.resource["service.name"] == "answers"
        assert request.attributes["http.response.status_code"] == 200
        assert request.attributes["http.route"] == "/chat"
        assert run.attributes["gen_ai.operation.name"] == "invoke_workflow"
        assert run.attributes["gen_ai.conversation.id"] == events[0]["session_id"]
        assert run.attributes["streamforge.run.id"] == events[0]["run_id"]
        assert run.attributes["streamforge.run.status"] == "completed"
        said = call.attributes
        assert (said["gen_ai.operation.name"], said["gen_ai.provider.name"]) == ("chat", "openai")
        assert (said["gen_ai.request.model"], said["gen_ai.response.model"]) == ("test-model", "test-model")
        assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (120, 9)
        assert (said["gen_ai.request.temperature"], said["gen_ai.request.stream"]) == (0.3, True)
        assert said["gen_ai.response.finish_reasons"] == ["stop"]
        assert 0 < said["gen_ai.response.time_to_first_chunk"] <= (call.end - call.begin) / 1e9
        assert search.attributes["gen_ai.operation.name"] == "retrieval"
        assert search.attributes["streamforge.retrieval.passages"] == 1
        assert search.attributes["streamforge.retrieval.embed_seconds"] > 0


async def test_no_word_of_what_was_asked_or_answered_leaves_unless_asked_for(
    tmp_path: Path, provider: ProviderServer, env: Env
) -> None:
    with http_collector() as collector:
        http = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "FASTAPI_OTEL_AUTO_CONFIGURE": "true"}
        env(collector.endpoint, **http)
        async with serving(tmp_path / "data", **wire(provider)) as server:
            await server.upload("bridge.txt", PASSAGE)
            provider.script(answer(ANSWER))
            await asked(server)
            await server.client.get("/sessions/whispered-name", params={"q": "whispered"})
            await one(collector, "invoke_workflow answer")
            await one(collector, "GET /sessions/{session_id}")
        sent = b"".join(collector.raw)
    assert b"test-model" in sent, "the bytes are searchable"
    for word in (b"Elsmere", b"painted", b"bridge", b"whispered", KEY.encode()):
        assert word not in sent, word


async def test_contents_leave_when_the_standard_variable_says_so(
    tmp_path: Path, provider: ProviderServer, collector: Collector, env: Env
) -> None:
    env(collector.endpoint, **{CONTENTS: "true"})
    async with serving(tmp_path / "data", **wire(provider)) as server:
        await server.upload("bridge.txt", PASSAGE)
        provider.script(answer(ANSWER))
        events = await asked(server, system_prompt="You are a guide.")
        call, search = await one(collector, "chat test-model"), await one(collector, "retrieval")
    (wrote,) = json.loads(call.attributes["gen_ai.output.messages"])
    assert wrote == {
        "role": "assistant",
        "parts": [{"type": "text", "content": text_of(events)}],
        "finish_reason": "stop",
    }
    (told,) = json.loads(call.attributes["gen_ai.input.messages"])
    assert told["role"] == "user"
    assert QUESTION in told["parts"][0]["content"] and PASSAGE.decode() in told["parts"][0]["content"]
    assert "You are a guide." in json.loads(call.attributes["gen_ai.system_instructions"])[0]["content"]
    assert search.attributes["gen_ai.retrieval.query.text"] == QUESTION
    assert KEY.encode() not in b"".join(collector.raw)


async def test_of_pictures_only_their_kind_leaves(
    tmp_path: Path, provider: ProviderServer, collector: Collector, env: Env
) -> None:
    env(collector.endpoint, **{CONTENTS: "true"})
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"Elsmere").decode()
    async with serving(tmp_path / "data", **wire(provider)) as server:
        shown = await asked(server, images=[{"media_type": "image/png", "data": png}])
        await server.events({"message": "And?", "session_id": shown[0]["session_id"]})
        await asyncio.to_thread(collector.wait, "POST /chat", 2)
    picture = {"type": "blob", "modality": "image", "mime_type": "image/png"}
    for call in collector.named("chat test-model"):
        first = json.loads(call.attributes["gen_ai.input.messages"])[0]
        assert first["parts"] == [{"type": "text", "content": QUESTION}, picture]
    for leaked in (png.encode(), b"\x89PNG"):
        assert leaked not in b"".join(collector.raw)


async def test_each_model_that_is_tried_has_a_span(
    tmp_path: Path, provider: ProviderServer, collector: Collector, env: Env
) -> None:
    env(collector.endpoint, **{CONTENTS: "span_only"})
    async with serving(tmp_path / "data", **wire(provider, retry_seconds=5)) as server:
        provider.script([error(401, f"{RAW} {KEY}", "auth", None)], answer("From the second."))
        events = await asked(server, documents=False, fallbacks=["openai/other"])
        assert text_of(events) == "From the second."
        first, second = await one(collector, "chat test-model"), await one(collector, "chat other")
    assert (first.error, first.attributes["error.type"]) == (True, "provider_error")
    assert "gen_ai.response.time_to_first_chunk" not in first.attributes
    assert json.loads(first.attributes["gen_ai.output.messages"])[0]["parts"][0]["content"] == ""
    assert not second.error and second.begin >= first.end
    assert json.loads(second.attributes["gen_ai.output.messages"])[0]["parts"][0]["content"] == "From the second."
    assert RAW.encode() not in b"".join(collector.raw)


async def test_a_call_that_is_tried_again_is_one_span(
    tmp_path: Path, provider: ProviderServer, collector: Collector, env: Env
) -> None:
    env(collector.endpoint)
    async with serving(tmp_path / "data", **wire(provider, retry_seconds=5)) as server:
        provider.script(rate_limited(0), answer("At last."))
        assert text_of(await asked(server, documents=False)) == "At last."
        span = await one(collector, "chat test-model")
    assert (span.error, span.attributes["streamforge.call.retries"]) == (False, 1)


async def test_a_run_that_fails_says_so(
    tmp_path: Path, provider: ProviderServer, collector: Collector, env: Env
) -> None:
    env(collector.endpoint)
    async with serving(tmp_path / "data", **wire(provider)) as server:
        provider.script([error(401, f"{RAW} {KEY}", "auth", None)])
        events = await asked(server, documents=False)
        run = await one(collector, "invoke_workflow answer")
    assert (run.error, run.attributes["error.type"]) == (True, events[-1]["error"]["code"])
    assert run.attributes["streamforge.run.status"] == "failed"
    assert RAW.encode() not in b"".join(collector.raw)


async def test_a_collector_that_is_away_or_refuses_disturbs_nothing(
    tmp_path: Path, provider: ProviderServer, collector: Collector, env: Env
) -> None:
    collector.refuse = True
    for number, endpoint in enumerate((f"http://127.0.0.1:{free_port()}", collector.endpoint)):
        env(endpoint)
        # Left to itself, the SDK would hold up the end for half a minute.
        async with asyncio.timeout(25), serving(tmp_path / f"data{number}", **wire(provider)) as server:
            for _ in range(3):
                assert (await asked(server, documents=False))[-1]["type"] == "run.completed"
    assert collector.spans == []


async def test_a_sink_that_breaks_disturbs_nothing(
    tmp_path: Path, provider: ProviderServer, collector: Collector, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    env(collector.endpoint)
    from backend.services.telemetry.tracing import Tracing

    for name in ("request_began", "request_ended", "run_began", "run_ended", "retrieval_ended"):
        monkeypatch.setattr(Tracing, name, broken)
    async with serving(tmp_path / "data", **wire(provider)) as server:
        await server.upload("bridge.txt", PASSAGE)
        assert (await asked(server))[-1]["type"] == "run.completed"
    assert collector.spans == []


async def test_probes_have_no_spans(tmp_path: Path, collector: Collector, env: Env) -> None:
    env(collector.endpoint)
    async with serving(tmp_path / "data", metrics=True) as server:
        for path in ("/health", "/ready", "/chat/health", "/metrics", "/models"):
            assert (await server.client.get(path)).status_code == 200
        await one(collector, "GET /models")
    assert [span.name for span in collector.spans] == ["GET /models"]


def test_an_exporter_that_is_not_there_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    said = missing() or ""
    assert said.endswith("pip install opentelemetry-exporter-otlp-proto-http"), said
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert missing() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    assert "http/json" in (missing() or "")


async def test_what_a_follow_up_means_is_a_call_before_its_search(
    tmp_path: Path, provider: ProviderServer, collector: Collector, env: Env
) -> None:
    env(collector.endpoint)
    async with serving(tmp_path / "data", **wire(provider)) as server:
        await server.upload("bridge.txt", PASSAGE)
        provider.script(answer(ANSWER), answer("When was the bridge at Elsmere painted?"), answer(ANSWER))
        first = await server.events({"message": QUESTION})
        await asked(server, session_id=first[0]["session_id"])
        await asyncio.to_thread(collector.wait, "POST /chat", 2)
    traced = CARAVAN.split("-")[1]
    condense, told = (span for span in collector.named("chat test-model") if span.trace_id == traced)
    (search,) = (span for span in collector.named("retrieval") if span.trace_id == traced)
    assert [s.attributes["streamforge.call.purpose"] for s in (condense, told)] == ["condense", "answer"]
    assert condense.parent_id == search.parent_id == told.parent_id
    assert condense.begin < condense.end <= search.begin <= search.end <= told.begin


async def test_a_search_is_a_part_of_its_request(tmp_path: Path, collector: Collector, env: Env) -> None:
    env(collector.endpoint)
    async with serving(tmp_path / "data") as server:
        await server.upload("bridge.txt", PASSAGE)
        await server.client.post("/search", json={"query": "bridge"})
        request, search = await one(collector, "POST /search"), await one(collector, "retrieval")
    assert (search.trace_id, search.parent_id) == (request.trace_id, request.span_id)
