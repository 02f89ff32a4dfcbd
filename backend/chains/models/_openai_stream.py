"""A ChatOpenAI that reads its stream off the wire itself.

LangChain's own way builds a pydantic model of every token, at 300 to 400 µs of CPU each. Here one network read is
parsed at once and the text in it is merged (see `_openai_reader`). What is not plain text (tool calls, audio) goes
through LangChain's own conversion, and a request that asks for more than a plain stream goes to the library altogether.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

import aiohttp
import msgspec
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI
from pydantic import PrivateAttr, SecretStr

from backend.chains.models._finishes import Ending, known_reason, seconds_to_end
from backend.chains.models._openai_chunks import Other, Refusal, StreamError
from backend.chains.models._openai_reader import ReaderOutput, StreamReader
from backend.chains.models._waits import wait_in_headers
from backend.chains.models.prompt import Output, Reasoning, Text, Tokens
from backend.chains.models.provider import bytes_came
from backend.config.quirks import ModelQuirks
from backend.kit.network.aiohttp_session import StreamSession

_LIBRARY_ONLY = frozenset({"response_format", "logprobs", "modalities", "audio", "n"})
_ROLES: tuple[str, ...] = ("system", "user", "assistant")
_MAX_ERROR_BYTES = 65_536
_DRAIN_SECONDS = 0.05
"""How long the end of the connection is waited for, once the answer is complete."""


@dataclass(frozen=True, slots=True)
class ServerConnection:
    """Who is asked. `quirks` returns those of the model, which may change; `idle_seconds` is the longest silence of an
    answer."""

    base_url: str
    headers: Mapping[str, str]
    quirks: Callable[[], ModelQuirks] = ModelQuirks
    idle_seconds: float = 60.0


class _Wire:
    """The chat endpoint of one server. Not part of the model: pydantic's private attributes cost 20 µs each."""

    def __init__(self, session: Callable[[], StreamSession], server: ServerConnection) -> None:
        self._session = session
        self._server = server
        self._url = f"{server.base_url.rstrip('/')}/chat/completions"
        self._headers = {**server.headers, "Content-Type": "application/json", "Accept": "text/event-stream"}
        self.template: dict[str, Any] | None = None

    async def outputs(self, payload: dict[str, Any]) -> AsyncGenerator[ReaderOutput | Ending]:
        """What the server streams to this request, that of one network read merged; how it ended comes last."""
        quirks = self._server.quirks()
        asked = _as_asked(payload, quirks)
        reader, loop, is_alive = StreamReader(quirks.finish_reasons), asyncio.get_running_loop(), bytes_came.get()
        ending, until = reader.ending, None
        async with self._posted(msgspec.json.encode(asked)) as content:
            try:
                while data := await (content.readany() if until is None else _read_until(until, content)):
                    has_output = False
                    for output in reader.feed(data):
                        has_output = True
                        yield output
                    if reader.is_done:
                        break
                    if ending.reason is not None and (has_output or until is None):
                        until = loop.time() + seconds_to_end(ending.tokens is not None, self._server.idle_seconds)
                    if not has_output:
                        is_alive()
                for output in reader.end():
                    yield output
            except (StreamError, ValueError, aiohttp.ClientError, OSError):
                # What is known to be complete is complete, whatever comes after its end.
                if not ending.is_known:
                    raise
            if not content.at_eof():
                # Mostly only the end of the chunked coding is missing; a connection that was read to its end is kept.
                await _read_until(loop.time() + _DRAIN_SECONDS, content)
            yield ending

    @asynccontextmanager
    async def _posted(self, body: bytes) -> AsyncGenerator[aiohttp.StreamReader]:
        """The content of the response to this request. Raises StreamError if the server refuses."""
        async with self._session().post(self._url, data=body, headers=self._headers) as response:
            if response.status != 200:
                said = (await response.content.read(_MAX_ERROR_BYTES)).decode("utf-8", "replace")
                raise StreamError(response.status, said, wait_in_headers(response.headers))
            with _told_of_the_end(response):
                yield response.content


def _as_asked(payload: dict[str, Any], quirks: ModelQuirks) -> dict[str, Any]:
    """The request for a model with these quirks."""
    asked = payload | {"stream": True}
    if quirks.stream_options is not False:
        asked["stream_options"] = {"include_usage": True}
    if quirks.limit in (None, "max_completion_tokens") or (limit := asked.get("max_completion_tokens")) is None:
        return asked
    if quirks.limit != "both":
        del asked["max_completion_tokens"]
    if quirks.limit != "none":
        asked["max_tokens"] = limit
    return asked


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

        Raises RunError if the answer isn't complete, StreamError, aiohttp's errors, ValueError.
        """
        wire = self._wire
        if wire.template is None:
            # What LangChain asks of this model, by a message of each role: it takes 0.2 ms to say it.
            wire.template = cast(dict[str, Any], cast(Any, self)._get_request_payload([(role, "") for role in _ROLES]))
        as_sent: dict[str, dict[str, Any]] = dict(zip(_ROLES, wire.template["messages"], strict=True))
        sent = [as_sent.get(role, {"role": role}) | {"content": content} for role, content in messages]
        payload = wire.template | fields | {"messages": sent}
        async with aclosing(wire.outputs(payload)) as outputs:
            async for output in outputs:
                if isinstance(output, Text | Reasoning):
                    yield output
                elif isinstance(output, Refusal):
                    yield Text(output.text)
                elif isinstance(output, Ending):
                    for last in output.outputs():
                        yield last

    def outputs(self, messages: Any, **kwargs: Any) -> AsyncGenerator[ReaderOutput | Ending]:
        """The answer's outputs, those of one network read merged; how it ended comes last. Raises StreamError,
        aiohttp's errors, ValueError."""
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

    def _chunk_of(self, output: ReaderOutput | Ending) -> ChatGenerationChunk | None:
        match output:
            case Text(text):
                message = AIMessageChunk(content=text)
            case Reasoning(text):
                message = AIMessageChunk(content="", additional_kwargs={"reasoning_content": text})
            case Refusal(text):
                message = AIMessageChunk(content=text, additional_kwargs={"refusal": text})
            case Ending():
                reason = {"finish_reason": known_reason(output.reason)} if output.reason is not None else {}
                counted = _as_metadata(output.tokens) if output.tokens is not None else None
                message = AIMessageChunk(content="", response_metadata=reason, usage_metadata=counted)
            case Other(chunk):
                return cast(Any, self)._convert_chunk_to_generation_chunk(chunk, AIMessageChunk, {})
            case _:
                return None
        return ChatGenerationChunk(message=message)


def _as_metadata(tokens: Tokens) -> Any:
    total = tokens.input + tokens.output
    counted: Any = {"input_tokens": tokens.input, "output_tokens": tokens.output, "total_tokens": total}
    if tokens.reasoning is not None:
        counted["output_token_details"] = {"reasoning": tokens.reasoning}
    if tokens.cached is not None:
        counted["input_token_details"] = {"cache_read": tokens.cached}
    return counted


async def _read_until(until: float, content: aiohttp.StreamReader) -> bytes:
    """More of the answer; empty if nothing comes until then, or the connection is lost."""
    try:
        async with asyncio.timeout_at(until):
            return await content.readany()
    except (TimeoutError, aiohttp.ClientError, OSError):
        return b""


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
