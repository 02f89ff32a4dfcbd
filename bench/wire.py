"""The light client, for measures with very many streams: a protocol that passes on the bytes of one answer.

HTTP is taken apart by httptools; nothing is decoded, so the client stays out of the server's way. `load.py` decodes.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httptools

from .process import BenchError

Sink = Callable[[bytes], None]


class Answer(asyncio.Protocol):
    """One request and its answer, whose body goes to `sink` as it comes."""

    def __init__(self, request: bytes, sink: Sink) -> None:
        self._request = request
        self.on_body = sink
        self._parser = httptools.HttpResponseParser(self)  # it looks its callbacks up now
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"a connection was lost before its answer's end: {exc!r}")

    # --- what httptools calls

    def on_headers_complete(self) -> None:
        if (status := self._parser.get_status_code()) != 200:
            self._fail(f"a stream was refused with {status}")
        elif not self.begun.done():
            self.begun.set_result(None)

    def on_message_complete(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        self._transport.close()

    # ---

    def _fail(self, reason: str) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_exception(BenchError(reason))
                future.exception()  # looked at here, since only one of the two may be awaited


async def post(port: int, path: str, body: Any, sink: Sink) -> Answer:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return await _ask(port, f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data, sink)


async def get(port: int, path: str, sink: Sink) -> Answer:
    return await _ask(port, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode(), sink)


async def _ask(port: int, request: bytes, sink: Sink) -> Answer:
    loop = asyncio.get_running_loop()
    _, answer = await loop.create_connection(lambda: Answer(request, sink), "127.0.0.1", port)
    return answer
