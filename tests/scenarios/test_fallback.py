"""Another model takes over: by the settings and by request, before the first word and after it, and until when."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.support import ask, messages, only_terminal, ordered, rows, said, watch
from tests.support.harness import Running, serving, text_of
from tests.support.provider_protocol import (
    Cut,
    Stall,
    Step,
    answer,
    chunk,
    context_overflow,
    error,
    model_not_found,
)
from tests.support.provider_server import ProviderServer

RAW = "RAW-PROVIDER-TEXT"
FILE = """
providers:
  one: {{kind: openai, base_url: "{one}"}}
  two: {{kind: vllm, base_url: "{two}"}}
aliases:
  fast: [one/a, two/b]
fallbacks:
  one/settled: two/b
"""
REFUSED: list[Step] = [error(500, RAW, "x", None)]


@pytest.fixture
async def one() -> AsyncIterator[ProviderServer]:
    async with ProviderServer("From one.") as provider:
        yield provider


@pytest.fixture
async def two() -> AsyncIterator[ProviderServer]:
    async with ProviderServer("From two.") as provider:
        yield provider


@asynccontextmanager
async def chained(folder: Path, one: ProviderServer, two: ProviderServer, **more: Any) -> AsyncIterator[Running]:
    file = folder / "models.yaml"
    file.write_text(FILE.format(one=one.base_url, two=two.base_url))
    options = {"models_file": file, "llm_model": "fast", "retry_seconds": 4.0, **more}
    async with serving(folder / "data", **options) as server:
        yield server


def switches(events: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(e["from"], e["to"], e["reason"]) for e in events if e["type"] == "model.switched"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (REFUSED, "provider_error"),
        ([error(401, RAW, "x", None)], "provider_error"),
        ([error(429, RAW, "rate_limit", None)], "rate_limited"),
        (model_not_found(), "model_not_found"),
        (context_overflow(), "context_overflow"),
        ([Cut()], "provider_error"),
        ([chunk({"role": "assistant", "content": ""}), Stall()], "provider_timeout"),
    ],
    ids=["500", "401", "429", "no such model", "overflow", "cut", "silence"],
)
async def test_before_the_first_word_the_next_answers(
    one: ProviderServer, two: ProviderServer, tmp_path: Path, script: list[Step], reason: str
) -> None:
    one.script(script)
    async with chained(tmp_path, one, two, attempt_timeout=2.0) as server:
        events = await server.events(ask())
        ordered(events)
        assert events[0]["model"] == "one/a"
        assert switches(events) == [("one/a", "two/b", reason)]
        assert (only_terminal(events)["type"], text_of(events)) == ("run.completed", "From two.")
        paid = ["one/a", "two/b"] if reason == "provider_timeout" else ["two/b"]
        assert [e["model"] for e in events if e["type"] == "usage"] == paid, "what was refused was not read"
        assert RAW not in str(events)
        assert len(one.calls) == 1, "another model is quicker than another try"
        stored = (await messages(server, events[0]["session_id"]))[1]
        assert (stored["status"], said(stored)) == ("complete", "From two.")
        assert rows(server, "SELECT model FROM messages WHERE id = ?", stored["id"]) == [("two/b",)]


async def test_the_last_one_is_tried_again(one: ProviderServer, two: ProviderServer, tmp_path: Path) -> None:
    one.script(REFUSED)
    two.script(REFUSED)
    async with chained(tmp_path, one, two) as server:
        assert text_of(await server.events(ask())) == "From two."
        assert (len(one.calls), len(two.calls)) == (1, 2)


async def test_when_all_fail_the_last_error_counts(one: ProviderServer, two: ProviderServer, tmp_path: Path) -> None:
    one.script(REFUSED)
    two.script(model_not_found())
    async with chained(tmp_path, one, two) as server:
        events = await server.events(ask())
        assert switches(events) == [("one/a", "two/b", "provider_error")]
        assert only_terminal(events)["error"]["code"] == "model_not_found"


async def test_a_content_filter_is_not_evaded(one: ProviderServer, two: ProviderServer, tmp_path: Path) -> None:
    one.script([error(400, RAW, "x", "content_filter")])
    async with chained(tmp_path, one, two) as server:
        events = await server.events(ask())
        assert only_terminal(events)["error"]["code"] == "content_filter"
        assert two.calls == []


async def test_a_fallback_of_the_settings(one: ProviderServer, two: ProviderServer, tmp_path: Path) -> None:
    one.script(REFUSED)
    async with chained(tmp_path, one, two) as server:
        events = await server.events(ask(model="one/settled"))
        assert switches(events) == [("one/settled", "two/b", "provider_error")]


async def test_a_request_names_its_own(one: ProviderServer, two: ProviderServer, tmp_path: Path) -> None:
    one.script(REFUSED, REFUSED)
    async with chained(tmp_path, one, two, cooldown_seconds=0) as server:
        events = await server.events(ask(model="one/x", fallbacks=["one/y", "two/z"]))
        assert switches(events) == [("one/x", "one/y", "provider_error"), ("one/y", "two/z", "provider_error")]
        assert two.calls[0].json["model"] == "z"


async def test_a_request_may_want_none(one: ProviderServer, two: ProviderServer, tmp_path: Path) -> None:
    one.script(*[model_not_found()] * 2)
    async with chained(tmp_path, one, two) as server:
        for asked in ({"model": "one/settled", "fallbacks": []}, {"model": "one/other"}):
            events = await server.events(ask(**asked))
            assert (switches(events), only_terminal(events)["type"]) == ([], "run.failed")
        assert two.calls == []


async def test_a_fallback_that_is_not_there_is_refused_at_once(
    one: ProviderServer, two: ProviderServer, tmp_path: Path
) -> None:
    async with chained(tmp_path, one, two) as server:
        for wrong, code in (("three/x", "unknown_model"), ("extractive/quotes", "unsupported_parameter")):
            refused = await server.client.post("/chat", json=ask(model="one/x", fallbacks=[wrong], seed=1))
            assert (refused.status_code, refused.json()["code"]) == (422, code)
        assert one.calls == []


# --- after the first word


async def test_after_the_first_word_the_answer_ends(one: ProviderServer, two: ProviderServer, tmp_path: Path) -> None:
    one.script([*answer("Half of")[:-3], Cut()])
    async with chained(tmp_path, one, two) as server:
        events = await server.events(ask())
        assert (only_terminal(events)["type"], switches(events), text_of(events)) == ("run.failed", [], "Half of")
        assert two.calls == []


async def test_unless_the_request_wants_it_otherwise(one: ProviderServer, two: ProviderServer, tmp_path: Path) -> None:
    one.script([*answer("Half of")[:-3], Cut()])
    async with chained(tmp_path, one, two) as server:
        events = await server.events(ask(fallback_after_output=True))
        ordered(events)
        assert only_terminal(events)["type"] == "run.completed"
        assert switches(events) == [("one/a", "two/b", "provider_error")]
        texts: dict[str, str] = {}
        for event in events:
            if event["type"] == "text.delta":
                texts[event["part_id"]] = texts.get(event["part_id"], "") + event["text"]
        assert list(texts.values()) == ["Half of", "From two."], "each model's text is a part of its own"
        spent = [(e["model"], bool(e.get("estimated"))) for e in events if e["type"] == "usage"]
        assert spent == [("one/a", True), ("two/b", False)], "what was written until then was paid for"
        total = sum(e["output_tokens"] for e in events if e["type"] == "usage")
        assert events[-1]["usage"]["output_tokens"] == total
        stored = (await messages(server, events[0]["session_id"]))[1]
        assert said(stored) == "Half ofFrom two."
        assert rows(server, "SELECT model FROM messages WHERE id = ?", stored["id"]) == [("two/b",)]


# --- who rests, and comes back


async def test_one_that_failed_is_passed_over_for_a_while(
    one: ProviderServer, two: ProviderServer, tmp_path: Path
) -> None:
    one.script([error(429, RAW, "rate_limit", None)])
    async with chained(tmp_path, one, two, cooldown_seconds=1.0) as server:
        assert switches(await server.events(ask())) == [("one/a", "two/b", "rate_limited")]
        again = await server.events(ask())
        assert switches(again) == [("one/a", "two/b", "rate_limited")], "and the stream says why"
        assert len(one.calls) == 1
        await asyncio.sleep(1.1)
        assert (switches(await server.events(ask())), len(one.calls)) == ([], 2)


async def test_a_wrong_key_rests_the_whole_provider_a_limit_one_model(
    one: ProviderServer, two: ProviderServer, tmp_path: Path
) -> None:
    async with chained(tmp_path, one, two) as server:
        one.script([error(429, RAW, "rate_limit", None)])
        await server.events(ask())
        assert text_of(await server.events(ask(model="one/other", fallbacks=["two/b"]))) == "From one."
        one.script([error(401, RAW, "x", None)])
        await server.events(ask(model="one/other", fallbacks=["two/b"]))
        assert text_of(await server.events(ask(model="one/third", fallbacks=["two/b"]))) == "From two."


async def test_a_request_that_is_refused_concerns_nobody_else(
    one: ProviderServer, two: ProviderServer, tmp_path: Path
) -> None:
    one.script([error(400, RAW, "invalid_request_error", None)])
    async with chained(tmp_path, one, two) as server:
        assert text_of(await server.events(ask())) == "From two."
        assert text_of(await server.events(ask())) == "From one."


async def test_the_only_one_there_is_is_asked_although_it_failed(
    one: ProviderServer, two: ProviderServer, tmp_path: Path
) -> None:
    one.script(model_not_found())
    async with chained(tmp_path, one, two) as server:
        assert only_terminal(await server.events(ask(model="one/x")))["type"] == "run.failed"
        assert text_of(await server.events(ask(model="one/x"))) == "From one."


async def test_a_stop_is_no_failure(one: ProviderServer, two: ProviderServer, tmp_path: Path) -> None:
    one.script([Stall()])
    async with chained(tmp_path, one, two) as server:
        async with watch(server.client, body=ask()) as client:
            await one.call(0)
            await server.client.post(f"/runs/{client.run_id}/cancel")
            assert only_terminal(await client.all())["type"] == "run.cancelled"
        assert two.calls == []
        assert text_of(await server.events(ask())) == "From one."


async def test_the_patience_is_only_for_those_before_the_last(
    one: ProviderServer, two: ProviderServer, tmp_path: Path
) -> None:
    one.script([Stall()])
    two.script([Stall()])
    async with chained(tmp_path, one, two, attempt_timeout=0.2, first_token_timeout=0.9) as server:
        events = await server.events(ask())
        assert switches(events) == [("one/a", "two/b", "provider_timeout")]
        fault = only_terminal(events)["error"]
        assert (fault["code"], "0.9 s" in fault["message"]) == ("provider_timeout", True)


async def test_a_json_answer_names_the_model_that_answered(
    tmp_path: Path, one: ProviderServer, two: ProviderServer
) -> None:
    one.script(REFUSED)
    async with chained(tmp_path, one, two, retry_seconds=0.0) as server:
        reply = await server.client.post("/chat", json=ask(), headers={"Accept": "application/json"})
    assert (reply.json()["model"], reply.json()["text"]) == ("two/b", "From two.")


async def test_a_slow_answer_rests_its_model_and_not_the_provider(
    tmp_path: Path, one: ProviderServer, two: ProviderServer
) -> None:
    one.script([Stall()])
    async with chained(tmp_path, one, two, attempt_timeout=1.0) as server:
        assert text_of(await server.events(ask())) == "From two."
        assert text_of(await server.events(ask(model="one/other"))) == "From one."
        assert text_of(await server.events(ask())) == "From two."
