"""Coming back: the joined stream is the uninterrupted one, byte for byte."""

import asyncio
import io
import logging
import socket
from typing import cast

import httpx
import psutil
import pytest

from backend.kit.times import now_ms
from backend.services.runs.log import MemoryLog
from tests.scenarios.support import ask, frozen, gated, only_terminal, rows, watch
from tests.support.harness import Running, serving
from tests.support.provider_protocol import Send, answer, chunk, done
from tests.support.provider_server import ProviderServer

SIMULATED = ask(model="simulated/words")
LONG = {"max_answer_mb": 10}
CONTRACT = b"# Terms\n\nThe notice period is 45 days. Invoices are due in 30 days."


async def raw(client: httpx.AsyncClient, path: str, **kwargs) -> bytes:
    """The bytes of a run's stream."""
    async with client.stream("GET", path, **kwargs) as response:
        assert response.status_code == 200, await response.aread()
        return b"".join([piece async for piece in response.aiter_raw()])


def frames(body: bytes) -> list[bytes]:
    assert body.endswith(b"\n\n")
    return [frame + b"\n\n" for frame in body[:-2].split(b"\n\n")]


def cursor_of(frame: bytes) -> str:
    return frame.split(b"\n")[1].removeprefix(b"id: ").decode()


async def finished(server: Running, body: dict | None = None) -> tuple[str, list[bytes]]:
    """The path of a finished run's events, and its frames as the POST gave them."""
    async with server.client.stream("POST", "/chat", json=body or SIMULATED) as response:
        return response.headers["location"], frames(b"".join([p async for p in response.aiter_raw()]))


async def test_a_finished_run_cut_after_any_event_is_whole_when_joined(
    with_provider: Running, provider: ProviderServer
) -> None:
    await with_provider.upload("contract.md", CONTRACT)
    provider.script(answer("The notice period is 45 days [1]. Grüße 🌍 [1].", chunk_by=4))
    path, whole = await finished(with_provider, {"message": "How long is the notice period?"})
    assert len(whole) > 10
    for index, frame in enumerate(whole[:-1], 1):
        rest = await raw(with_provider.client, path, headers={"Last-Event-ID": cursor_of(frame)})
        assert whole[:index] + frames(rest) == whole
        assert await raw(with_provider.client, path, params={"after": index}) == rest
    assert frames(await raw(with_provider.client, path)) == whole


async def test_a_live_run_cut_after_any_event_is_whole_when_joined(
    with_provider: Running, provider: ProviderServer
) -> None:
    gate = asyncio.Event()
    provider.script(gated("one two three four", gate, " five six seven"))
    client = with_provider.client
    async with watch(client, body=ask()) as first:
        await first.text("four")
        path = f"/runs/{first.run_id}/events"
        head = len(first.events)
        tasks = [asyncio.create_task(raw(client, path, params={"after": after})) for after in range(head + 1)]
        stored = with_provider.services.runs.hub.live("local", first.run_id)
        assert stored is not None
        async with asyncio.timeout(5):
            while len(cast(MemoryLog, stored.log)._waiters) < head + 2:  # all of them have caught up and wait
                await asyncio.sleep(0.005)
        gate.set()
        bodies = await asyncio.gather(*tasks)
        await first.all()
    whole = frames(bodies[0])
    for after, body in enumerate(bodies):
        assert whole[:after] + frames(body) == whole
    assert frames(await raw(client, path)) == whole, "what is stored differs from what was live"


async def test_last_event_id_wins_over_after(server: Running) -> None:
    path, whole = await finished(server)
    headers = {"Last-Event-ID": cursor_of(whole[-2])}
    assert await raw(server.client, path, headers=headers, params={"after": "1"}) == whole[-1]


async def test_an_empty_last_event_id_is_none_at_all(server: Running) -> None:
    path, whole = await finished(server)
    assert frames(await raw(server.client, path, headers={"Last-Event-ID": ""})) == whole


async def test_terminal_delivered_is_204_on_get_and_an_empty_stream_on_post(server: Running) -> None:
    path, whole = await finished(server)
    headers = {"Last-Event-ID": cursor_of(whole[-1])}
    got = await server.client.get(path, headers=headers)
    assert (got.status_code, got.content) == (204, b"")
    posted = await server.client.post("/chat", headers=headers, json=SIMULATED)
    assert (posted.status_code, posted.content) == (200, b"")
    assert posted.headers["content-type"].startswith("text/event-stream")


async def test_a_post_with_a_cursor_resumes_and_starts_nothing(server: Running) -> None:
    _, whole = await finished(server)
    before = rows(server, "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM messages)")
    response = await server.client.post("/chat", headers={"Last-Event-ID": cursor_of(whole[4])}, json=SIMULATED)
    assert frames(response.content) == whole[5:]
    assert rows(server, "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM messages)") == before


@pytest.mark.parametrize("live", [True, False])
async def test_a_cursor_ahead_of_the_run_is_409(with_provider: Running, provider: ProviderServer, live: bool) -> None:
    gate = asyncio.Event()
    provider.script(gated("Hello", gate, " you"))
    if not live:
        gate.set()
    async with watch(with_provider.client, body=ask()) as client:
        await client.text("Hello")
        if not live:
            await client.all()
        response = await with_provider.client.get(f"/runs/{client.run_id}/events", params={"after": "999"})
        assert response.status_code == 409
        assert response.json()["code"] == "cursor_ahead"
        assert response.json()["head"] == len(client.events)
        gate.set()


async def test_a_malformed_or_foreign_cursor_is_400(server: Running) -> None:
    path, _ = await finished(server)
    run = path.split("/")[2]
    wrong = ["x", "5", "run_0:5", run, *(f"{run}:{seq}" for seq in ("", "-1", "1.0", "٣", "1:2", "9" * 40))]
    for cursor in wrong:
        response = await server.client.get(path, headers=[(b"Last-Event-ID", cursor.encode())])
        assert (response.status_code, response.json()["code"]) == (400, "bad_cursor"), cursor
    for after in ("x", "-1", "1.5", " 1", "", "1e3", "9" * 30):
        response = await server.client.get(path, params={"after": after})
        assert (response.status_code, response.json()["code"]) == (400, "bad_cursor"), after


async def test_an_unknown_run_is_404(server: Running) -> None:
    for path in ("/runs/run_none", "/runs/run_none/events"):
        response = await server.client.get(path)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert (await server.client.post("/runs/run_none/cancel")).status_code == 404
    posted = await server.client.post("/chat", json=SIMULATED, headers={"Last-Event-ID": "run_none:3"})
    assert posted.status_code == 404
    assert (await server.client.get("/sessions")).json()["items"] == []


async def test_a_post_with_a_malformed_cursor_starts_nothing(server: Running) -> None:
    for cursor in ("nonsense", ":3", "run_x:", "run_x:y"):
        response = await server.client.post("/chat", json=SIMULATED, headers={"Last-Event-ID": cursor})
        assert (response.status_code, response.json()["code"]) == (400, "bad_cursor")
    assert rows(server, "SELECT count(*) FROM runs") == [(0,)]


async def test_twenty_watchers_see_the_same(with_provider: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("one two three", gate, " four " * 50))
    client = with_provider.client
    async with watch(client, body=ask()) as first:
        await first.text("three")
        path = f"/runs/{first.run_id}/events"
        tasks = [asyncio.create_task(raw(client, path)) for _ in range(20)]
        gate.set()
        bodies = await asyncio.gather(*tasks)
        events = await first.all()
    assert len(set(bodies)) == 1
    assert len(frames(bodies[0])) == len(events)
    assert len(provider.calls) == 1


async def test_a_reader_that_takes_nothing_holds_nobody_and_is_dropped(tmp_path, provider: ProviderServer) -> None:
    size, count = 16_384, 400
    provider.script([*(chunk({"content": "x" * size}) for _ in range(count)), chunk({}, "stop"), done()])
    options = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url, **LONG}
    async with serving(tmp_path / "data", llm_model="openai/m", send_timeout=0.3, **options) as server:
        stuck = frozen(server.port)
        (run_id,) = await _first_run(server)
        async with watch(server.client, f"/runs/{run_id}/events") as reader:
            assert only_terminal(await reader.all())["type"] == "run.completed"
            assert sum(len(e.get("text", "")) for e in reader.events) == size * count
        stuck.setblocking(False)
        got = 0
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.5)  # longer than send_timeout
        async with asyncio.timeout(5):
            while piece := await _receive(loop, stuck):
                got += len(piece)
        stuck.close()
        assert got < size * count, "it was given all in spite of taking nothing"


async def test_a_frozen_reader_leaves_no_connection_behind(tmp_path, provider: ProviderServer) -> None:
    """Although it never reads nor closes: the server hangs up instead of waiting for it to take the rest."""
    provider.script([*(chunk({"content": "x" * 16_384}) for _ in range(400)), chunk({}, "stop"), done()])
    options = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url, **LONG}

    def connections() -> int:
        mine = psutil.Process().net_connections("tcp")
        return sum(c.laddr.port == server.port and c.status != psutil.CONN_LISTEN for c in mine)

    def watchers() -> bool:
        return any(t.get_name() in ("watch for leaving", "heartbeat") for t in asyncio.all_tasks())

    async with serving(tmp_path / "data", llm_model="openai/m", send_timeout=0.3, **options) as server:
        reader = frozen(server.port)
        await _first_run(server)
        before = connections()
        async with asyncio.timeout(5):
            while connections() >= before or watchers():
                await asyncio.sleep(0.05)
        reader.close()


async def test_a_reader_that_freezes_on_the_last_bytes_is_hung_up_on(tmp_path, provider: ProviderServer) -> None:
    """All of a replay is one write: only the end of the response waits for the reader."""
    provider.script([chunk({"content": "x" * 3_500_000}), chunk({}, "stop"), done()])
    options = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url, **LONG}
    async with serving(tmp_path / "data", llm_model="openai/m", send_timeout=0.3, **options) as server:
        path, _ = await finished(server, ask())
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", server.port))
            reader.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await asyncio.sleep(0.8)  # longer than send_timeout
            reader.setblocking(False)
            got = 0
            async with asyncio.timeout(5):
                while piece := await _receive(asyncio.get_running_loop(), reader):
                    got += len(piece)
        assert got < 3_500_000, "it was given all in spite of taking nothing"


async def test_a_reader_that_is_dropped_is_no_traceback_in_the_log(tmp_path, provider: ProviderServer) -> None:
    provider.script([*(chunk({"content": "x" * 16_384}) for _ in range(400)), chunk({}, "stop"), done()])
    options = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url, **LONG}
    async with serving(tmp_path / "data", llm_model="openai/m", send_timeout=0.3, **options) as server:
        (handler,) = (h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler)
        handler.setStream(logged := io.StringIO())
        stuck = frozen(server.port)
        (run_id,) = await _first_run(server)
        async with watch(server.client, f"/runs/{run_id}/events") as reader:
            await reader.all()
        await asyncio.sleep(0.5)  # longer than send_timeout
        stuck.close()
    assert "Traceback" not in logged.getvalue()


async def _receive(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    try:
        return await loop.sock_recv(sock, 65536)
    except ConnectionResetError:
        return b""


async def _first_run(server: Running) -> list[str]:
    async with asyncio.timeout(5):
        while not (found := rows(server, "SELECT id FROM runs")):
            await asyncio.sleep(0.01)
    return [row[0] for row in found]


async def test_a_log_past_its_life_answers_with_snapshot_and_terminal(
    with_provider: Running, provider: ProviderServer
) -> None:
    provider.script([Send(b": x\n\n"), *answer("Hello there.")])
    path, whole = await finished(with_provider, ask())
    await with_provider.services.runs.hub._archive.expire(now_ms() + 1_000)
    async with watch(with_provider.client, path) as late:
        snapshot, end = await late.all()
    assert (snapshot["type"], end["type"]) == ("snapshot", "run.completed")
    assert snapshot["seq"] == len(whole) + 1
    assert [p["text"] for p in snapshot["parts"]] == ["Hello there."]
    async with watch(with_provider.client, path, headers={"Last-Event-ID": cursor_of(whole[3])}) as late:
        assert [e["type"] for e in await late.all()] == ["snapshot", "run.completed"]
    done_with = await with_provider.client.get(path, headers={"Last-Event-ID": cursor_of(whole[-1])})
    assert done_with.status_code == 204, "who had the terminal event is told so, not that the cursor is ahead"
    last = await with_provider.client.get(path, headers={"Last-Event-ID": end["_id"]})
    assert last.status_code == 204
