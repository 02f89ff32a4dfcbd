"""GET /metrics, read by Prometheus' own parser."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backend.services.telemetry.metrics import METRICS, Levels, Metrics
from backend.services.telemetry.records import CallRecord
from tests.api.helpers import KEYS
from tests.scenarios.support import watch
from tests.scenarios.test_tracing import ANSWER, PASSAGE, QUESTION
from tests.scenarios.test_usage import priced
from tests.support.harness import ROOT, Running, read_events, serving
from tests.support.provider_protocol import Gate, answer, chunk, done, error, rate_limited, usage_chunk
from tests.support.provider_server import ProviderServer

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
async def measured(tmp_path: Path, provider: ProviderServer) -> AsyncIterator[Running]:
    more = {"metrics": True, "cooldown_seconds": 0, "retry_seconds": 5}
    async with serving(tmp_path / "data", **priced(tmp_path, provider, **more)) as running:
        yield running


def parsed(text: str) -> Figures:
    """Each sample by its name and labels."""
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


async def figures(server: Running, **kwargs: Any) -> Figures:
    response = await server.client.get("/metrics", **kwargs)
    assert (response.status_code, response.headers["content-type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    return parsed(response.text)


def at(found: Mapping[Any, float], name: str, **labels: str) -> float:
    """A sample's value; 0 where there is none yet."""
    return found.get((f"streamforge_{name}", frozenset(labels.items())), 0.0)


async def test_an_answer_is_counted_as_the_ledger_counts_it(measured: Running, provider: ProviderServer) -> None:
    model = "openai/test-model"
    provider.script([chunk({"content": "Hi"}), chunk({}, "stop"), usage_chunk(1_000, 50), done()])
    await measured.events({"message": QUESTION, "documents": False})
    found = await figures(measured)
    assert at(found, "runs_started_total") == 1
    assert at(found, "runs_ended_total", status="completed", model=model) == 1
    assert at(found, "run_seconds_count", model=model) == at(found, "run_first_token_seconds_count", model=model) == 1
    assert at(found, "model_calls_total", model=model, purpose="answer", status="completed") == 1
    assert at(found, "model_first_token_seconds_count", model=model) == 1
    assert at(found, "tokens_total", model=model, direction="input") == 1_000
    assert at(found, "tokens_total", model=model, direction="output") == 50
    assert at(found, "cost_dollars_total", model=model) == pytest.approx(0.0024)
    assert at(found, "http_requests_total", method="POST", route="/chat", status="200") == 1
    assert at(found, "http_request_seconds_count", route="/chat") == 1
    assert ("process_resident_memory_bytes", frozenset()) in found
    assert ("process_cpu_seconds_total", frozenset()) in found


async def test_retries_switches_and_failures_are_counted(measured: Running, provider: ProviderServer) -> None:
    provider.script([error(401, "no", "auth", None)], answer("From the second."))
    await measured.events({"message": QUESTION, "documents": False, "fallbacks": ["openai/other"]})
    provider.script(rate_limited(0), [error(401, "no", "auth", None)])
    await measured.events({"message": QUESTION, "documents": False})
    found = await figures(measured)
    first, other = "openai/test-model", "openai/other"
    assert at(found, "model_retries_total", model=first, code="rate_limited") == 1
    assert at(found, "model_switches_total", model=first, code="provider_error") == 1
    assert at(found, "model_calls_total", model=first, purpose="answer", status="failed") == 2
    assert at(found, "model_calls_total", model=other, purpose="answer", status="completed") == 1
    assert at(found, "runs_ended_total", status="completed", model=other) == 1
    assert at(found, "runs_ended_total", status="failed", model=first) == 1
    assert at(found, "run_first_token_seconds_count", model=first) == 0, "nothing came of it"


async def test_what_is_under_way_is_a_level(measured: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script([chunk({"content": "Half"}), Gate(gate), chunk({}, "stop"), done()])
    body = {"message": QUESTION, "documents": False}
    async with watch(measured.client, body=body) as client:
        await client.text("Half")
        run_id = client.run_id
        found = await figures(measured)
        assert at(found, "runs_live") == at(found, "event_streams") == 1
        assert at(found, "runs_ended_total", status="completed", model="openai/test-model") == 0
    await measured.client.post(f"/runs/{run_id}/cancel")
    await read_events(await measured.client.get(f"/runs/{run_id}/events"))
    async with asyncio.timeout(10):
        while at(found := await figures(measured), "event_streams") or at(found, "runs_live"):
            await asyncio.sleep(0.02)
    assert at(found, "runs_ended_total", status="cancelled", model="openai/test-model") == 1
    calls = {"purpose": "answer", "status": "cancelled"}
    assert at(found, "model_calls_total", model="openai/test-model", **calls) == 1
    assert at(found, "tokens_total", model="openai/test-model", direction="output") > 0


async def test_documents_and_searches_are_measured(measured: Running, provider: ProviderServer) -> None:
    await measured.upload("bridge.txt", PASSAGE)
    await measured.upload("broken.pdf", b"%PDF-1.7 no")
    provider.script(answer(ANSWER), answer("What colour has it?"), answer(ANSWER))
    first = await measured.events({"message": QUESTION})
    await measured.events({"message": "And since when?", "session_id": first[0]["session_id"]})
    await measured.client.post("/search", json={"query": "bridge"})
    found = await figures(measured)
    assert (at(found, "documents"), at(found, "chunks")) == (1, 1)
    assert at(found, "ingestion_jobs_ended_total", kind="ingest", outcome="ready") == 1
    assert at(found, "ingestion_jobs_ended_total", kind="ingest", outcome="document_corrupt") == 1
    assert at(found, "ingestion_seconds_count", stage="parsing") == 2
    assert at(found, "ingestion_seconds_count", stage="embedding") == 1
    for stage in ("embed", "legs", "read", "rank", "passages", "all"):
        assert at(found, "retrieval_seconds_count", stage=stage) == 3, stage
    assert ("streamforge_ingestion_jobs", frozenset({("stage", "queued")})) in found
    calls = {"model": "openai/test-model", "status": "completed"}
    assert at(found, "model_calls_total", purpose="answer", **calls) == 2
    assert at(found, "model_calls_total", purpose="condense", **calls) == 1


async def test_what_a_providers_embedding_takes_is_counted(tmp_path: Path, provider: ProviderServer) -> None:
    more = {"metrics": True, "embedding_model": "openai/embed"}
    async with serving(tmp_path / "data", **priced(tmp_path, provider, **more)) as server:
        await server.upload("bridge.txt", PASSAGE)
        found = await figures(server)
        ledger = (await server.client.get("/usage", params={"by": "model"})).json()["items"]
    (row,) = [item for item in ledger if item["key"] == "openai/embed"]
    assert at(found, "tokens_total", model="openai/embed", direction="input") == row["input_tokens"] > 0
    assert at(found, "model_calls_total", model="openai/embed", purpose="embedding", status="completed") == row["calls"]


async def test_paths_and_methods_of_nobody_make_no_series(measured: Running) -> None:
    for number in range(5):
        await measured.client.get(f"/nothing/{number}")
        await measured.client.get(f"/sessions/ses_{number}")
        await measured.client.request("PROPFIND", f"/nothing/{number}")
    found = await figures(measured)
    requests = {labels for name, labels in found if name == "streamforge_http_requests_total"}
    assert {dict(labels)["route"] for labels in requests} == {"-", "/sessions/{session_id}"}
    assert at(found, "http_requests_total", method="GET", route="/sessions/{session_id}", status="404") == 5
    assert at(found, "http_requests_total", method="other", route="-", status="404") == 5


async def test_names_that_callers_make_up_are_bounded() -> None:
    metrics = Metrics()
    for number in range(500):
        metrics.call_ended(CallRecord(f"openai/made-up-{number}"))
    text, _ = metrics.text(Levels(0, {}, 0, 0))
    calls = {dict(labels)["model"]: v for (n, labels), v in parsed(text.decode()).items() if n.endswith("calls_total")}
    assert len(calls) == 51
    assert calls["other"] == 450


async def test_the_event_loops_lag_is_observed(measured: Running) -> None:
    async with asyncio.timeout(20):
        while not at(await figures(measured), "event_loop_lag_seconds_count"):
            await asyncio.sleep(0.05)


async def test_off_there_is_nothing(server: Running) -> None:
    response = await server.client.get("/metrics")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_with_keys_it_wants_one_even_from_this_machine(tmp_path: Path) -> None:
    """Behind a proxy, everybody comes from this machine."""
    async with serving(tmp_path / "data", metrics=True, api_keys=KEYS) as server:
        assert (await server.client.get("/metrics")).status_code == 401
        key = KEYS.partition(",")[0].partition(":")[2]
        await figures(server, headers={"Authorization": f"Bearer {key}"})


async def test_the_docs_list_every_metric_with_its_labels_and_no_other() -> None:
    rows = re.findall(
        r"^\| `streamforge_(\w+)` \| (\w+) \| ?([^|]*)\|", (ROOT / "docs/observability.md").read_text(), re.M
    )
    documented = {
        name.removesuffix("_total") if kind == "counter" else name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in rows
    }
    assert documented == {name: (kind.lower(), set(labels)) for name, (kind, _, labels, _) in METRICS.items()}
