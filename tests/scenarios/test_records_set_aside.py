"""One record that can't be stored or read: it is set aside, and other runs, leases and the shutdown go on."""

import asyncio
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.kit.times import now_ms
from backend.messages import MessagePart
from backend.services.runs import keep
from backend.services.runs.fold import RunFold
from backend.storage.runs.events import EventLines
from backend.storage.runs.turns import ClosedTurn, Turns
from tests.scenarios.support import ask, gated, messages, only_terminal, rows, said, watch
from tests.support.harness import Running, serving
from tests.support.provider_protocol import Send, answer, chunk, done
from tests.support.provider_server import ProviderServer

SIMULATED = ask(model="simulated/words", max_tokens=5)
BIG = 2**70


def poisoned_ends(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """From now on, ends of runs hold what SQLite can't store."""
    close = Turns.close

    async def poisoned(turns: Turns, turn: ClosedTurn) -> bool:
        calls = [replace(call, input_tokens=BIG) for call in turn.calls]
        return await close(turns, replace(turn, calls=calls) if turn.calls else turn)

    monkeypatch.setattr(Turns, "close", poisoned)


async def test_an_end_with_a_count_that_cant_be_stored_is_stored_without_it(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        poisoned_ends(patch)
        events = await server.events(SIMULATED)
        assert only_terminal(events)["error"]["code"] == "not_saved"
        await server.services.runs.hub._keeper.save_late()
    assert rows(server, "SELECT status FROM runs") == [("failed",)]
    assert rows(server, "SELECT count(*) FROM calls") == [(0,)]
    stored = await messages(server, events[0]["session_id"])
    assert said(stored[1]) != "", "the text is kept"
    assert only_terminal(await server.events(SIMULATED))["type"] == "run.completed"


async def test_an_end_that_cant_be_stored_at_all_stops_neither_leases_nor_shutdown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "LEASE_MS", 40)
    async with serving(tmp_path / "data", checkpoint_seconds=0.02) as server:
        close = Turns.close
        poisoned: list[str] = []

        async def broken(turns: Turns, turn: ClosedTurn) -> bool:
            if turn.run_id in poisoned:
                raise RuntimeError("a fault of ours")
            return await close(turns, turn)

        monkeypatch.setattr(Turns, "close", broken)
        async with watch(server.client, body=ask(model="simulated/words", max_tokens=5)) as client:
            poisoned.append(client.run_id)
            assert only_terminal(await client.all())["error"]["code"] == "not_saved"
        before = rows(server, "SELECT lease_until FROM runs")
        async with asyncio.timeout(5):
            while rows(server, "SELECT lease_until FROM runs") == before:
                await asyncio.sleep(0.02)
        assert only_terminal(await server.events(SIMULATED))["type"] == "run.completed"
        run = (await server.client.get(f"/runs/{poisoned[0]}")).json()
        assert (run["status"], run["error"]["code"]) == ("failed", "not_saved")
    monkeypatch.setattr(Turns, "close", close)
    async with serving(tmp_path / "data") as server:
        assert rows(server, "SELECT DISTINCT status FROM runs ORDER BY status") == [("completed",), ("failed",)]


async def test_events_that_cant_be_stored_hold_up_no_other_run(
    tmp_path: Path, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, gate, poisoned = Turns.append, asyncio.Event(), ""

    async def broken(turns: Turns, batch: list[EventLines]) -> None:
        if poisoned in [lines.run_id for lines in batch]:
            raise OverflowError("too large")
        await append(turns, batch)

    monkeypatch.setattr(Turns, "append", broken)
    provider.script(gated("One", gate, "more."), gated("Two", gate, "more."))
    options = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url}
    async with (
        serving(tmp_path / "data", llm_model="openai/m", checkpoint_seconds=60, **options) as server,
        watch(server.client, body=ask()) as one,
        watch(server.client, body=ask()) as two,
    ):
        await one.text("One")
        await two.text("Two")
        poisoned = one.run_id
        await server.services.runs.hub._keeper.checkpoint()
        stored = "SELECT count(*) FROM run_events WHERE run_id = ?"
        assert rows(server, stored, two.run_id) == [(1,)]
        assert rows(server, stored, one.run_id) == [(0,)]
        gate.set()
        assert only_terminal(await two.all())["type"] == "run.completed"
        assert only_terminal(await one.all())["type"] == "run.completed", "its end holds its events"


async def test_a_log_that_cant_be_shortened_is_passed_by(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.services.runs.archive._lines", _refusing := Refusing())
    ids = [(await server.events(SIMULATED))[0]["run_id"] for _ in range(3)]
    _refusing.run_id = ids[0]
    archive = server.services.runs.hub._archive
    await archive.expire(now_ms() + 1_000)
    whole = "SELECT run_id FROM run_events WHERE first_seq = 1"
    assert rows(server, whole) == [(ids[0],)]
    assert await server.services.runs.turns.expired_logs(now_ms() + 1_000, archive._set_aside) == []


class Refusing:
    """Makes the lines of a log, except for one run."""

    def __init__(self) -> None:
        from backend.services.runs.archive import _lines

        self.lines, self.run_id = _lines, ""

    def __call__(self, run_id: str, *arguments: Any) -> EventLines:
        if run_id == self.run_id:
            raise RuntimeError("a fault of ours")
        return self.lines(run_id, *arguments)


def damage(server: Running, run_id: str, change: "Any") -> None:
    """Changes the stored lines of a run, as a broken disk does."""
    connection = sqlite3.connect(server.services.settings.storage.database_path)
    with connection:
        for seq, lines in connection.execute("SELECT first_seq, lines FROM run_events WHERE run_id = ?", (run_id,)):
            sql = "UPDATE run_events SET lines = ? WHERE run_id = ? AND first_seq = ?"
            connection.execute(sql, (change(bytes(lines)), run_id, seq))
    connection.close()


def replace_line(number: int, by: bytes) -> "Any":
    def change(lines: bytes) -> bytes:
        events = lines.split(b"\n")
        events[number] = by
        return b"\n".join(events)

    return change


BROKEN = [b"\x00\xff\x00", b'{"type":"text.delta","seq":4,"part_id":"p1","text":"\xff\xfe"}', b"", b'{"type":"x', b"[]"]


@pytest.mark.parametrize("by", BROKEN, ids=["bytes", "no utf-8", "empty", "cut", "no event"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, -2, -1])
async def test_a_damaged_event_hides_no_other(
    with_provider: Running, provider: ProviderServer, by: bytes, number: int
) -> None:
    provider.script(answer("One two three."))
    whole = await with_provider.events(ask())
    run_id = whole[0]["run_id"]
    damage(with_provider, run_id, replace_line(number, by))
    path, client = f"/runs/{run_id}/events", with_provider.client
    async with watch(client, path) as again:
        events = await again.all()
    lost = whole[number]["seq"]
    kept = [e for e in events if e["seq"] != lost]
    assert kept == [e for e in whole if e["seq"] != lost]
    assert events[-1]["type"] == "run.completed"
    assert events[-1]["seq"] == whole[-1]["seq"]
    for after in (1, 3, whole[-2]["seq"]):
        async with watch(client, path, headers={"Last-Event-ID": f"{run_id}:{after}"}) as resumed:
            assert await resumed.all() == [e for e in events if e["seq"] > after]
    for params in ({"format": "text"}, {"format": "text", "after": "3"}):
        assert (await client.get(path, params=params)).status_code == 200
    folded = await client.get(path, headers={"Accept": "application/json"})
    assert (folded.status_code, folded.json()["run_id"]) == (200, run_id)
    await with_provider.services.runs.hub._archive.expire(now_ms() + 1_000)
    async with watch(client, path) as short:
        assert [e["type"] for e in await short.all()] == ["snapshot", "run.completed"]


async def test_a_row_with_too_few_lines_hides_no_later_row(with_provider: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("One two", gate, "three."))
    async with watch(with_provider.client, body=ask()) as client:
        await client.text("two")
        await with_provider.services.runs.hub._keeper.checkpoint()
        gate.set()
        whole = await client.all()
    damage(with_provider, client.run_id, lambda lines: lines.replace(b"\n", b" ") if b"run.started" in lines else lines)
    async with watch(with_provider.client, f"/runs/{client.run_id}/events") as again:
        events = await again.all()
    assert events[-1] == whole[-1]
    assert "three." in "".join(e.get("text", "") for e in events)


async def test_a_log_that_is_gone_still_has_an_end(server: Running) -> None:
    whole = await server.events(SIMULATED)
    run_id = whole[0]["run_id"]
    connection = sqlite3.connect(server.services.settings.storage.database_path)
    with connection:
        connection.execute("DELETE FROM run_events")
    connection.close()
    async with watch(server.client, f"/runs/{run_id}/events") as again:
        assert [e["type"] for e in await again.all()] == ["run.completed"]


async def test_an_answer_that_cant_be_encoded_still_ends(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = RunFold.message_parts

    def refuse(fold: RunFold) -> list[MessagePart]:
        if fold.has_text:
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        return parts(fold)

    with monkeypatch.context() as patch:
        patch.setattr(RunFold, "message_parts", refuse)
        events = await server.events(SIMULATED)
    assert only_terminal(events)["error"]["code"] == "not_saved"
    await server.services.runs.hub._keeper.save_late()
    assert rows(server, "SELECT status FROM runs") == [("failed",)]


async def test_absurd_counts_and_reasons_of_a_provider_end_in_a_complete_answer(
    with_provider: Running, provider: ProviderServer
) -> None:
    """Next to them, `/usage` still adds up."""
    absurd = 2**62
    finish = json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": absurd, "completion_tokens": absurd}})
    end: dict[str, Any] = {}
    for _ in range(3):
        script = [
            chunk({"content": "Hi."}),
            Send(f"data: {finish}\n\n".encode()),
            Send(f"data: {usage}\n\n".encode()),
            done(),
        ]
        provider.script(script)
        events = await with_provider.events(ask())
        end = only_terminal(events)
        assert (end["type"], end["usage"]["estimated"]) == ("run.completed", True)
        assert 0 < end["usage"]["input_tokens"] < 1000
    report = (await with_provider.client.get("/usage")).json()
    assert report["total"]["input_tokens"] == 3 * end["usage"]["input_tokens"]
