"""SIGTERM: nobody is cut off without a last event, and the process goes. And the lock on DATA_DIR."""

import asyncio
import signal
import sqlite3
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from backend.storage.runs.turns import NewTurn, OpenedTurn, Turns
from tests.scenarios.processes import Process, process, using
from tests.scenarios.support import ask, frozen, gated, only_terminal, ordered, rows, watch
from tests.support.harness import ServerProcess, serving
from tests.support.provider_protocol import Stall, chunk
from tests.support.provider_server import ProviderServer


def terminate(running: Process, sent: signal.Signals = signal.SIGTERM) -> None:
    assert running.server.process is not None
    running.server.process.send_signal(sent)


async def exited(running: Process, timeout: float = 10) -> tuple[int, str]:
    """The exit code and the log, within the time that is promised."""
    assert running.server.process is not None
    _, logged = await asyncio.to_thread(running.server.process.communicate, None, timeout)
    return running.server.process.returncode, logged


async def refused(running: Process) -> None:
    """Asks until a new run is refused, and checks how."""
    async with asyncio.timeout(5):
        while True:
            async with running.client.stream("POST", "/chat", json=ask()) as response:
                if response.status_code != 200:
                    await response.aread()
                    assert response.status_code == 503, response.text
                    assert response.json()["code"] == "shutdown"
                    assert int(response.headers["retry-after"]) >= 1
                    return


async def test_fifty_live_streams_each_get_one_last_event(tmp_path: Path, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("Almost", gate, " there."), *[[chunk({"content": "Half"}), Stall()]] * 60)
    async with process(tmp_path / "data", using(provider, SHUTDOWN_GRACE="2")) as running, AsyncExitStack() as stack:
        clients = []
        for text in ("Almost", *["Half"] * 49):
            clients.append(await stack.enter_async_context(watch(running.client, body=ask())))
            await clients[-1].text(text)
        terminate(running)
        await refused(running)
        gate.set()
        assert only_terminal(await clients[0].all())["type"] == "run.completed", "it ended within the grace"
        for client in clients[1:]:
            events = await client.all()
            ordered(events)
            end = only_terminal(events)
            assert (end["type"], end["error"]["code"], end["error"]["retryable"]) == ("run.failed", "shutdown", True)
        code, logged = await exited(running)
        assert code == 0, logged
        assert "Traceback" not in logged
        database = running.database
    assert rows(database, "SELECT count(*) FROM runs WHERE status NOT IN ('failed', 'completed')") == [(0,)]
    assert rows(database, "SELECT count(*) FROM messages WHERE status = 'partial'") >= [(49,)]


async def test_frozen_sockets_do_not_hold_it(tmp_path: Path, provider: ProviderServer) -> None:
    flood = [chunk({"content": "x" * 16_384}) for _ in range(400)]
    provider.script(*[[*flood, Stall()]] * 5)
    async with process(tmp_path / "data", using(provider, SHUTDOWN_GRACE="2")) as running, AsyncExitStack() as stack:
        for number in range(5):
            stack.callback(frozen(running.server.port).close)
            await provider.call(number)
        await asyncio.sleep(0.5)
        terminate(running)
        async with asyncio.timeout(10):
            code, logged = await exited(running)
        assert code == 0, logged
        assert "Traceback" not in logged
    assert rows(running.database, "SELECT DISTINCT status FROM runs") == [("failed",)]


async def test_who_watches_a_document_does_not_hold_it(tmp_path: Path, provider: ProviderServer) -> None:
    env = using(provider, EMBEDDING_MODEL="openai/text-embedding-3-small", SHUTDOWN_GRACE="0.2")
    async with process(tmp_path / "data", env) as running:
        provider.script([Stall()], path="/v1/embeddings")
        files = {"file": ("notes.md", b"# Notes\n\nThe notice period is 45 days.")}
        document = (await running.client.post("/documents/upload", files=files)).json()
        async with running.client.stream("GET", f"/documents/{document['id']}/events") as watching:
            lines = watching.aiter_lines()
            assert "document" in await anext(lines)
            terminate(running)
            async with asyncio.timeout(10):
                assert [line async for line in lines][-1] == "", "ended in order"
            code, logged = await exited(running)
        assert code == 0, logged
        assert "Traceback" not in logged


async def test_a_third_signal_waits_for_nothing(tmp_path: Path, provider: ProviderServer) -> None:
    """Here for a run that can't be stored: another program holds the database."""
    provider.script([chunk({"content": "Half"}), Stall()])
    async with (
        process(tmp_path / "data", using(provider, SHUTDOWN_GRACE="60")) as running,
        watch(running.client, body=ask()) as client,
    ):
        await client.text("Half")
        other = sqlite3.connect(running.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        for _ in range(3):
            terminate(running)
            await asyncio.sleep(0.2)
        await exited(running)
        other.close()
        assert time.monotonic() - began < 4.5, "the lock would have been waited for, 5 s"


async def test_a_second_signal_does_not_wait_for_the_grace(tmp_path: Path, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "Half"}), Stall()])
    async with (
        process(tmp_path / "data", using(provider, SHUTDOWN_GRACE="60")) as running,
        watch(running.client, body=ask()) as client,
    ):
        await client.text("Half")
        terminate(running, signal.SIGINT)
        await refused(running)
        terminate(running, signal.SIGINT)
        code, logged = await exited(running)
        assert code == 0, logged


async def test_what_a_stopped_run_had_said_is_there_after_the_start(tmp_path: Path, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "Half"}), Stall()])
    options = _options(provider)
    async with serving(tmp_path / "data", **options) as server, watch(server.client, body=ask()) as client:
        await client.text("Half")
        await server.services.runs.hub.close(0)
        events = await client.all()
    path = f"/runs/{client.run_id}/events"
    async with serving(tmp_path / "data", **options) as server, watch(server.client, path) as again:
        assert await again.all() == events
    assert only_terminal(events)["error"]["code"] == "shutdown"


async def test_a_run_that_begins_while_the_hub_closes_is_ended_too(
    tmp_path: Path, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place was taken before the signal, its message is stored after."""
    provider.script([Stall()])
    async with serving(tmp_path / "data", **_options(provider)) as server:
        stored = Turns.open

        async def stored_late(turns: Turns, turn: NewTurn) -> OpenedTurn:
            opened = await stored(turns, turn)
            await server.services.runs.hub.close(0)
            return opened

        monkeypatch.setattr(Turns, "open", stored_late)
        async with watch(server.client, body=ask()) as client:
            assert only_terminal(await client.all(timeout=5))["error"]["code"] == "shutdown"


def _options(provider: ProviderServer) -> dict[str, str]:
    return {
        "openai_api_key": "sk-test-0123456789",
        "openai_base_url": provider.base_url,
        "llm_model": "openai/test-model",
    }


async def test_a_second_server_on_the_same_data_is_refused_and_works_when_the_first_is_gone(
    tmp_path: Path, provider: ProviderServer
) -> None:
    async with process(tmp_path / "data", using(provider)) as running:
        second = ServerProcess(tmp_path / "data", using(provider))
        second.start(wait=False)
        assert second.process is not None
        _, logged = await asyncio.to_thread(second.process.communicate, None, 30)
        assert second.process.returncode not in (0, None)
        lines = logged.strip().splitlines()
        assert len(lines) == 1, logged
        assert "DATA_DIR" in lines[0]
        assert "in use" in lines[0]
        assert (await running.client.get("/health")).status_code == 200, "the first one is unharmed"
        running.server.kill()
        third = ServerProcess(tmp_path / "data", using(provider))
        try:
            await asyncio.to_thread(third.start)
        finally:
            code, logged = await asyncio.to_thread(third.stop)
        assert code == 0, logged
        assert "Traceback" not in logged
