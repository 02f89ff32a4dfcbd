"""Connections that keep the server waiting, and more connections than there are places."""

import asyncio
import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.scenarios.test_connections import CHAT, HEAD, answers, code, status
from tests.support.harness import ServerProcess, serving

GET = b"GET /health HTTP/1.1\r\n" + HEAD


async def test_what_comes_too_slowly_is_ended(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", head_timeout=0.4, body_timeout=0.4, keep_alive_timeout=0.4) as running:
        port = running.port
        silent, dripping, half, whole, chunk = await asyncio.gather(
            answers(port),
            answers(port, GET, *[b"X: a\r\n"] * 10, wait=0.1),
            answers(port, CHAT + b"Content-Length: 30\r\n\r\n", *[b"{"] * 2),
            answers(port, GET + b"\r\n"),
            answers(port, CHAT + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\n{\r\n"] * 10, wait=0.1),
        )
    assert silent == b"", "nobody asked for anything"
    for answer in (dripping, half, chunk):
        assert (status(answer), code(answer)) == (408, "request_timeout")
    assert status(whole) == 200, "an idle connection closes after the answer"


async def test_a_slow_upload_that_goes_on_is_read(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", body_timeout=0.4) as running:
        body = b'{"message": "' + b"a" * 3000 + b'"}'
        pieces = [body[start : start + 300] for start in range(0, len(body), 300)]
        head = CHAT + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        answer = await answers(running.port, head, *pieces, wait=0.1)
        assert status(answer) == 200 and b"run.completed" in answer


async def test_a_peer_has_a_number_of_connections(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", max_connections_per_peer=3) as running:
        with ExitStack() as stack:
            for _ in range(2):  # the client of `serving` has none yet
                stack.enter_context(socket.create_connection(("127.0.0.1", running.port)))
            assert (await running.client.get("/health")).status_code == 200
            answer = await answers(running.port, GET + b"\r\n")
            assert (status(answer), code(answer)) == (503, "too_many_connections")
        async with asyncio.timeout(10):
            while status(await answers(running.port, GET + b"Connection: close\r\n\r\n")) != 200:
                await asyncio.sleep(0.02)


async def test_if_all_places_are_taken_who_waits_gives_way_and_streams_stay(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", max_connections=3, stream_delay=0.05) as running:
        with ExitStack() as stack:
            half_open = [stack.enter_context(socket.create_connection(("127.0.0.1", running.port))) for _ in range(3)]
            for connection in half_open:
                connection.sendall(GET)
            assert (await running.client.get("/health")).status_code == 200
            await running.client.aclose()
        async with httpx.AsyncClient(base_url=running.base, timeout=30, trust_env=False) as client:
            body = {"message": "one two three", "model": "simulated/words"}
            async with asyncio.TaskGroup() as group:
                streams = [group.create_task(client.post("/chat", json=body)) for _ in range(3)]
                while running.services.runs.hub.live_count < 3:
                    await asyncio.sleep(0.01)
                assert status(await answers(running.port, GET + b"\r\n")) == 200, "probes are answered"
                answer = await answers(running.port, b"GET /models HTTP/1.1\r\n" + HEAD + b"\r\n")
                assert (status(answer), code(answer)) == (503, "too_many_connections")
            assert all("run.completed" in stream.result().text for stream in streams)


def test_descriptors_are_kept_back_for_the_server_itself(tmp_path: Path) -> None:
    """60 half-open requests to a server that may open 64 descriptors shut nobody out."""
    server = ServerProcess(tmp_path / "data")
    server.start(wait=False)
    assert server.process is not None
    # The process is still importing. This process itself may have more files open than that.
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (64, 64))
    with ExitStack() as stack:
        until_ready(server)
        for _ in range(60):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port))).sendall(GET)
        assert httpx.get(f"{server.base}/health", trust_env=False).status_code == 200
        upload = {"file": ("a.txt", b"The pier is closed in June.")}
        response = httpx.post(f"{server.base}/documents/upload?wait=true", files=upload, trust_env=False, timeout=30)
        assert response.json()["status"] == "ready", response.text
        body = {"message": "When is the pier closed?"}
        answer = httpx.post(f"{server.base}/chat", json=body, trust_env=False, timeout=30)
        assert "run.completed" in answer.text
    assert server.stop()[0] == 0


def until_ready(server: ServerProcess) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{server.base}/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError("the server did not start")
