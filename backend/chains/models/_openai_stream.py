"""A ChatOpenAI that reads its stream off the wire itself.

LangChain's own way builds a pydantic model of every token, at 300 to 400 µs of CPU each. Here one network read is
parsed at once and the text in it is merged. What is not plain text (tool calls, refusals, audio) goes through
LangChain's own conversion, and a request that asks for more than a plain stream goes to the library altogether.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

import aiohttp
import msgspec
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI
from pydantic import PrivateAttr, SecretStr

from backend.chains.models.prompt import Finish, Output, Reasoning, Text, Tokens
from backend.chains.models.provider import retry_after
from backend.kit.network.aiohttp_session import StreamSession

_LIBRARY_ONLY = frozenset({"response_format", "logprobs", "modalities", "audio", "n"})
_ROLES: tuple[str, ...] = ("system", "user", "assistant")
_MAX_ERROR_BYTES = 65_536
_MAX_LINE_BYTES = 4_000_000


class StreamError(Exception):
    """The provider refused, or reported an error inside its stream. `said` is for deciding, never for showing;
    `retry_after` is in seconds."""

    def __init__(self, status: int | None, said: str, retry_after: float = 0.0) -> None:
        super().__init__(f"status {status}")
        self.status_code = status
        self.said, self.words = said.lower(), said
        self.retry_after = retry_after


class _Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Any = None
    function_call: Any = None
    refusal: Any = None
    audio: Any = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_tokens_details: _InputDetails | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class Other(msgspec.Struct):
    """A chunk that holds more than text, as the provider sent it."""

    chunk: dict[str, Any]
    finish: str | None = None


_decoder = msgspec.json.Decoder(_Chunk)


class StreamReader:
    """Bytes of an OpenAI stream in, outputs out; what one `feed` holds is merged."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> "Iterator[Output | Other]":
        """The outputs of the complete lines. Raises WireError, ValueError (no answer), after what came before."""
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _MAX_LINE_BYTES:
            raise ValueError("a line without an end")
        text: list[str] = []
        try:
            for line in lines:
                if not line.startswith(b"data:") or (payload := line[5:].strip()) == b"[DONE]":
                    continue
                chunk = _decode(payload)
                choice = chunk.choices[0] if chunk.choices else None
                delta = choice.delta if choice is not None else None
                if choice is not None and delta is not None and _only_content(choice, delta, chunk):
                    if delta.content:
                        text.append(cast(str, delta.content))
                    continue
                others = _outputs(chunk, choice, delta, payload)
                if text:
                    yield Text("".join(text))
                    text.clear()
                yield from others
        except (StreamError, ValueError):
            if text:
                yield Text("".join(text))
            raise
        if text:
            yield Text("".join(text))


def _only_content(choice: _Choice, delta: _Delta, chunk: _Chunk) -> bool:
    """The quick case, a token: nothing else to look at."""
    return (
        choice.finish_reason is None
        and delta.content.__class__ is not list
        and chunk.usage is None
        and chunk.error is None
        and delta.reasoning_content is None
        and delta.reasoning is None
        and delta.tool_calls is None
        and delta.function_call is None
        and delta.refusal is None
        and delta.audio is None
    )


def _decode(payload: bytes) -> _Chunk:
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError:
        # Lone surrogates and NaN are no JSON to msgspec; providers send them all the same.
        return msgspec.convert(json.loads(payload), _Chunk, strict=False)


def _outputs(chunk: _Chunk, choice: _Choice | None, delta: _Delta | None, payload: bytes) -> "list[Output | Other]":
    if chunk.error is not None:
        raise StreamError(_status_in(chunk.error), json.dumps(chunk.error))
    outputs: list[Output | Other] = []
    if delta is not None and (delta.tool_calls or delta.function_call or delta.refusal or delta.audio):
        # LangChain's conversion takes finish reason and usage from it as well.
        return [Other(json.loads(payload), finish=choice.finish_reason if choice is not None else None)]
    if delta is not None:
        if reasoning := delta.reasoning_content or delta.reasoning:
            outputs.append(Reasoning(reasoning))
        if isinstance(delta.content, str):
            outputs += [Text(delta.content)] if delta.content else []
        else:
            outputs += _parts(delta.content or [])
    if chunk.usage:
        outputs.append(_tokens(chunk.usage))
    if choice is not None and choice.finish_reason:
        outputs.append(Finish(choice.finish_reason))
    return outputs


def _parts(content: list[Any]) -> list[Output]:
    """Mistral's way of thinking aloud: content in parts."""
    outputs: list[Output] = []
    for part in content:
        if part.get("type") == "thinking":
            outputs.append(Reasoning("".join(each.get("text", "") for each in part["thinking"])))
        elif part.get("text"):
            outputs.append(Text(part["text"]))
    return outputs


def _status_in(error: Any) -> int | None:
    """Servers that look at a request when their stream has begun (vLLM, OpenRouter) say the HTTP status as `code`."""
    code = cast(dict[str, Any], error).get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _tokens(usage: _Usage) -> Tokens:
    written, read = usage.completion_tokens_details, usage.prompt_tokens_details
    return Tokens(
        input=usage.prompt_tokens or 0,
        output=usage.completion_tokens or 0,
        reasoning=written.reasoning_tokens if written is not None else None,
        cached=read.cached_tokens if read is not None else None,
    )


@dataclass(frozen=True, slots=True)
class ServerConnection:
    """Who is asked. `limit` is what it calls the most tokens of an answer; `stream_options`: it knows that field."""

    base_url: str
    headers: Mapping[str, str]
    limit: str = "max_completion_tokens"
    stream_options: bool = True


class _Wire:
    """The chat endpoint of one server. Not part of the model: pydantic's private attributes cost 20 µs each."""

    def __init__(self, session: Callable[[], StreamSession], server: ServerConnection) -> None:
        self._session = session
        self._server = server
        self._url = f"{server.base_url.rstrip('/')}/chat/completions"
        self._headers = {**server.headers, "Content-Type": "application/json", "Accept": "text/event-stream"}
        self.template: dict[str, Any] | None = None

    async def outputs(self, payload: dict[str, Any]) -> AsyncGenerator[Output | Other]:
        """What the server streams to this request, that of one network read merged."""
        asked = payload | {"stream": True, "stream_options": {"include_usage": True}}
        if not self._server.stream_options:
            del asked["stream_options"]
        if (limit := asked.pop("max_completion_tokens", None)) is not None:
            asked[self._server.limit] = limit
        body = msgspec.json.encode(asked)
        async with self._session().post(self._url, data=body, headers=self._headers) as response:
            if response.status != 200:
                said = (await response.content.read(_MAX_ERROR_BYTES)).decode("utf-8", "replace")
                raise StreamError(response.status, said, retry_after(response.headers))
            if response.content_type == "application/json":
                raise ValueError("an answer that is no stream")
            reader, content = StreamReader(), response.content
            with _told_of_the_end(response):
                while data := await content.readany():
                    for output in reader.feed(data):
                        yield output


class StreamingChatOpenAI(ChatOpenAI):
    """ChatOpenAI with a stream of its own; everything else is the library's."""

    _wire: _Wire = PrivateAttr()

    @classmethod
    def over(cls, session: Callable[[], StreamSession], server: ServerConnection, **options: Any) -> Self:
        """A model that streams over the session, which is asked for when first needed; `options` are ChatOpenAI's."""
        key = server.headers.get("Authorization", "").removeprefix("Bearer ") or "none"
        model = cls(base_url=server.base_url, api_key=SecretStr(key), default_headers=dict(server.headers), **options)
        model._wire = _Wire(session, server)
        return model

    @property
    def lc_secrets(self) -> dict[str, str]:
        """What LangChain's tracing must not tell of this model: also its headers, which hold the key."""
        return {**super().lc_secrets, "default_headers": "DEFAULT_HEADERS"}

    async def text_outputs(self, messages: list[tuple[str, Any]], fields: dict[str, Any]) -> AsyncGenerator[Output]:
        """The answer to (OpenAI's role, content) for those who only want text; `fields` are more of the request.

        Raises WireError, aiohttp's errors, ValueError.
        """
        wire = self._wire
        if wire.template is None:
            # What LangChain asks of this model, by a message of each role: it takes 0.2 ms to say it.
            wire.template = cast(dict[str, Any], cast(Any, self)._get_request_payload([(role, "") for role in _ROLES]))
        as_sent: dict[str, dict[str, Any]] = dict(zip(_ROLES, wire.template["messages"], strict=True))
        sent = [as_sent[role] | {"content": content} for role, content in messages]
        payload = wire.template | fields | {"messages": sent}
        async with aclosing(wire.outputs(payload)) as outputs:
            async for output in outputs:
                if not isinstance(output, Other):
                    yield output
                elif output.finish is not None:
                    yield Finish(output.finish)

    def outputs(self, messages: Any, **kwargs: Any) -> AsyncGenerator[Output | Other]:
        """The answer's outputs, those of one network read merged. Raises as `text_outputs`."""
        return self._wire.outputs(cast(Any, self)._get_request_payload(messages, **kwargs))

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        """LangChain's way in: the same stream as chunks, with its callbacks."""
        messages = cast(list[BaseMessage], args[0] if args else kwargs.pop("messages"))
        run_manager: AsyncCallbackManagerForLLMRun | None = kwargs.pop("run_manager", None)
        stop = kwargs.pop("stop", args[1] if len(args) > 1 else None)
        asked: dict[str, Any] = {**kwargs, **self.model_kwargs}
        if not _LIBRARY_ONLY.isdisjoint(asked) or cast(Any, self)._use_responses_api(asked):
            async with aclosing(
                cast(Any, super()._astream(messages, stop=stop, run_manager=run_manager, **kwargs))
            ) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        kwargs.pop("stream_usage", None)
        async with aclosing(self.outputs(messages, stop=stop, **kwargs)) as outputs:
            async for output in outputs:
                chunk = self._chunk_of(output)
                if chunk is None:
                    continue
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _chunk_of(self, output: Output | Other) -> ChatGenerationChunk | None:
        match output:
            case Text(text):
                message = AIMessageChunk(content=text)
            case Reasoning(text):
                message = AIMessageChunk(content="", additional_kwargs={"reasoning_content": text})
            case Finish(reason):
                message = AIMessageChunk(content="", response_metadata={"finish_reason": reason})
            case Tokens():
                total = output.input + output.output
                counted: Any = {"input_tokens": output.input, "output_tokens": output.output, "total_tokens": total}
                if output.reasoning is not None:
                    counted["output_token_details"] = {"reasoning": output.reasoning}
                if output.cached is not None:
                    counted["input_token_details"] = {"cache_read": output.cached}
                message = AIMessageChunk(content="", usage_metadata=counted)
            case Other(chunk):
                return cast(Any, self)._convert_chunk_to_generation_chunk(chunk, AIMessageChunk, {})
            case _:
                return None
        return ChatGenerationChunk(message=message)


@contextmanager
def _told_of_the_end(response: aiohttp.ClientResponse) -> Generator[None]:
    """Wakes a reader whose connection is lost. aiohttp itself leaves it waiting when the chunked coding breaks."""
    protocol = response.connection.protocol if response.connection is not None else None
    closed = protocol.closed if protocol is not None else None

    def lost(_: "asyncio.Future[None]") -> None:
        if not response.content.is_eof() and response.content.exception() is None:
            response.content.set_exception(aiohttp.ClientPayloadError("the connection was lost"))

    if closed is None:
        yield
        return
    # Stays when this response is over: the connection may be lost later. Once, however many responses it carries.
    closed.remove_done_callback(_looked_at)
    closed.add_done_callback(_looked_at)
    closed.add_done_callback(lost)
    try:
        yield
    finally:
        closed.remove_done_callback(lost)


def _looked_at(end: "asyncio.Future[None]") -> None:
    """So that asyncio doesn't complain that nobody looked at the exception."""
    if not end.cancelled():
        end.exception()
