"""Budgets hold, however many ask at once: who is refused is refused before the provider is called."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend import events as ev
from backend.chains.models.prompt import Tokens
from backend.errors import BudgetExceeded
from tests.scenarios.support import ask, gated, messages, only_terminal, rows, watch
from tests.scenarios.test_usage import CALLS, priced
from tests.support.harness import Running, serving
from tests.support.provider_protocol import Script, chunk, done, usage_chunk
from tests.support.provider_server import Call, ProviderServer

pytestmark = pytest.mark.usefixtures("within_a_day")

RUNS, AT_ONCE = 1_000, 100
LIMIT = 400_000
TOKENS = 500


@pytest.fixture
async def limited(tmp_path: Path, provider: ProviderServer) -> AsyncIterator[Running]:
    """`local` may spend a cent a day; an answer of 100 tokens may cost less than half of that."""
    more = {"budgets": "local=0.01/day", "llm_history_tokens": 100}
    async with serving(tmp_path / "data", **priced(tmp_path, provider, **more)) as running:
        yield running


async def refused(server: Running, body: dict[str, Any], code: str = "budget_exceeded") -> httpx.Response:
    response = await server.client.post("/chat", json=body)
    assert (response.status_code, response.json()["code"]) == (402, code), response.text
    return response


async def budget(server: Running) -> dict[str, Any]:
    return (await server.client.get("/usage")).json()["budget"]


async def test_a_thousand_runs_at_once_never_exceed_the_budget(tmp_path: Path, provider: ProviderServer) -> None:
    counted: list[tuple[int, int]] = []
    dice = random.Random(7)

    def script(call: Call) -> Script:
        prompt = sum(len(m["content"]) // 4 + 1 for m in call.json["messages"])
        written = dice.randint(1, call.json["max_tokens"])
        counted.append((prompt, written))
        return [chunk({"content": "Well."}), chunk({}, "stop"), usage_chunk(prompt, written), done()]

    provider.default = script
    more = {"budgets": f"local={LIMIT / 1e6}/month", "max_runs": 2 * AT_ONCE}
    async with serving(tmp_path / "data", **priced(tmp_path, provider, **more)) as server:
        watching = asyncio.create_task(_watch_the_budget(server))
        places = asyncio.Semaphore(AT_ONCE)

        async def one(client: httpx.AsyncClient, n: int) -> dict[str, Any] | None:
            async with places:
                body = ask("Why? " * (n % 40 + 1), max_tokens=TOKENS)
                response = await client.post("/chat", json=body, headers={"Accept": "application/json"})
            if response.status_code == 402:
                assert response.json()["code"] == "budget_exceeded"
                return None
            assert response.status_code == 200, response.text
            return response.json()

        limits = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(base_url=server.base, timeout=60, trust_env=False, limits=limits) as client:
            told = await asyncio.gather(*(one(client, n) for n in range(RUNS)))
        watching.cancel()
        seen = await asyncio.gather(watching, return_exceptions=True)
        assert isinstance(seen[0], asyncio.CancelledError), seen
        answered = [each["usage"] for each in told if each is not None]
        assert 0 < len(answered) < RUNS, "some of both"
        assert len(provider.calls) == len(answered) == len(counted), "who was refused reached no provider"
        assert len(rows(server, "SELECT 1 FROM runs")) == len(answered), "a refusal stores nothing"
        assert len(rows(server, "SELECT 1 FROM messages")) == 2 * len(answered)
        booked = [(row[3], row[4]) for row in rows(server, CALLS)]
        assert sorted(booked) == sorted(counted), "to the token"
        costs = [2 * prompt + 8 * written for prompt, written in counted]
        assert [row[5] for row in rows(server, CALLS)].count(None) == 0
        assert sum(row[5] for row in rows(server, CALLS)) == sum(costs) == sum(each["cost"] for each in answered)
        state = await budget(server)
        assert (state["spent"], state["reserved"]) == (sum(costs), 0)
        assert state["spent"] <= LIMIT
        assert state["spent"] > 0.9 * LIMIT, "what wasn't needed was given back"
        assert rows(server, "SELECT * FROM reservations") == []


async def _watch_the_budget(server: Running) -> None:
    """Fails as soon as more is spent and put aside than there is."""
    sql = "SELECT (SELECT coalesce(sum(amount), 0) FROM spendings), (SELECT coalesce(sum(amount), 0) FROM reservations)"
    while True:
        ((spent, reserved),) = rows(server, sql)
        assert spent + reserved <= LIMIT
        await asyncio.sleep(0.01)


async def test_a_refusal_says_what_is_spent_and_stores_nothing(limited: Running, provider: ProviderServer) -> None:
    provider.default = lambda call: [chunk({"content": "x"}), chunk({}, "stop"), usage_chunk(4_000, 100), done()]
    first = await limited.events(ask(max_tokens=100))
    response = await refused(limited, ask("And more?", max_tokens=100, session_id=first[0]["session_id"]))
    problem = response.json()
    assert problem["budget"]["spent"] == 8_800
    assert problem["budget"]["reserved"] == 0
    assert problem["budget"]["limit"] == 10_000
    assert problem["retryable"] is True
    assert int(response.headers["retry-after"]) > 0
    assert "local is $0.01 a day: $0.0088 is spent" in problem["detail"]
    assert len(provider.calls) == 1
    assert len(await messages(limited, first[0]["session_id"])) == 2
    assert limited.services.runs.hub.live_in_session(first[0]["session_id"]) is None


async def test_an_answer_that_may_cost_more_than_all_of_it_is_told_so(limited: Running) -> None:
    response = await refused(limited, ask(max_tokens=100_000))
    assert response.json()["retryable"] is False
    assert "retry-after" not in response.headers
    assert (
        'That is more than the whole budget: ask for fewer max_tokens, for no passages ("documents": false)'
        in (response.json()["detail"])
    )


async def test_a_budget_that_is_overspent_is_told_to_wait(limited: Running, provider: ProviderServer) -> None:
    provider.default = lambda call: [chunk({"content": "x"}), chunk({}, "stop"), usage_chunk(5_000, 100), done()]
    await limited.events(ask(max_tokens=100))
    detail = (await refused(limited, ask(max_tokens=1))).json()["detail"]
    assert detail.endswith(" Wait until then, or take a model that costs nothing.")


async def test_what_an_answer_under_way_may_cost_is_held_for_it(limited: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("Hello there", gate, " my friend."))
    body = ask(max_tokens=800)
    async with watch(limited.client, body=body) as client:
        await client.text("there")
        assert (await budget(limited))["reserved"] > 6_400
        response = await refused(limited, body)
        assert int(response.headers["retry-after"]) < 10
        gate.set()
        end = only_terminal(await client.all())
    state = await budget(limited)
    assert (state["spent"], state["reserved"]) == (end["usage"]["cost"], 0)
    assert only_terminal(await limited.events(body))["type"] == "run.completed"


async def test_a_queued_message_holds_its_share_while_it_waits(limited: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("Hello there", gate, " my friend."))
    async with watch(limited.client, body=ask(max_tokens=100)) as first:
        await first.text("there")
        alone = (await budget(limited))["reserved"]
        body = ask(max_tokens=100, session_id=first.session_id, if_busy="queue")
        async with watch(limited.client, body=body) as second:
            await second.until("status")
            assert (await budget(limited))["reserved"] > 2 * alone, "its own, and the history that it may read"
            gate.set()
            ends = [only_terminal(await each.all()) for each in (first, second)]
    assert [end["type"] for end in ends] == ["run.completed"] * 2
    state = await budget(limited)
    assert (state["spent"], state["reserved"]) == (sum(end["usage"]["cost"] for end in ends), 0)


async def test_a_replacement_that_is_refused_cancels_nothing(limited: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("Hello there", gate, " my friend."))
    async with watch(limited.client, body=ask(max_tokens=800)) as client:
        await client.text("there")
        body = ask(session_id=client.session_id, if_busy="replace", max_tokens=800)
        await refused(limited, body)
        gate.set()
        assert only_terminal(await client.all())["type"] == "run.completed", "nothing was cancelled for a refusal"


async def test_a_model_without_a_price_is_refused(limited: Running, provider: ProviderServer) -> None:
    response = await refused(limited, ask(model="openai/who-knows"), "price_unknown")
    assert response.json()["model"] == "openai/who-knows"
    assert "MODELS_FILE" in response.json()["detail"]
    await refused(limited, ask(fallbacks=["openai/who-knows"]), "price_unknown")
    assert provider.calls == []
    assert only_terminal(await limited.events(ask(model="simulated/words")))["usage"]["cost"] == 0


async def test_all_models_that_may_be_asked_are_held(limited: Running) -> None:
    async def held(**more: Any) -> int:
        return (await refused(limited, ask(max_tokens=10_000, **more))).json()["needed"]

    dear, cheap = await held(), await held(model="openai/other")
    assert dear > 2 * cheap
    assert await held(model="openai/other", fallbacks=["openai/test-model"]) == dear + cheap


async def test_what_a_provider_embeds_waits_for_room_or_is_refused(tmp_path: Path, provider: ProviderServer) -> None:
    def embedded() -> int:
        return len([call for call in provider.requests if call.path == "/v1/embeddings"])

    settings = priced(tmp_path, provider, embedding_model="openai/embed")
    notice = b"# Notice\n\nThe notice period is 45 days."
    async with serving(tmp_path / "data", **settings, budgets="local=0.001/day") as server:
        await server.upload("early.md", notice)
        async with server.services.usage.metering.outside_run("local", None, "openai/embed", Tokens(900, 0)) as used:
            used.append(ev.Usage(model="openai/embed", purpose="embedding", input_tokens=900, output_tokens=0))
        known = embedded()
        late = await server.client.post("/documents/upload", files={"file": ("late.md", notice + b" It is" * 20)})
        path = f"/documents/{late.json()['id']}"
        async with asyncio.timeout(20):
            while (document := (await server.client.get(path)).json())["reason_code"] is None:
                await asyncio.sleep(0.02)
        assert (document["status"], document["reason_code"]) == ("queued", "budget_exceeded")
        assert "It renews at" in document["reason"]
        assert "max_tokens" not in document["reason"]
        long = await server.client.post("/search", json={"query": "notice " * 30})
        assert (long.status_code, long.json()["code"]) == (402, "budget_exceeded")
        events = await server.events({"message": "notice " * 30, "model": "simulated/words"})
        assert only_terminal(events)["error"]["code"] == "budget_exceeded"
        body = {"message": "notice " * 30, "model": "simulated/words"}
        folded = await server.client.post("/chat", json=body, headers={"Accept": "application/json"})
        assert (folded.status_code, folded.json()["code"]) == (402, "budget_exceeded")
        assert embedded() == known, "refused before the provider was asked"
        assert (await server.client.post("/search", json={"query": "notice"})).status_code == 200
        assert (await budget(server))["reserved"] == 0
    async with serving(tmp_path / "data", **settings, budgets="local=1/day") as server:
        await server.client.post(f"{path}/retry")
        async with asyncio.timeout(20):
            while (await server.client.get(path)).json()["status"] != "ready":
                await asyncio.sleep(0.05)


async def test_a_repeated_request_is_the_first_one_not_a_second(limited: Running, provider: ProviderServer) -> None:
    headers = {"Idempotency-Key": "one"}
    gate = asyncio.Event()
    provider.script(gated("Hello there", gate, " my friend."))
    body = ask(max_tokens=800)
    async with watch(limited.client, body=body, headers=headers) as client:
        await client.text("there")
        async with watch(limited.client, body=body, headers=headers) as again:
            await again.text("there")
            assert again.run_id == client.run_id
        assert len(rows(limited, "SELECT * FROM reservations")) == 1
        gate.set()
        await client.all()


async def test_a_call_beside_the_answers_is_held_booked_and_refused_like_one(limited: Running) -> None:
    usage, model = limited.services.usage.metering, "openai/test-model"
    async with usage.outside_run("local", "ses_1", model, Tokens(1_000, 500)) as used:
        assert (await budget(limited))["reserved"] == 6_000
        with pytest.raises(BudgetExceeded):
            async with usage.outside_run("local", "ses_1", model, Tokens(1_000, 500)):
                pytest.fail("there was no room")
        used.append(ev.Usage(model=model, purpose="title", input_tokens=10, output_tokens=5))
    state = await budget(limited)
    assert (state["spent"], state["reserved"]) == (60, 0)
    ((purpose, _, _, _, _, cost, run_id, session_id, *_),) = rows(limited, CALLS)
    assert (purpose, cost, run_id, session_id) == ("title", 60, None, "ses_1")
    with pytest.raises(RuntimeError):
        async with usage.outside_run("local", None, model, Tokens(10, 10)):
            raise RuntimeError
    assert (await budget(limited))["reserved"] == 0, "a call that failed holds nothing"
