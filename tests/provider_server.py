"""A model provider for tests, scripted byte by byte, on a free port of the loopback.

It speaks OpenAI's wire (`/v1/chat/completions`, `/v1/embeddings`, `/v1/models`) and Ollama's (`/api/chat`,
`/api/embed`, `/api/tags`, `/api/version`) over plain sockets, so that a test decides which bytes leave in
which write, where the connection breaks, and what the server waits for::

    async with ProviderServer() as provider:
        gate = asyncio.Event()
        provider.script([chunk({"content": "Hel"}), Gate(gate), Cut()])
        ...                                    # OPENAI_BASE_URL=provider.base_url
        call = await provider.call(0)          # waits until the first chat request has come
        await call.disconnected()              # fails unless the client closed it before the script was over

A chat request takes the next script of the queue; with none left it is answered by `provider.default`. One
`Send` is one chunk of the chunked coding and one write.
"""

import asyncio
import base64
import hashlib
import json
import math
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

DIMENSIONS = 64
CHAT_PATHS = ("/v1/chat/completions", "/api/chat")


@dataclass(frozen=True)
class Send:
    """Body bytes, exactly these, in one write."""

    data: bytes


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class Gate:
    """Waits until the test sets the event: a barrier, where a sleep would be a guess."""

    event: asyncio.Event


@dataclass(frozen=True)
class Status:
    """The head of the response. With a body it is the whole response; without one, `Send`s may follow."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Cut:
    """The connection ends in the middle of the body: reset, or closed in order but without the last chunk."""

    reset: bool = True


@dataclass(frozen=True)
class Stall:
    """Nothing comes any more, and the connection stays open."""


Step = Send | Sleep | Gate | Status | Cut | Stall
Script = Sequence[Step]
Scripted = Script | Callable[[Any], Script]


# -- OpenAI's wire ---------------------------------------------------------------------------------


def chunk(delta: Mapping[str, Any], finish: str | None = None, model: str = "test-model") -> Send:
    """One `chat.completion.chunk` as an SSE frame."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _frame({**_chunk_head(model), "choices": [choice]})


def usage_chunk(prompt: int, completion: int, model: str = "test-model") -> Send:
    """The chunk without choices that `stream_options.include_usage` asks for."""
    return _frame({**_chunk_head(model), "choices": [], "usage": _usage(prompt, completion)})


def done() -> Send:
    return Send(b"data: [DONE]\n\n")


def answer(
    text: str,
    *,
    chunk_by: str | int = "words",
    usage: bool = True,
    finish: str | None = "stop",
    model: str = "test-model",
) -> list[Step]:
    """A whole streamed answer. `chunk_by`: "words", "chars" or a number of characters; `finish=None` leaves
    the finish reason out, as a provider does that gives up in the middle."""
    pieces = list(split(text, chunk_by))
    steps: list[Step] = [chunk({"role": "assistant", "content": ""}, model=model)]
    steps += [chunk({"content": piece}, model=model) for piece in pieces]
    if finish is not None:
        steps.append(chunk({}, finish, model))
    if usage:
        steps.append(usage_chunk(7, len(pieces), model))
    return [*steps, done()]


def completion(text: str, *, finish: str = "stop", model: str = "test-model") -> list[Step]:
    """A whole answer without streaming."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    head = {**_chunk_head(model), "object": "chat.completion"}
    return [_json(200, {**head, "choices": [choice], "usage": _usage(7, len(text.split()))})]


def malformed() -> Send:
    """A frame whose data is no JSON."""
    return Send(b'data: {"id":"chatcmpl-test","choices":[{"delta":\n\n')


def error_in_stream(message: str = "The server had an error", code: str | None = None) -> Send:
    """An error object inside a response that began with 200."""
    return _frame({"error": {"message": message, "type": "server_error", "param": None, "code": code}})


def error(
    status: int, message: str, kind: str, code: str | None, headers: Mapping[str, str] | None = None
) -> Status:
    """An error response in OpenAI's shape."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return _json(status, body, headers)


def rate_limited(retry_after: float = 1) -> list[Step]:
    headers = {"Retry-After": f"{retry_after:g}"}
    return [error(429, "Rate limit reached for requests", "requests", "rate_limit_exceeded", headers)]


def model_not_found(model: str = "no-such-model") -> list[Step]:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return [error(404, message, "invalid_request_error", "model_not_found")]


def context_overflow(limit: int = 8192) -> list[Step]:
    message = (
        f"This model's maximum context length is {limit} tokens. Please reduce the length of the messages."
    )
    return [error(400, message, "invalid_request_error", "context_length_exceeded")]


# -- Ollama's wire ---------------------------------------------------------------------------------


def ollama_line(content: str, model: str = "test-model", **more: Any) -> Send:
    """One NDJSON line of `/api/chat`; `more` overrides or adds fields."""
    message = {"role": "assistant", "content": content}
    line = {"model": model, "created_at": "2025-01-01T00:00:00Z", "message": message, "done": False, **more}
    return Send(_encode(line) + b"\n")


def ollama_answer(
    text: str, *, chunk_by: str | int = "words", finish: str = "stop", model: str = "test-model"
) -> list[Step]:
    pieces = list(split(text, chunk_by))
    steps: list[Step] = [Status(200, {"Content-Type": "application/x-ndjson"})]
    steps += [ollama_line(piece, model) for piece in pieces]
    last = {"done": True, "done_reason": finish, "total_duration": 2, "load_duration": 1, "eval_duration": 1}
    counts = {"prompt_eval_count": 7, "prompt_eval_duration": 1, "eval_count": len(pieces)}
    return [*steps, ollama_line("", model, **last, **counts)]


def ollama_model_not_found(model: str = "no-such-model") -> list[Step]:
    return [_json(404, {"error": f"model '{model}' not found"})]


# -- the server ------------------------------------------------------------------------------------


@dataclass
class Call:
    """One request as it came, and what became of its connection."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    json: Any  # None without a body, or when the body is no JSON
    _end: "asyncio.Future[str]" = field(repr=False)  # "left" or "answered"

    async def disconnected(self, timeout: float = 5) -> None:
        """Returns once the client has closed the connection; fails if it took the whole answer or stays."""
        assert await self._ended(timeout) == "left", f"{self.path} was answered to its end, nobody left"

    async def answered(self, timeout: float = 5) -> None:
        """Returns once the script has been played to its end."""
        assert await self._ended(timeout) == "answered", f"the client of {self.path} left before the end"

    async def _ended(self, timeout: float) -> str:
        try:
            return await asyncio.wait_for(asyncio.shield(self._end), timeout)
        except TimeoutError:
            raise AssertionError(f"{self.path} is still open after {timeout} s") from None


class ProviderServer:
    """See the module. `calls` holds chat requests, `requests` every request; both in the order of arrival."""

    def __init__(
        self, text: str = "Hello from the provider.", models: Sequence[str] = ("test-model",)
    ) -> None:
        self.requests: list[Call] = []
        self.calls: list[Call] = []
        self.open_connections = 0
        self.models = list(models)
        self.default: Callable[[Call], Script] = lambda call: _default_answer(call, text)
        self._scripts: dict[str, deque[Scripted]] = {}
        self._arrived = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "ProviderServer":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
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
        """Where Ollama's paths begin."""
        assert self._server is not None, "use `async with ProviderServer()`"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return f"{self.root_url}/v1"

    def script(self, *scripts: Scripted, path: str = "chat") -> None:
        """Queues one script a call, for chat of either wire or for another path (`/v1/embeddings`)."""
        self._scripts.setdefault(path, deque()).extend(scripts)

    async def call(self, index: int = 0, timeout: float = 5) -> Call:
        """The chat request of that index, waiting until it has come."""
        async with asyncio.timeout(timeout), self._arrived:
            await self._arrived.wait_for(lambda: len(self.calls) > index)
        return self.calls[index]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Our own task: of one that it started itself, asyncio logs the cancelling as an error (Python 3.11).
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
        """Plays the script while listening for the client's leaving; returns what came of a next request."""
        self.requests.append(call)
        if call.path in CHAT_PATHS:
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
        path = "chat" if call.path in CHAT_PATHS else call.path
        if queue := self._scripts.get(path):
            script = queue.popleft()
            return script(call.json) if callable(script) else script
        if path == "chat":
            return self.default(call)
        return _service(call, self.models)


def _byte_of(listen: "asyncio.Task[bytes]") -> bytes:
    return b"" if listen.exception() else listen.result()


async def _read_request(reader: asyncio.StreamReader, ahead: bytes) -> Call | None:
    """The next request of a connection; None when the client has closed it."""
    try:
        head = ahead + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    request_line, *lines = head.decode("latin-1").rstrip().split("\r\n")
    method, path, _ = request_line.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    parsed: Any = None
    with suppress(ValueError):
        parsed = json.loads(body)
    return Call(method, path.partition("?")[0], headers, parsed, asyncio.get_running_loop().create_future())


async def _play(steps: Script, writer: asyncio.StreamWriter) -> None:
    begun = False
    for step in steps:
        match step:
            case Status():
                writer.write(_head(step))
                begun = True
                if step.body is not None:
                    return await writer.drain()
            case Send(data):
                if not begun:
                    writer.write(_head(Status(200, {"Content-Type": "text/event-stream; charset=utf-8"})))
                    begun = True
                writer.write(b"%x\r\n%b\r\n" % (len(data), data))
                await writer.drain()
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case Gate(event):
                await event.wait()
            case Stall():
                await asyncio.get_running_loop().create_future()
            case Cut(reset):
                return _cut(writer, reset)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _cut(writer: asyncio.StreamWriter, reset: bool) -> None:
    if reset:  # with no time to linger, closing sends RST
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


def _head(status: Status) -> bytes:
    length = "Transfer-Encoding: chunked" if status.body is None else f"Content-Length: {len(status.body)}"
    lines = [f"HTTP/1.1 {status.code} Scripted", length, *(f"{k}: {v}" for k, v in status.headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (status.body or b"")


# -- what is answered without a script -------------------------------------------------------------


def _default_answer(call: Call, text: str) -> Script:
    body = call.json or {}
    model = body.get("model", "test-model")
    if call.path == "/api/chat":
        return ollama_answer(text, model=model)
    if not body.get("stream"):
        return completion(text, model=model)
    return answer(text, usage=bool((body.get("stream_options") or {}).get("include_usage")), model=model)


def _service(call: Call, models: Sequence[str]) -> Script:
    body = call.json or {}
    match call.path:
        case "/v1/models":
            listed = [{"id": m, "object": "model", "created": 1, "owned_by": "test"} for m in models]
            return [_json(200, {"object": "list", "data": listed})]
        case "/api/tags":
            return [
                _json(200, {"models": [{"name": m, "model": m, "size": 1, "digest": "0"} for m in models]})
            ]
        case "/api/version":
            return [_json(200, {"version": "0.0.0"})]
        case "/v1/embeddings":
            return [_json(200, _openai_embeddings(body))]
        case "/api/embed":
            vectors = [embed(text) for text in _inputs(body)]
            return [_json(200, {"model": body.get("model"), "embeddings": vectors, "prompt_eval_count": 1})]
        case _:
            return [
                error(404, f"Unknown request URL: {call.method} {call.path}", "invalid_request_error", None)
            ]


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A unit vector of hashed words: the same text, the same vector; shared words, near vectors."""
    vector = [0.0] * dimensions
    for word in text.lower().split():
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        vector[int.from_bytes(digest[:4]) % dimensions] += 1.0
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector] if norm else [1.0, *vector[1:]]


def _openai_embeddings(body: Mapping[str, Any]) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    for index, text in enumerate(_inputs(body)):
        vector: Any = embed(text, body.get("dimensions") or DIMENSIONS)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
    return {"object": "list", "data": data, "model": body.get("model"), "usage": usage}


def _inputs(body: Mapping[str, Any]) -> list[str]:
    """`input` as texts: a text, a list of texts, or the token ids that some clients send instead."""
    given = body.get("input", "")
    if isinstance(given, list) and not (given and isinstance(given[0], int)):
        return [_text(item) for item in given]
    return [_text(given)]


def _text(item: Any) -> str:
    return item if isinstance(item, str) else " ".join(map(str, item))


def split(text: str, by: str | int) -> Iterator[str]:
    """Pieces that joined give the text again; a word keeps the space before it."""
    if by == "words":
        words = text.split(" ")
        yield from (word if i == 0 else f" {word}" for i, word in enumerate(words))
    else:
        size = 1 if by == "chars" else int(by)
        yield from (text[i : i + size] for i in range(0, len(text), size))


def _chunk_head(model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 1735689600, "model": model}


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _frame(payload: Mapping[str, Any]) -> Send:
    return Send(b"data: " + _encode(payload) + b"\n\n")


def _json(code: int, payload: Any, headers: Mapping[str, str] | None = None) -> Status:
    return Status(code, {"Content-Type": "application/json", **(headers or {})}, _encode(payload))


def _encode(payload: Any) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
