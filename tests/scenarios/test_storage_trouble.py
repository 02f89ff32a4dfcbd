"""When the database fails at the end of a run: never a false completion."""

import asyncio

import pytest

from backend.errors import StorageFull, Unavailable
from backend.services.answers.request import AnswerRequest
from backend.storage.runs.turns import ClosedTurn, NewTurn, OpenedTurn, Turns
from tests.scenarios.support import ask, gated, messages, only_terminal, rows, said, watch
from tests.support.harness import Running, serving
from tests.support.provider_server import ProviderServer

SIMULATED = ask(model="simulated/words", max_tokens=5)


class Failing:
    """`Turns.close` that fails until it is told not to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception, times: int | None = None) -> None:
        self.error = error
        self.left = times
        self.close = Turns.close
        outer = self

        async def close(turns: Turns, turn: ClosedTurn) -> bool:
            if outer.left is None or outer.left > 0:
                outer.left = outer.left and outer.left - 1
                raise outer.error
            return await outer.close(turns, turn)

        monkeypatch.setattr(Turns, "close", close)


ERRORS = [Unavailable("locked", code="storage_busy"), StorageFull("full"), RuntimeError("a fault of ours")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
async def test_an_end_that_cannot_be_stored_is_never_a_completion(
    server: Running, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    Failing(monkeypatch, error)
    events = await server.events(SIMULATED)
    end = only_terminal(events)
    assert (end["type"], end["error"]["code"], end["error"]["retryable"]) == ("run.failed", "not_saved", True)
    run_id = events[0]["run_id"]
    async with watch(server.client, f"/runs/{run_id}/events") as again:
        assert await again.all() == events
    assert server.services.runs.hub._run_count == 0


async def test_what_was_told_is_stored_when_the_database_is_back(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(monkeypatch, Unavailable("locked"))
    events = await server.events(SIMULATED)
    run_id, session_id = events[0]["run_id"], events[0]["session_id"]
    failing.left = 0
    await server.services.runs.hub._keeper.save_late()
    assert server.services.runs.hub._runs == {}
    run = (await server.client.get(f"/runs/{run_id}")).json()
    assert (run["status"], run["error"]["code"]) == ("failed", "not_saved")
    async with watch(server.client, f"/runs/{run_id}/events") as again:
        assert await again.all() == events
    assert [m["status"] for m in await messages(server, session_id)] == ["complete", "partial"]


async def test_the_session_goes_on_afterwards(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    Failing(monkeypatch, Unavailable("locked"), times=1)
    first = await server.events(SIMULATED)
    second = await server.events({**SIMULATED, "session_id": first[0]["session_id"]})
    assert only_terminal(second)["type"] == "run.completed"
    shown = await messages(server, first[0]["session_id"])
    assert [m["role"] for m in shown][-2:] == ["user", "assistant"]


async def test_a_run_that_was_not_saved_is_not_said_to_be_running(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    Failing(monkeypatch, Unavailable("locked"))
    events = await server.events(SIMULATED)
    run = (await server.client.get(f"/runs/{events[0]['run_id']}")).json()
    assert run["status"] == "failed"
    cancelled = await server.client.post(f"/runs/{events[0]['run_id']}/cancel")
    assert cancelled.json()["status"] == "failed"


async def test_nothing_is_lost_by_a_server_that_stops_before_it_could_save(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path / "data") as server:
        failing = Failing(monkeypatch, Unavailable("locked"))
        events = await server.events(SIMULATED)
    failing.left = 0
    async with serving(tmp_path / "data") as server:
        run = (await server.client.get(f"/runs/{events[0]['run_id']}")).json()
        assert run["status"] == "failed"
        stored = await messages(server, events[0]["session_id"])
        assert said(stored[0]) == "Say something."
        response = await server.client.get(
            f"/runs/{events[0]['run_id']}/events", headers={"Last-Event-ID": events[-1]["_id"]}
        )
        assert response.status_code in (200, 204), "a client is not told that it is ahead"


async def test_a_caller_that_is_cancelled_while_its_turn_is_stored_leaves_a_run(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, reached, gate = Turns.open, asyncio.Event(), asyncio.Event()

    async def slow(turns: Turns, turn: NewTurn) -> OpenedTurn:
        opened = await opening(turns, turn)
        reached.set()
        await gate.wait()
        return opened

    monkeypatch.setattr(Turns, "open", slow)
    turn = AnswerRequest(message="Say something.", model="simulated/words")
    caller = asyncio.create_task(server.services.answers.start("local", turn, None))
    await reached.wait()
    caller.cancel()
    await asyncio.wait([caller])
    gate.set()
    async with asyncio.timeout(10):
        while rows(server, "SELECT status FROM runs") != [("completed",)]:
            await asyncio.sleep(0.02)
    assert server.services.runs.hub._run_count == 0


async def test_a_repetition_finds_the_run_of_a_caller_that_was_cancelled_before_it_was_stored(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, opening, reached, gate = server.services.answers, Turns.open, asyncio.Event(), asyncio.Event()
    session_id = (await server.events(ask(model="simulated/words")))[0]["session_id"]

    async def slow(turns: Turns, turn: NewTurn) -> OpenedTurn:
        reached.set()
        await gate.wait()
        return await opening(turns, turn)

    monkeypatch.setattr(Turns, "open", slow)
    turn = AnswerRequest(message="Say more.", model="simulated/words", session_id=session_id, idempotency_key="k")
    caller = asyncio.create_task(chat.start("local", turn, None))
    await reached.wait()
    caller.cancel()
    await asyncio.wait([caller])
    again = asyncio.create_task(chat.start("local", turn, None))
    await asyncio.sleep(0.1)
    gate.set()
    run_id = await again
    assert rows(server, "SELECT id FROM runs WHERE idempotency_key = 'k'") == [(run_id,)]


async def test_a_start_that_cannot_be_stored_is_503_and_calls_nobody(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> None:
        raise Unavailable("The database is busy.", code="storage_busy")

    monkeypatch.setattr(Turns, "open", gone)
    response = await server.client.post("/chat", json=SIMULATED)
    assert (response.status_code, response.json()["code"]) == (503, "storage_busy")
    assert int(response.headers["retry-after"]) >= 1
    assert server.services.runs.hub._run_count == 0
    assert rows(server, "SELECT count(*) FROM runs") == [(0,)]


async def test_a_checkpoint_that_fails_costs_nothing(
    with_provider: Running, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, gate = asyncio.Event(), asyncio.Event()

    async def gone(*_: object) -> None:
        failed.set()
        raise Unavailable("The database is busy.", code="storage_busy")

    provider.script(gated("Half", gate, " and whole."))
    async with watch(with_provider.client, body=ask()) as client:
        await client.text("Half")
        with monkeypatch.context() as patch:
            patch.setattr(Turns, "append", gone)
            with_provider.services.runs.hub._keeper.checkpoint_now.set()
            await asyncio.wait_for(failed.wait(), 5)
        gate.set()
        events = await client.all()
    assert only_terminal(events)["type"] == "run.completed"
    async with watch(with_provider.client, f"/runs/{client.run_id}/events") as again:
        assert await again.all() == events
