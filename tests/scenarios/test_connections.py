"""Hostile connections: heads and bodies that are too large, too slow or ambiguous, and too many connections."""

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from tests.support.harness import Running, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEAD = b"Host: localhost\r\n"
CHAT = b"POST /chat HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\n"
PATIENCE = 30


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    async with serving(tmp_path_factory.mktemp("connections") / "data") as running:
        yield running


async def answers(port: int, *pieces: bytes, wait: float = 0.0) -> bytes:
    """Everything that the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(wait)
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    finally:
        writer.close()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def code(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower(), head
    assert b"content-type: application/problem+json" in head.lower(), head
    problem = json.loads(body)
    assert f"x-request-id: {problem['request_id']}".encode() in head.lower()
    assert problem["status"] == status(answer)
    return problem["code"]


async def is_alive(server: Running) -> bool:
    return (await server.client.get("/health")).status_code == 200


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET /health HTTP/1.1\r\n" + HEAD + b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n", (431, "headers_too_large")),
        (b"GET /health HTTP/1.1\r\n" + HEAD + b"X-Short: a\r\n" * 1000 + b"\r\n", (431, "headers_too_large")),
        (b"GET /health HTTP/1.1\r\n" + HEAD + b"a" * 70_000 + b": b\r\n\r\n", (431, "headers_too_large")),
        (
            b"GET /health HTTP/1.1\r\n" + HEAD + (b"X-M: " + b"a" * 3000 + b"\r\n") * 30 + b"\r\n",
            (431, "headers_too_large"),
        ),
        (b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", (414, "url_too_long")),
        (b"GET /?q=" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", (414, "url_too_long")),
        (CHAT + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: a\r\n" * 1000 + b"\r\n", (431, "headers_too_large")),
        (CHAT + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"e" * 200_000, (431, "headers_too_large")),
        (b"FOO / HTTP/1.1\r\n" + HEAD + b"\r\n", (501, "not_implemented")),
        (b"CONNECT a:443 HTTP/1.1\r\n" + HEAD + b"\r\n", (501, "not_implemented")),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400, "bad_request")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505, "http_version")),
        (b"GET / HTTP/3.0\r\n" + HEAD + b"\r\n", (505, "http_version")),
        (b"GET / HTTP/1.1\r\n\r\n", (400, "bad_request")),
        (b"GET / HTTP/1.1\r\n" + HEAD + HEAD + b"\r\n", (400, "bad_request")),
        (b"GET http://localhost HTTP/1.1\r\n" + HEAD + b"\r\n", (400, "bad_request")),
        (b"GET / HTTP/1.1\nHost: localhost\n\n", (400, "bad_request")),
        (b"GET / HTTP/1.1\r\n" + HEAD + b"X: a\r\n b\r\n\r\n", (400, "bad_request")),
        (CHAT + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400, "bad_request")),
        (CHAT + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", (400, "bad_request")),
        (CHAT + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", (400, "bad_request")),
        (CHAT + b"Content-Length: +5\r\n\r\nhello", (400, "bad_request")),
        (CHAT + b"Content-Length: 99999999999999999999999\r\n\r\n", (400, "bad_request")),
        (CHAT + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", (400, "bad_request")),
        (CHAT + b"Transfer-Encoding: identity\r\n\r\nhello", (501, "not_implemented")),
        (CHAT + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", (501, "not_implemented")),
        (CHAT.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400, "bad_request")),
        (CHAT + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", (400, "bad_request")),
    ],
)
async def test_a_request_is_refused_before_the_application_sees_it(
    server: Running, request_: bytes, expected: tuple[int, str]
) -> None:
    answer = await answers(server.port, request_)
    assert (status(answer), code(answer)) == expected
    assert await is_alive(server)


async def test_the_largest_head_and_url_are_accepted(server: Running) -> None:
    fields = (b"X-M: " + b"a" * 6000 + b"\r\n") * 10 + b"Connection: close\r\n"
    assert status(await answers(server.port, b"GET /health HTTP/1.1\r\n" + HEAD + fields + b"\r\n")) == 200
    url = b"/sessions/" + b"q" * 16_000
    answer = await answers(server.port, b"GET " + url + b" HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n")
    assert status(answer) == 404, "it was looked for"


@pytest.mark.parametrize("field", [b"X-Long: ", b"Cookie: ", b"Authorization: Bearer "])
async def test_a_huge_header_is_not_parsed(server: Running, field: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser, which copies a header for each piece, gets at most two pieces of it; the client gets its answer."""
    from backend.routers.edge.connection import HttpConnection

    read = 0
    original = HttpConnection._read

    def count(self: HttpConnection, piece: bytes) -> None:
        nonlocal read
        read += len(piece) if not self._is_deaf else 0
        original(self, piece)

    monkeypatch.setattr(HttpConnection, "_read", count)
    head = b"GET /health HTTP/1.1\r\n" + HEAD + field
    answer = await answers(server.port, head, *[b"a" * 1_000_000] * 20)
    assert (status(answer), code(answer)) == (431, "headers_too_large")
    assert read <= 3 * 65_536


async def test_the_body_of_a_refused_request_is_dropped_and_its_answer_arrives(server: Running) -> None:
    body = b"x" * 20_000_000
    answer = await answers(server.port, CHAT + b"Content-Length: 20000000\r\n\r\n" + body)
    assert (status(answer), code(answer)) == (413, "too_large")
    foreign = CHAT + b"Origin: https://evil.example\r\nContent-Length: 20000000\r\n\r\n"
    answer = await answers(server.port, foreign + body)
    assert (status(answer), code(answer)) == (403, "foreign_origin")


async def test_a_client_that_expects_100_sends_no_body_that_is_refused(server: Running) -> None:
    head = CHAT + b"Expect: 100-continue\r\n"
    answer = await answers(server.port, head + b"Content-Length: 20000000\r\n\r\n")
    assert status(answer) == 413
    answer = await answers(server.port, head + b"Connection: close\r\nContent-Length: 2\r\n\r\n", b"{}", wait=0.1)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 422 "), answer[:200]


async def test_a_request_to_change_the_protocol_is_answered_in_http(server: Running) -> None:
    for protocol in (b"websocket", b"h2c"):
        head = b"GET /health HTTP/1.1\r\n" + HEAD + b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n"
        answer = await answers(server.port, head + b"\x81\x05hello")
        assert status(answer) == 200 and b"connection: close" in answer.lower()


async def test_pipelined_requests_are_answered_in_order_and_not_without_limit(server: Running) -> None:
    one = b"GET /health HTTP/1.1\r\n" + HEAD + b"\r\n"
    answer = await answers(server.port, one * 3 + b"GET /nothing HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n")
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"200", b"404"]
    answer = await answers(server.port, one * 5000)
    assert 10 <= answer.count(b"HTTP/1.1 200") <= 50
    answer = await answers(server.port, one * 2 + b"garbage\r\n\r\n")
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200"]


async def test_a_chunked_body_is_read(server: Running) -> None:
    body = json.dumps({"message": "hi"}).encode()
    chunks = b"".join(b"1;e=x\r\n%c\r\n" % byte for byte in body) + b"0\r\nTrailer: x\r\n\r\n"
    answer = await answers(server.port, CHAT + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    assert status(answer) == 200 and b"run.completed" in answer
