"""The ledger of real runs: every call is booked with the run's end, whatever the end is."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backend import events as ev
from backend.chains.models.prompt import Tokens
from backend.chains.retrieval.embeddings.openai import OpenAIEmbedder
from backend.errors import Unavailable
from backend.storage.usage.ledger import Ledger
from tests.scenarios.processes import process, using
from tests.scenarios.support import ask, only_terminal, rows, watch
from tests.support.harness import Running, serving
from tests.support.provider_protocol import Cut, Stall, answer, chunk, done, error, usage_chunk
from tests.support.provider_server import ProviderServer

pytestmark = pytest.mark.usefixtures("within_a_day")

PRICES = {
    "test-model": {"input": 2, "output": 8},
    "other": {"input": 1, "output": 1},
    "embed": {"input": 1, "output": 0},
}
KEYS = "alice:0123456789-alice-0123456789,bob:0123456789-bob-9876543210"
CALLS = (
    "SELECT purpose, model, status, input_tokens, output_tokens, cost, run_id, session_id, estimated, price "
    "FROM calls ORDER BY rowid"
)


def priced(folder: Path, provider: ProviderServer, **more: Any) -> dict[str, Any]:
    """Settings with prices for the scripted provider's models."""
    table = {"providers": {"openai": {"models": {name: {"price": price} for name, price in PRICES.items()}}}}
    path = folder / "models.yaml"
    path.write_text(json.dumps(table))
    return {
        "models_file": path,
        "openai_api_key": "sk-test-0123456789",
        "openai_base_url": provider.base_url,
        "llm_model": "openai/test-model",
        **more,
    }


@pytest.fixture
async def priced_server(tmp_path: Path, provider: ProviderServer) -> AsyncIterator[Running]:
    async with serving(tmp_path / "data", **priced(tmp_path, provider)) as running:
        yield running


async def test_an_answer_is_booked_with_the_end_of_its_run(priced_server: Running, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "Hi"}), chunk({}, "stop"), usage_chunk(1_000, 50), done()])
    events = await priced_server.events(ask())
    (usage,) = [e for e in events if e["type"] == "usage"]
    assert usage["cost"] == 2 * 1_000 + 8 * 50
    assert usage["price"] == {"source": "settings", "input": "2", "output": "8"}
    assert "purpose" not in usage
    assert "status" not in usage
    assert only_terminal(events)["usage"]["cost"] == 2_400
    run_id, session_id = events[0]["run_id"], events[0]["session_id"]
    ((*call, price),) = rows(priced_server, CALLS)
    assert call == ["answer", "openai/test-model", "completed", 1_000, 50, 2_400, run_id, session_id, 0]
    assert json.loads(price) == usage["price"]
    assert (await priced_server.client.get(f"/runs/{run_id}")).json()["usage"]["cost"] == 2_400


async def test_a_model_without_a_price_costs_nobody_knows_what(
    with_provider: Running, provider: ProviderServer
) -> None:
    events = await with_provider.events(ask())
    assert "cost" not in only_terminal(events)["usage"]
    ((*_, cost, _, _, _, price),) = rows(with_provider, CALLS)
    assert (cost, price) == (None, None)
    told = (await with_provider.client.get("/usage")).json()
    assert (told["total"]["cost"], told["total"]["unknown_cost"], told["budget"]) == (None, 1, None)


async def test_a_cancelled_answer_is_booked_as_far_as_it_came(priced_server: Running, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "Half an answer"}), Stall()])
    async with watch(priced_server.client, body=ask()) as client:
        await client.text("answer")
        await priced_server.client.post(f"/runs/{client.run_id}/cancel")
        end = only_terminal(await client.all())
    ((purpose, _, status, input, output, cost, run_id, _, estimated, _),) = rows(priced_server, CALLS)
    assert (purpose, status, estimated, run_id) == ("answer", "cancelled", 1, client.run_id)
    assert output >= 3
    assert cost == 2 * input + 8 * output == end["usage"]["cost"]


async def test_an_answer_cancelled_before_its_first_word_has_its_prompt_booked(
    priced_server: Running, provider: ProviderServer
) -> None:
    provider.script([Stall()])
    async with watch(priced_server.client, body=ask("A question of some length.")) as client:
        await provider.call(0)
        await priced_server.client.post(f"/runs/{client.run_id}/cancel")
        await client.all()
    ((_, _, status, input, output, *_),) = rows(priced_server, CALLS)
    assert (status, output) == ("cancelled", 0)
    assert input > 0


async def test_a_failed_answer_is_booked_as_far_as_it_came(priced_server: Running, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "Half an answer"}), Cut()])
    events = await priced_server.events(ask())
    assert only_terminal(events)["type"] == "run.failed"
    ((_, _, status, input, output, cost, *_),) = rows(priced_server, CALLS)
    assert (status, cost) == ("failed", 2 * input + 8 * output)


async def test_a_refusal_before_the_first_word_costs_nothing(priced_server: Running, provider: ProviderServer) -> None:
    provider.script([error(401, "no", "auth", None)])
    events = await priced_server.events(ask())
    assert only_terminal(events)["type"] == "run.failed"
    assert rows(priced_server, CALLS) == []


@pytest.mark.parametrize("steps", [[], [chunk({"content": "Half"})]], ids=["before", "after its first word"])
async def test_what_a_model_thought_out_of_sight_is_booked_as_all_it_was_allowed(
    priced_server: Running, provider: ProviderServer, steps: list[Any]
) -> None:
    provider.script([*steps, Stall()])
    async with watch(priced_server.client, body=ask(reasoning_effort="low", max_tokens=500)) as client:
        await (client.text("Half") if steps else provider.call(0))
        await priced_server.client.post(f"/runs/{client.run_id}/cancel")
        await client.all()
    ((_, _, status, _, output, _, _, _, estimated, _),) = rows(priced_server, CALLS)
    assert (status, output, estimated) == ("cancelled", 500, 1)


async def test_who_is_waited_for_in_vain_has_read_the_prompt(tmp_path: Path, provider: ProviderServer) -> None:
    settings = priced(tmp_path, provider, attempt_timeout=1.0, first_token_timeout=5.0)
    provider.script([Stall()], [chunk({"content": "Whole."}), chunk({}, "stop"), usage_chunk(11, 3), done()])
    async with serving(tmp_path / "data", **settings) as server:
        events = await server.events(ask(fallbacks=["openai/other"]))
        assert only_terminal(events)["type"] == "run.completed"
        first, second = rows(server, CALLS)
    assert (first[1:3], first[4]) == (("openai/test-model", "failed"), 0)
    assert first[5] == 2 * first[3] > 0
    assert second[:6] == ("answer", "openai/other", "completed", 11, 3, 14)


async def test_one_that_rests_was_not_asked_and_costs_nothing(tmp_path: Path, provider: ProviderServer) -> None:
    provider.script([Stall()])
    async with serving(tmp_path / "data", **priced(tmp_path, provider, attempt_timeout=1.0)) as server:
        for _ in range(2):
            await server.events(ask(fallbacks=["openai/other"]))
        assert len(provider.calls) == 3
        asked = rows(server, "SELECT model FROM calls WHERE purpose = 'answer' ORDER BY rowid")
    assert asked == [("openai/test-model",), ("openai/other",), ("openai/other",)]


async def test_each_model_that_wrote_is_booked(priced_server: Running, provider: ProviderServer) -> None:
    provider.script(
        [chunk({"content": "Half an answer"}), Cut()],
        [chunk({"content": "Whole."}), chunk({}, "stop"), usage_chunk(11, 3), done()],
    )
    events = await priced_server.events(ask(fallbacks=["openai/other"], fallback_after_output=True))
    assert only_terminal(events)["type"] == "run.completed"
    first, second = rows(priced_server, CALLS)
    assert first[:3] == ("answer", "openai/test-model", "failed")
    assert second[:6] == ("answer", "openai/other", "completed", 11, 3, 14)
    assert only_terminal(events)["usage"]["cost"] == first[5] + 14
    told = [(e["model"], e.get("status", "completed"), e["cost"]) for e in events if e["type"] == "usage"]
    assert told == [(row[1], row[2], row[5]) for row in (first, second)]


async def test_a_follow_up_made_whole_is_a_call_of_its_own(priced_server: Running, provider: ProviderServer) -> None:
    await priced_server.upload("a.md", b"# Notice\n\nThe notice period is 45 days.")
    provider.script(answer("45 days [1]."), answer("How long is the notice?", usage=False), answer("45 days [1]."))
    first = await priced_server.events({"message": "How long is the notice period?"})
    events = await priced_server.events({"message": "And how long is it?", "session_id": first[0]["session_id"]})
    told = [e for e in events if e["type"] == "usage"]
    assert [e.get("purpose", "answer") for e in told] == ["condense", "answer"]
    assert told[0]["estimated"] is True
    assert [(p, e) for p, _, _, _, _, _, _, _, e, _ in rows(priced_server, CALLS)] == [
        ("answer", 0),
        ("condense", 1),
        ("answer", 0),
    ]
    assert only_terminal(events)["usage"]["cost"] == sum(e["cost"] for e in told)


async def test_what_a_provider_embeds_is_booked_and_what_is_embedded_here_is_not(
    tmp_path: Path, provider: ProviderServer
) -> None:
    async with serving(tmp_path / "a", **priced(tmp_path, provider, embedding_model="openai/embed")) as server:
        await server.upload("a.md", b"# Notice\n\nThe notice period is 45 days.")
        assert (await server.client.post("/search", json={"query": "notice"})).status_code == 200
        sent = [c for c in provider.requests if c.path == "/v1/embeddings"]
        # The scripted server counts a token for each text; the first request asks for the dimension, at the start.
        counted = sum(len(c.json["input"]) for c in sent[1:])
        booked = rows(server, CALLS)
        assert {row[:3] for row in booked} == {("embedding", "openai/embed", "completed")}
        assert sum(row[3] for row in booked) == counted > 0
        assert {(row[5] == row[3], row[6], row[7], row[8]) for row in booked} == {(True, None, None, 0)}
    async with serving(tmp_path / "b", **priced(tmp_path, provider)) as server:
        await server.upload("a.md", b"# Notice\n\nThe notice period is 45 days.")
        assert rows(server, CALLS) == []


async def test_what_a_provider_was_embedding_when_nobody_wanted_it_any_more_is_booked(
    tmp_path: Path, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()

    async def stuck(*_: object) -> Any:
        reached.set()
        await asyncio.get_running_loop().create_future()

    settings = priced(tmp_path, provider, embedding_model="openai/embed")
    async with serving(tmp_path / "data", **settings) as server:
        await server.upload("a.md", b"# Notice\n\nThe notice period is 45 days.")
        before = len(rows(server, CALLS))
        monkeypatch.setattr(OpenAIEmbedder, "_request", stuck)
        async with watch(server.client, body={"message": "notice?", "model": "simulated/words"}) as client:
            await reached.wait()
            await server.client.post(f"/runs/{client.run_id}/cancel")
            assert only_terminal(await client.all())["type"] == "run.cancelled"
        ((purpose, _, _, input, _, cost, *_, estimated, _),) = rows(server, CALLS)[before:]
    assert (purpose, cost, estimated) == ("embedding", input, 1)
    assert input > 0


async def test_after_a_kill_the_next_start_books_what_was_stored(tmp_path: Path, provider: ProviderServer) -> None:
    settings = priced(tmp_path, provider)
    env = {"MODELS_FILE": str(settings["models_file"]), "BUDGETS": "local=1/day", "CHECKPOINT_SECONDS": "0.05"}
    provider.script([chunk({"content": "Half an answer"}), Stall()])
    async with process(tmp_path / "data", using(provider, **env)) as running:
        async with watch(running.client, body=ask()) as client:
            await client.text("answer")
            async with asyncio.timeout(10):
                while not rows(running.database, "SELECT 1 FROM run_events WHERE instr(lines, 'Half an answer')"):
                    await asyncio.sleep(0.02)
            assert len(rows(running.database, "SELECT 1 FROM reservations")) == 1
            running.server.kill()
        assert rows(running.database, CALLS) == []
        await asyncio.to_thread(running.server.start)
        ((purpose, model, status, input, output, cost, run_id, *_),) = rows(running.database, CALLS)
        assert (purpose, model, status, run_id) == ("answer", "openai/test-model", "failed", client.run_id)
        assert cost == 2 * input + 8 * output > 0
        assert rows(running.database, "SELECT * FROM reservations") == []
        assert rows(running.database, "SELECT amount FROM spendings") == [(cost,)]
        run = (await running.client.get(f"/runs/{client.run_id}")).json()
        assert (run["status"], run["usage"]["cost"]) == ("failed", cost)
        state = (await running.client.get("/usage")).json()["budget"]
        assert (state["spent"], state["reserved"]) == (cost, 0)


async def test_what_can_not_be_booked_is_booked_when_the_database_is_back(
    priced_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, tried = Ledger.settle, asyncio.Event()

    async def busy(*_: object) -> None:
        tried.set()
        raise Unavailable("The database is busy.", code="storage_busy")

    usage = priced_server.services.usage.metering
    monkeypatch.setattr(Ledger, "settle", busy)
    async with usage.outside_run("local", "ses_1", "openai/test-model", Tokens(1_000, 500)) as used:
        used.append(ev.Usage(model="openai/test-model", purpose="title", input_tokens=10, output_tokens=5))
    await tried.wait()
    assert rows(priced_server, CALLS) == []
    monkeypatch.setattr(Ledger, "settle", settle)
    async with asyncio.timeout(10):
        while not (booked := rows(priced_server, CALLS)):
            await asyncio.sleep(0.05)
    assert [row[5] for row in booked] == [60]


async def test_what_could_not_be_booked_is_booked_at_the_stop(
    tmp_path: Path, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Ledger.settle

    async def busy(*_: object) -> None:
        raise Unavailable("The database is busy.", code="storage_busy")

    async with serving(tmp_path / "data", **priced(tmp_path, provider)) as server:
        monkeypatch.setattr(Ledger, "settle", busy)
        async with server.services.usage.metering.outside_run(
            "local", "ses_1", "openai/test-model", Tokens(1_000, 500)
        ) as used:
            used.append(ev.Usage(model="openai/test-model", purpose="title", input_tokens=10, output_tokens=5))
        monkeypatch.setattr(Ledger, "settle", settle)
    async with serving(tmp_path / "data", **priced(tmp_path, provider)) as server:
        assert [row[5] for row in rows(server, CALLS)] == [60]


async def test_deleting_a_session_leaves_its_calls(priced_server: Running) -> None:
    events = await priced_server.events(ask())
    await priced_server.client.delete(f"/sessions/{events[0]['session_id']}")
    assert len(rows(priced_server, CALLS)) == 1


# --- GET /usage


async def test_usage_adds_up_by_what_is_asked_for(priced_server: Running, provider: ProviderServer) -> None:
    first = await priced_server.events(ask())
    await priced_server.events(ask(session_id=first[0]["session_id"]))
    await priced_server.events(ask(model="simulated/words"))
    client = priced_server.client
    by_model = (await client.get("/usage", params={"by": "model"})).json()
    found = {item["key"]: (item["calls"], item["unknown_cost"]) for item in by_model["items"]}
    assert found == {"openai/test-model": (2, 0), "simulated/words": (1, 0)}
    assert by_model["total"]["calls"] == 3
    assert by_model["total"]["cost"] == sum(item["cost"] for item in by_model["items"])
    by_session = (await client.get("/usage", params={"by": "session"})).json()["items"]
    assert [item["calls"] for item in by_session] == [1, 2], "the latest first"
    (today,) = (await client.get("/usage")).json()["items"]
    assert today["last_at"].startswith(today["key"])
    by_run = [(await client.get("/usage", params={"by": "run", "limit": 2})).json()]
    by_run.append((await client.get("/usage", params={"by": "run", "cursor": by_run[0]["next_cursor"]})).json())
    assert [len(page["items"]) for page in by_run] == [2, 1]
    assert by_run[1]["next_cursor"] is None
    assert len({item["key"] for page in by_run for item in page["items"]}) == 3


async def test_usage_has_a_span(priced_server: Running) -> None:
    await priced_server.events(ask())
    client = priced_server.client
    before = (await client.get("/usage", params={"from": "2020-01-01", "to": "2020-02-01"})).json()
    assert (before["from"], before["to"]) == ("2020-01-01T00:00:00.000Z", "2020-02-01T00:00:00.000Z")
    assert (before["items"], before["total"]["calls"], before["total"]["cost"]) == ([], 0, None)
    zoned = (await client.get("/usage", params={"from": "2020-01-01T00:00:00+02:00"})).json()
    assert zoned["from"] == "2019-12-31T22:00:00.000Z"
    assert zoned["total"]["calls"] == 1
    for wrong in ({"from": "2020-02-01", "to": "2020-02-01"}, {"from": "yesterday"}, {"by": "price"}):
        response = await client.get("/usage", params=wrong)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_request"), wrong


async def test_owners_see_their_own_and_admins_all(tmp_path: Path, provider: ProviderServer) -> None:
    bearer = {name: {"Authorization": f"Bearer {key}"} for name, key in (e.split(":") for e in KEYS.split(","))}
    more = {"api_keys": KEYS, "usage_admins": "alice", "budgets": "bob=3/week"}
    async with serving(tmp_path / "data", **priced(tmp_path, provider, **more)) as server:

        async def usage(name: str, **params: str) -> Any:
            return await server.client.get("/usage", params=params, headers=bearer[name])

        await server.events(ask(), headers=bearer["bob"])
        assert (await usage("alice")).json()["total"]["calls"] == 0
        assert (await usage("alice")).json()["budget"] is None
        seen = (await usage("alice", owner="bob")).json()
        assert seen == {**(await usage("bob", **{"to": seen["to"], "from": seen["from"]})).json()}
        assert (seen["total"]["calls"], seen["budget"]["limit"], seen["budget"]["period"]) == (1, 3_000_000, "week")
        everybody = (await usage("alice", owner="*", by="owner")).json()
        assert [item["key"] for item in everybody["items"]] == ["bob"]
        assert everybody["budget"] is None
        assert (await usage("bob", owner="bob")).status_code == 200
        for params in ({"owner": "alice"}, {"owner": "*"}, {"by": "owner"}):
            refused = await usage("bob", **params)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), params
