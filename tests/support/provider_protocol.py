"""Scripts for a provider: the steps, and whole answers in OpenAI's and Ollama's protocol."""

import asyncio
import base64
import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DIMENSIONS = 64


@dataclass(frozen=True)
class Send:
    """Send these bytes of the body in one write."""

    data: bytes


@dataclass(frozen=True)
class Raw:
    """Send these bytes of the response, including head and chunked coding, to cut it anywhere. See `wire`."""

    data: bytes


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class Gate:
    """Wait until the test sets the event. Better than `Sleep`, whose duration would be a guess."""

    event: asyncio.Event


@dataclass(frozen=True)
class Status:
    """Send the head of the response. With a body, this is the whole response; without a body, `Send`s may follow."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Cut:
    """End the connection in the middle of the body: with a reset, or closed normally but without the last chunk."""

    reset: bool = True


@dataclass(frozen=True)
class Stall:
    """Send nothing more, but keep the connection open."""


Step = Send | Raw | Sleep | Gate | Status | Cut | Stall
Script = Sequence[Step]
Scripted = Script | Callable[[Any], Script]


# -- OpenAI's protocol ---------------------------------------------------------------------------------


def chunk(delta: Mapping[str, Any], finish: str | None = None, model: str = "test-model") -> Send:
    """One `chat.completion.chunk` as an SSE frame."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _frame({**_chunk_head(model), "choices": [choice]})


def usage_chunk(prompt: int, completion: int, model: str = "test-model") -> Send:
    """The chunk with usage and without choices, for requests with `stream_options.include_usage`."""
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
    """A whole streamed answer. `chunk_by`: "words", "chars" or a number of characters. `finish=None` leaves out the
    finish reason, like a provider that stops in the middle.
    """
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
    return [json_response(200, {**head, "choices": [choice], "usage": _usage(7, len(text.split()))})]


def malformed() -> Send:
    """A frame whose data is no JSON."""
    return Send(b'data: {"id":"chatcmpl-test","choices":[{"delta":\n\n')


def error_in_stream(message: str = "The server had an error", code: str | None = None) -> Send:
    """An error object inside a response that began with 200."""
    return _frame({"error": {"message": message, "type": "server_error", "param": None, "code": code}})


def error(status: int, message: str, kind: str, code: str | None, headers: Mapping[str, str] | None = None) -> Status:
    """An error response in OpenAI's shape."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return json_response(status, body, headers)


def rate_limited(retry_after: float = 1) -> list[Step]:
    headers = {"Retry-After": f"{retry_after:g}"}
    return [error(429, "Rate limit reached for requests", "requests", "rate_limit_exceeded", headers)]


def model_not_found(model: str = "no-such-model") -> list[Step]:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return [error(404, message, "invalid_request_error", "model_not_found")]


def context_overflow(limit: int = 8192) -> list[Step]:
    message = f"This model's maximum context length is {limit} tokens. Please reduce the length of the messages."
    return [error(400, message, "invalid_request_error", "context_length_exceeded")]


# -- Ollama's protocol ---------------------------------------------------------------------------------


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
    return [json_response(404, {"error": f"model '{model}' not found"})]


# -- shared by the protocols ----------------------------------------------------------------------------


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A unit vector of hashed words. Equal texts have equal vectors; texts that share words have similar vectors."""
    vector = [0.0] * dimensions
    for word in text.lower().split():
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        vector[int.from_bytes(digest[:4]) % dimensions] += 1.0
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector] if norm else [1.0, *vector[1:]]


def openai_embeddings(body: Mapping[str, Any]) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    for index, text in enumerate(inputs(body)):
        vector: Any = embed(text, body.get("dimensions") or DIMENSIONS)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
    return {"object": "list", "data": data, "model": body.get("model"), "usage": usage}


def inputs(body: Mapping[str, Any]) -> list[str]:
    """The texts of `input`: one text, a list of texts, or token ids, which some clients send."""
    value = body.get("input", "")
    if isinstance(value, list) and not (value and isinstance(value[0], int)):
        return [_text(item) for item in value]
    return [_text(value)]


def _text(item: Any) -> str:
    return item if isinstance(item, str) else " ".join(map(str, item))


def split(text: str, by: str | int) -> Iterator[str]:
    """Pieces of the text: words with the space before them, or groups of `by` characters."""
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


def json_response(code: int, payload: Any, headers: Mapping[str, str] | None = None) -> Status:
    return Status(code, {"Content-Type": "application/json", **(headers or {})}, _encode(payload))


def _encode(payload: Any) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
