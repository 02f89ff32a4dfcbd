"""Conversations longer than LLM_HISTORY_TOKENS: what the model is told of the beginning."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.support import ask, messages, only_terminal, ordered, rows, said
from tests.scenarios.test_titles import background
from tests.support.harness import Running, read_events, serving, text_of
from tests.support.provider_protocol import Gate, Stall, answer, error
from tests.support.provider_server import ProviderServer
from tests.unit.chains.models.test_tokenizers import TOKENIZER

LONG = "x" * 300
BUDGET = 400
SUMMARY = "They spoke of the first things."


@asynccontextmanager
async def remembering(folder: Path, provider: ProviderServer, **more: Any) -> AsyncIterator[Running]:
    options = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url, "summaries": True}
    options |= {"llm_model": "openai/m", "llm_history_tokens": BUDGET, **more}
    async with serving(folder / "data", **options) as running:
        yield running


@pytest.fixture
async def server(tmp_path: Path, provider: ProviderServer) -> AsyncIterator[Running]:
    async with remembering(tmp_path, provider) as running:
        yield running


def reply(call: Any) -> list[Any]:
    """Sums up when it is asked to, else answers at length."""
    summing = "Sum up" in call.json["messages"][0]["content"]
    return answer(SUMMARY if summing else f"A. {LONG}", chunk_by=1000)


def summing(provider: ProviderServer) -> list[Any]:
    return [c.json for c in provider.calls if "Sum up" in c.json["messages"][0]["content"]]


def told(call: Any) -> list[str]:
    return [m["content"] for m in call.json["messages"] if m["role"] != "system"]


async def talk(server: Running, *questions: str, session_id: str | None = None) -> str:
    for question in questions:
        more = {"session_id": session_id} if session_id else {}
        events = await server.events(ask(question, **more))
        assert only_terminal(events)["type"] == "run.completed"
        session_id = events[0]["session_id"]
        await background(server)
    assert session_id is not None
    return session_id


async def test_what_no_longer_fits_is_summed_up_after_the_answer(server: Running, provider: ProviderServer) -> None:
    provider.default = reply
    session_id = await talk(server, *(f"Q{n}? {LONG}" for n in range(2)))
    assert summing(provider) == [], "two turns fit"
    await talk(server, f"Q2? {LONG}", session_id=session_id)
    (asked,) = summing(provider)
    assert f"user: Q0? {LONG}\n\nassistant: A. {LONG}" in asked["messages"][1]["content"]
    listed = (await server.client.get(f"/sessions/{session_id}/messages")).json()
    assert listed["summary"] == SUMMARY
    until = [m["id"] for m in listed["items"]].index(listed["summarised_until"])
    assert listed["items"][until]["role"] == "assistant"
    before = len(provider.calls)
    await talk(server, "Q3?", session_id=session_id)
    sent = told(provider.calls[before])
    assert SUMMARY in sent[0]
    assert "summary" in sent[0].lower()
    assert sent[2:] == [said(m) for m in listed["items"][until + 1 :]] + ["Q3?"]
    roles = [m["role"] for m in provider.calls[before].json["messages"]][1:]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    assert said((await messages(server, session_id))[0]) == f"Q0? {LONG}", "nothing is lost"


async def test_the_summary_rolls_on(server: Running, provider: ProviderServer) -> None:
    provider.default = reply
    session_id = await talk(server, *(f"Q{n}? {LONG}" for n in range(6)))
    asked = summing(provider)
    assert len(asked) >= 2
    assert SUMMARY in asked[1]["messages"][1]["content"]
    assert "Q0?" not in asked[1]["messages"][1]["content"]
    assert len(rows(server, "SELECT * FROM summaries")) == len(asked)
    for call in provider.calls:
        assert sum(len(text) for text in told(call)) < 4 * BUDGET + 2000
    await server.client.delete(f"/sessions/{session_id}")
    assert rows(server, "SELECT * FROM summaries") == []


async def test_without_one_the_answer_waits_for_a_summary(tmp_path: Path, provider: ProviderServer) -> None:
    provider.default = reply
    async with remembering(tmp_path, provider, summaries=False) as server:
        session_id = await talk(server, *(f"Q{n}? {LONG}" for n in range(4)))
    provider.calls.clear()
    async with remembering(tmp_path, provider) as server:
        events = await server.events(ask("Last?", session_id=session_id))
        ordered(events)
        calls = next(n for n, call in enumerate(provider.calls, 1) if told(call)[-1] == "Last?")
        assert calls >= 2
        assert only_terminal(events)["usage"]["input_tokens"] == 7, "the summary is no part of the run's usage"
        assert SUMMARY in told(provider.calls[calls - 1])[0]


@pytest.mark.parametrize("script", [[Stall()], [error(500, "no", "server_error", None)], answer("")])
async def test_without_a_summary_the_oldest_are_left_out(
    tmp_path: Path, provider: ProviderServer, script: list[Any]
) -> None:
    def fails(call: Any) -> list[Any]:
        return script if "Sum up" in call.json["messages"][0]["content"] else reply(call)

    provider.default = reply
    async with remembering(tmp_path, provider, summaries=False) as server:
        session_id = await talk(server, *(f"Q{n}? {LONG}" for n in range(4)))
    provider.default = fails
    async with remembering(tmp_path, provider, summary_timeout=0.2) as server:
        events = await server.events(ask("Last?", session_id=session_id))
        assert only_terminal(events)["type"] == "run.completed"
        last = next(c for c in provider.calls[::-1] if told(c)[-1] == "Last?")
        assert told(last)[-1] == "Last?"
        assert told(last)[0].startswith("Q")
        assert len(told(last)) < 8
        assert rows(server, "SELECT * FROM summaries") == []


async def test_an_answer_waits_for_a_failing_model_only_once(tmp_path: Path, provider: ProviderServer) -> None:
    provider.default = reply
    async with remembering(tmp_path, provider, summaries=False) as server:
        session_id = await talk(server, *(f"Q{n}? {LONG}" for n in range(4)))
    refusal = [error(500, "no", "server_error", None)]
    provider.default = lambda call: refusal if "Sum up" in call.json["messages"][0]["content"] else reply(call)
    async with remembering(tmp_path, provider) as server:
        provider.calls.clear()
        await talk(server, "Q4?", "Q5?", session_id=session_id)
        order = [told(c)[-1] if c.json not in summing(provider) else "summary" for c in provider.calls]
        assert order == ["summary", "Q4?", "summary", "Q5?", "summary"]
        provider.default = reply
        await talk(server, "Q6?", "Q7?", session_id=session_id)
        assert SUMMARY in told(next(c for c in provider.calls if told(c)[-1] == "Q7?"))[0]


async def test_a_summary_that_is_being_made_is_waited_for(server: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()

    def slowly(call: Any) -> list[Any]:
        steps = reply(call)
        return [steps[0], Gate(gate), *steps[1:]] if "Sum up" in call.json["messages"][0]["content"] else steps

    provider.default = slowly
    session_id = None
    for n in range(3):
        more = {"session_id": session_id} if session_id else {}
        session_id = (await server.events(ask(f"Q{n}? {LONG}", **more)))[0]["session_id"]
    asking = asyncio.create_task(server.events(ask("Last?", session_id=session_id)))
    while len(summing(provider)) < 1:
        await asyncio.sleep(0.01)
    gate.set()
    assert text_of(await asking)
    await background(server)
    assert len(summing(provider)) == 1
    assert SUMMARY in told(next(c for c in provider.calls if told(c)[-1] == "Last?"))[0]


async def test_a_branch_finds_the_summary_of_what_it_shares(server: Running, provider: ProviderServer) -> None:
    provider.default = reply
    session_id = await talk(server, *(f"Q{n}? {LONG}" for n in range(4)))
    listed = (await server.client.get(f"/sessions/{session_id}/messages")).json()
    last = listed["items"][-1]["id"]
    made = len(summing(provider))
    async with server.client.stream("POST", f"/messages/{last}/regenerate", json={"documents": False}) as response:
        await read_events(response)
    branch = provider.calls[-1] if told(provider.calls[-1])[-1].startswith("Q3?") else provider.calls[-2]
    assert SUMMARY in told(branch)[0]
    await background(server)
    first = listed["items"][0]["id"]
    edit = {"message": "Another beginning?", "documents": False}
    async with server.client.stream("POST", f"/messages/{first}/edit", json=edit) as response:
        await read_events(response)
    assert told(provider.calls[-1]) == ["Another beginning?"]
    now = (await server.client.get(f"/sessions/{session_id}/messages")).json()
    assert now["summarised_until"] is None
    assert made >= 1


async def test_a_cheaper_model_may_sum_up(tmp_path: Path, provider: ProviderServer) -> None:
    provider.default = reply
    async with remembering(tmp_path, provider, summary_model="openai/cheap") as server:
        await talk(server, *(f"Q{n}? {LONG}" for n in range(3)))
        assert {c["model"] for c in summing(provider)} == {"cheap"}
        assert {m for (m,) in rows(server, "SELECT model FROM summaries")} == {"openai/cheap"}


async def test_a_tokenizer_that_is_at_hand_counts(tmp_path: Path, provider: ProviderServer) -> None:
    table = {"providers": {"openai": {"models": {"counted": {"tokenizer": str(TOKENIZER)}}}}}
    (tmp_path / "models.json.yaml").write_text(json.dumps(table))
    provider.default = lambda _: answer("OK.")
    # A token each, and half a token by the estimate: three of these messages fit, or half as many.
    letters = " ".join("abcdefghij" * 12)
    more: dict[str, Any] = {"models_file": tmp_path / "models.json.yaml", "summaries": False}
    async with remembering(tmp_path, provider, **more) as server:
        for model, fitting in (("openai/m", 5), ("openai/counted", 3)):
            events = await server.events(ask(letters, model=model))
            for _ in range(6):
                body = ask(letters, model=model, session_id=events[0]["session_id"])
                assert only_terminal(await server.events(body))["type"] == "run.completed"
            assert told(provider.calls[-1]).count(letters) - 1 == fitting, model
        assert "tokenizer" not in (await server.client.get("/models")).text
    limits = {**more, "budgets": "local=1/day"}
    table["providers"]["openai"]["models"]["counted"] |= {"price": {"input": 1, "output": 1}}  # type: ignore[dict-item]
    (tmp_path / "models.json.yaml").write_text(json.dumps(table))
    async with remembering(tmp_path / "budget", provider, **limits) as server:
        events = await server.events(ask(letters, model="openai/counted"))
        for _ in range(6):
            body = ask(letters, model="openai/counted", session_id=events[0]["session_id"])
            assert only_terminal(await server.events(body))["type"] == "run.completed"
        assert told(provider.calls[-1]).count(letters) - 1 == 5, "what is held is built on the estimate"


async def test_a_model_that_does_not_write_needs_none(server: Running, provider: ProviderServer) -> None:
    session_id = None
    for n in range(4):
        more = {"session_id": session_id} if session_id else {}
        body = ask(f"Q{n}? {LONG}", model="simulated/words", **more)
        session_id = (await server.events(body))[0]["session_id"]
    await background(server)
    assert provider.calls == []
