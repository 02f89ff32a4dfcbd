"""A model provider for tests, scripted byte by byte, on a free port of the loopback.

It speaks OpenAI's protocol (`/v1/chat/completions`, `/v1/embeddings`, `/v1/models`), Ollama's (`/api/chat`,
`/api/embed`, `/api/tags`, `/api/version`), Anthropic's (`/v1/messages`), Google's (`/v1beta/models`) and Cohere's
(`/v2/chat`) over plain sockets, so that a test decides which bytes leave in which write, where the connection
breaks, and what the server waits for::

    async with ProviderServer() as provider:
        gate = asyncio.Event()
        provider.script([chunk({"content": "Hel"}), Gate(gate), Cut()])
        ...                                    # OPENAI_BASE_URL=provider.base_url
        call = await provider.call(0)          # waits for the first chat request
        await call.disconnected()              # fails unless the client closed it before the end of the script

A chat request gets the next script of the queue, or the answer of `provider.default` if the queue is empty. One `Send`
is one chunk of the chunked coding and one write.
"""

import asyncio
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from tests.support.provider_protocol import (
    Cut,
    Gate,
    Raw,
    Script,
    Scripted,
    Send,
    Sleep,
    Stall,
    Status,
    answer,
    completion,
    embed,
    error,
    inputs,
    json_response,
    ollama_answer,
    openai_embeddings,
)
from tests.support.provider_vendors import anthropic_answer, cohere_answer, google_answer

_STREAM = Status(200, {"Content-Type": "text/event-stream; charset=utf-8"})
CHAT_PATHS = ("/v1/chat/completions", "/api/chat", "/v1/messages", "/v2/chat")
_GOOGLE_CHAT = ":streamGenerateContent"


# -- the server ------------------------------------------------------------------------------------


@dataclass
class Call:
    """One request, and how its connection ended."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    json: Any  # None without a body, or if the body is not JSON
    _end: "asyncio.Future[str]" = field(repr=False)  # "left" or "answered"

    @property
    def is_chat(self) -> bool:
        return self.path in CHAT_PATHS or self.path.endswith(_GOOGLE_CHAT)

    async def disconnected(self, timeout: float = 5) -> None:
        """Return when the client has closed the connection; fail if it reads the whole answer or doesn't close."""
        assert await self._ended(timeout) == "left", f"{self.path} was answered to its end, nobody left"

    async def answered(self, timeout: float = 5) -> None:
        """Return when the whole script was sent; fail if the client closes the connection before."""
        assert await self._ended(timeout) == "answered", f"the client of {self.path} left before the end"

    async def _ended(self, timeout: float) -> str:
        try:
            return await asyncio.wait_for(asyncio.shield(self._end), timeout)
        except TimeoutError:
            raise AssertionError(f"{self.path} is still open after {timeout} s") from None


class ProviderServer:
    """The server of this module. `calls` has the chat requests, `requests` has all requests, in order of arrival."""

    def __init__(
        self,
        text: str = "Hello from the provider.",
        models: Sequence[str] = ("test-model",),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._text = text
        self._tls = tls
        self._models = models
        self.reset()
        self.open_connections = 0
        self._arrived = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def reset(self) -> None:
        """Restore the state of a new server, for the next test: no calls, no scripts, the default answer."""
        self.requests: list[Call] = []
        self.calls: list[Call] = []
        self.models = list(self._models)
        text = self._text
        self.default: Callable[[Call], Script] = lambda call: _default_answer(call, text)
        self._scripts: dict[str, deque[Scripted]] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def root_url(self) -> str:
        """The URL without a path, the base URL for an Ollama client."""
        return self.url_at("127.0.0.1")

    @property
    def port(self) -> int:
        """The port of the server."""
        assert self._server is not None, "use `async with ProviderServer()`"
        return self._server.sockets[0].getsockname()[1]

    def url_at(self, host: str) -> str:
        """The URL without a path, with this host, before which a user and password may stand."""
        return f"{'https' if self._tls is not None else 'http'}://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The base URL for an OpenAI client."""
        return f"{self.root_url}/v1"

    def script(self, *scripts: Scripted, path: str = "chat") -> None:
        """Queue scripts, one per call: for chat requests of all protocols, or for another path (`/v1/embeddings`)."""
        self._scripts.setdefault(path, deque()).extend(scripts)

    async def call(self, index: int = 0, timeout: float = 5) -> Call:
        """The chat request with this index, when it has come."""
        async with asyncio.timeout(timeout), self._arrived:
            await self._arrived.wait_for(lambda: len(self.calls) > index)
        return self.calls[index]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own, because asyncio logs an error if its own task is cancelled (Python 3.11).
        task = asyncio.create_task(self._connected(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        try:
            ahead = b""
            while call := await _read_request(reader, ahead):
                ahead = await self._answer(call, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_connections -= 1
            writer.close()

    async def _answer(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """The bytes of a next request that came meanwhile. Sends the script, unless the client disconnects."""
        self.requests.append(call)
        if call.is_chat:
            self.calls.append(call)
            async with self._arrived:
                self._arrived.notify_all()
        play = asyncio.create_task(_play(self._steps(call), writer))
        listen = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({play, listen}, return_when=asyncio.FIRST_COMPLETED)
            if listen.done() and not _byte_of(listen):
                raise ConnectionResetError("the client left")
            await play
            call._end.set_result("answered")
            return _byte_of(listen) if listen.done() else b""
        except ConnectionError:
            call._end.set_result("left")
            raise
        finally:
            for task in (play, listen):
                task.cancel()
            await asyncio.gather(play, listen, return_exceptions=True)

    def _steps(self, call: Call) -> Script:
        path = "chat" if call.is_chat else call.path
        if queue := self._scripts.get(path):
            script = queue.popleft()
            return script(call.json) if callable(script) else script
        if path == "chat":
            return self.default(call)
        return _service(call, self.models)


def _byte_of(listen: "asyncio.Task[bytes]") -> bytes:
    return b"" if listen.exception() else listen.result()


async def _read_request(reader: asyncio.StreamReader, ahead: bytes) -> Call | None:
    """The next request of a connection; None if the client has closed it."""
    try:
        head = ahead + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    request_line, *lines = head.decode("latin-1").rstrip().split("\r\n")
    method, path, _ = request_line.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    value: Any = None
    with suppress(ValueError):
        value = json.loads(body)
    return Call(method, path.partition("?")[0], headers, value, asyncio.get_running_loop().create_future())


async def _play(steps: Script, writer: asyncio.StreamWriter) -> None:
    has_head = False
    for step in steps:
        match step:
            case Status():
                writer.write(_head(step))
                has_head = True
                if step.body is not None:
                    await writer.drain()
                    return
            case Send(data):
                if not has_head:
                    writer.write(_head(_STREAM))
                    has_head = True
                writer.write(_chunked(data))
                await writer.drain()
            case Raw(data):
                writer.write(data)
                await writer.drain()
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case Gate(event):
                await event.wait()
            case Stall():
                await asyncio.get_running_loop().create_future()
            case Cut(reset):
                _cut(writer, reset)
                return
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def wire(sends: Sequence[Send]) -> bytes:
    """The bytes of a whole streamed response."""
    return _head(_STREAM) + b"".join(_chunked(send.data) for send in sends) + b"0\r\n\r\n"


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _cut(writer: asyncio.StreamWriter, reset: bool) -> None:
    if reset:  # with a linger time of 0, closing sends RST
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


def _head(status: Status) -> bytes:
    length = "Transfer-Encoding: chunked" if status.body is None else f"Content-Length: {len(status.body)}"
    lines = [f"HTTP/1.1 {status.code} Scripted", length, *(f"{k}: {v}" for k, v in status.headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (status.body or b"")


# -- answers without a script ----------------------------------------------------------------------


def _default_answer(call: Call, text: str) -> Script:
    body = call.json or {}
    model = body.get("model", "test-model")
    if call.path.endswith(_GOOGLE_CHAT):
        return google_answer(text)
    match call.path:
        case "/api/chat":
            return ollama_answer(text, model=model)
        case "/v1/messages":
            return anthropic_answer(text, model=model)
        case "/v2/chat":
            return cohere_answer(text)
        case _:
            pass
    if not body.get("stream"):
        return completion(text, model=model)
    return answer(text, usage=bool((body.get("stream_options") or {}).get("include_usage")), model=model)


def _service(call: Call, models: Sequence[str]) -> Script:
    body = call.json or {}
    match call.path:
        case "/v1/models":
            items = [{"id": m, "object": "model", "created": 1, "owned_by": "test"} for m in models]
            # OpenAI's and Anthropic's clients read `data`, Cohere's reads `models`.
            return [json_response(200, {"object": "list", "data": items, "models": [{"name": m} for m in models]})]
        case "/v1beta/models":
            methods = ["generateContent", "countTokens"]
            items = [{"name": f"models/{m}", "supportedGenerationMethods": methods} for m in models]
            return [json_response(200, {"models": items})]
        case "/api/tags":
            return [json_response(200, {"models": [{"name": m, "model": m, "size": 1, "digest": "0"} for m in models]})]
        case "/api/version":
            return [json_response(200, {"version": "0.0.0"})]
        case "/v1/embeddings":
            return [json_response(200, openai_embeddings(body))]
        case "/api/embed":
            vectors = [embed(text) for text in inputs(body)]
            return [json_response(200, {"model": body.get("model"), "embeddings": vectors, "prompt_eval_count": 1})]
        case _:
            return [error(404, f"Unknown request URL: {call.method} {call.path}", "invalid_request_error", None)]
