"""A client of the server: plain sockets, chunked coding, and events decoded by httpx-sse, a parser that is not ours."""

import asyncio
import codecs
import json
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from httpx_sse._decoders import SSEDecoder, SSELineDecoder

from tests.faults.violation import Violation

TERMINAL = ("run.completed", "run.failed", "run.cancelled", "run.interrupted")
HEARTBEAT = b": hb\n"
_TIMEOUT = 30.0


class ShuttingDown(ConnectionError):
    """The server takes no new runs: it is as good as gone."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it came: decoded, its bytes, and when (seconds of the monotonic clock)."""

    id: str
    data: dict[str, Any]
    frame: bytes
    at: float

    @property
    def seq(self) -> int:
        return self.data["seq"]

    @property
    def type(self) -> str:
        return self.data["type"]

    @property
    def text(self) -> str:
        """What it adds to the answer."""
        return self.data.get("text", "") if self.type == "text.delta" else ""


def joined(events: list[Event]) -> bytes:
    """The bytes of these events."""
    return b"".join(e.frame for e in events)


def text_of(events: list[Event]) -> str:
    """The answer as these events have it."""
    return "".join(e.text for e in events)


class Response:
    """An answer whose head has been read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._reader, self._writer = reader, writer

    async def read_head(self) -> None:
        head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        self.status = int(first.split(" ", 2)[1])
        self.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}

    @property
    def run_id(self) -> str:
        return self.headers["content-location"].removeprefix("/runs/")

    async def piece(self) -> bytes:
        """More of the body; empty at its end. Raises ConnectionError when it was cut."""
        try:
            if self.headers.get("transfer-encoding") == "chunked":
                size = int(await self._reader.readuntil(b"\r\n"), 16)
                data = await self._reader.readexactly(size + 2)
                return data[:-2]
            left = int(self.headers.get("content-length", 0))
            self.headers["content-length"] = "0"
            return await self._reader.readexactly(left)
        except asyncio.IncompleteReadError:
            raise ConnectionResetError("cut in the middle of the body") from None

    async def json(self) -> Any:
        """The body as JSON; the connection is closed."""
        async with asyncio.timeout(_TIMEOUT):
            body = b""
            while data := await self.piece():
                body += data
        await self.close()
        return json.loads(body)

    def leave(self, reset: bool) -> None:
        """Go away at once: with a reset, or in order."""
        if reset:
            sock: socket.socket = self._writer.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self._writer.transport.abort()
        else:
            self._writer.close()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


class Stream:
    """One client of an event stream. Events are taken one by one: it can leave after any of them."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self.events: list[Event] = []
        self.ended = False
        self._ahead: list[Event] = []
        self._rest = b""
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._lines = SSELineDecoder()
        self._decoder = SSEDecoder()

    @property
    def run_id(self) -> str:
        return self.response.run_id

    @property
    def cursor(self) -> str:
        """The id to come back with."""
        return self.events[-1].id if self.events else f"{self.run_id}:0"

    async def next(self) -> Event | None:
        """The next event; None at the end of the body. Raises ConnectionError when it was cut."""
        if self.ended and not self._ahead:
            return None
        async with asyncio.timeout(_TIMEOUT):
            while not self._ahead:
                data = await self.response.piece()
                if not data:
                    if self._rest.replace(HEARTBEAT, b""):
                        raise Violation("framing", f"the stream ended inside an event: {self._rest[-200:]!r}")
                    self.ended = True
                    await self.response.close()
                    return None
                self._decode(data)
        event = self._ahead.pop(0)
        self.events.append(event)
        return event

    async def upto(self, count: int) -> bool:
        """Reads until it has so many events; False when the stream ended before."""
        while len(self.events) < count:
            if await self.next() is None:
                return False
        return True

    async def until(self, type: str) -> None:
        """Reads until an event of that type has come. Raises Violation when the stream ends without it."""
        while not any(e.type == type for e in self.events):
            if await self.next() is None:
                raise Violation("terminal", f"the stream ended without {type}: {[e.type for e in self.events]}")

    async def rest(self) -> list[Event]:
        """All of its events, when the body has ended."""
        while await self.next() is not None:
            pass
        return self.events

    def leave(self, reset: bool = False) -> None:
        """Go away after the last event that was taken; what has come beyond it is lost."""
        self.response.leave(reset)

    def _decode(self, data: bytes) -> None:
        now = time.monotonic()
        *frames, self._rest = (self._rest + data).split(b"\n\n")
        found = []
        for line in self._lines.decode(self._utf8.decode(data)):
            event = self._decoder.decode(line)
            if event is not None:
                found.append(event)
        if len(found) != len(frames):
            raise Violation("framing", f"{len(found)} events by httpx-sse in {len(frames)} frames: {data[:300]!r}")
        for event, frame in zip(found, frames, strict=True):
            self._ahead.append(Event(event.id, json.loads(event.data), _bare(frame) + b"\n\n", now))


def _bare(frame: bytes) -> bytes:
    """Without the heartbeats before it: they are not the log's."""
    while frame.startswith(HEARTBEAT):
        frame = frame[len(HEARTBEAT) :]
    return frame


class Client:
    """Requests to the server on that port, one connection each."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        buffer: int | None = None,
    ) -> Response:
        """The response's head is read; `buffer` limits what the socket takes in unread, in bytes."""
        sock = socket.socket()
        sock.setblocking(False)
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(sock, ("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        limit = 65_536 if buffer is None else buffer
        reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Connection: close"]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        response = Response(reader, writer)
        try:
            async with asyncio.timeout(_TIMEOUT):
                await response.read_head()
        except asyncio.IncompleteReadError:
            writer.close()
            raise ConnectionResetError("no answer") from None
        return response

    async def json(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The JSON of an answer that must be 200."""
        response = await self.request(method, path, body, headers)
        found = await response.json()
        if response.status != 200:
            raise Violation("status", f"{method} {path}: {response.status} {found}")
        return found

    async def ask(self, message: str, key: str | None = None, **more: Any) -> Stream:
        """POST /chat, which must be accepted."""
        headers = {"Idempotency-Key": key} if key is not None else {}
        body = {"message": message, "documents": False, **more}
        return await self._stream(await self.request("POST", "/chat", body, headers))

    async def watch(self, run_id: str, cursor: str | None = None, *, after: int | None = None) -> Stream:
        """GET a run's events, which must be there."""
        query = "" if after is None else f"?after={after}"
        headers = {} if cursor is None else {"Last-Event-ID": cursor}
        return await self._stream(await self.request("GET", f"/runs/{run_id}/events{query}", headers=headers))

    async def _stream(self, response: Response) -> Stream:
        if response.status == 204:
            stream = Stream(response)
            stream.ended = True
            await response.close()
            return stream
        if response.status != 200:
            problem = await response.json()
            if problem.get("code") == "shutdown":
                raise ShuttingDown(problem)
            raise Violation("status", f"{response.status} instead of a stream: {problem}")
        return Stream(response)
