"""What all protocols share that use one of LangChain's own packages."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from typing_extensions import override

from backend.chains.models._chat_messages import chat_messages
from backend.chains.models._finishes import Ending, reason_in, seconds_to_end
from backend.chains.models._frames import UNENCODED, Mend, reading_hook
from backend.chains.models._opened import OpenedModels
from backend.chains.models._quirk_book import QuirkBook, adapted
from backend.chains.models._refusals import is_unreached, refusal_of, unlisted
from backend.chains.models._rows import spec_of_row
from backend.chains.models._stops import ended_before
from backend.chains.models._usage import combined, count_in
from backend.chains.models.prompt import (
    Output,
    Parameters,
    Prompt,
    Reasoning,
    Text,
    Tokens,
)
from backend.chains.models.provider import ChatModel, Endpoint, Listing, Provider
from backend.config.groups.models import ModelSettings
from backend.errors import ProviderRefused, RunError
from backend.kit.network.network import Network

_REASONS = ("finish_reason", "stop_reason", "done_reason")


class LangChainProvider(Provider, ABC):
    """A provider whose models are LangChain's. A subclass says how a model is made, which fields a call has, and how
    the models are listed."""

    default: ClassVar[str | None] = None
    uses_httpx2: ClassVar[bool] = False
    """Whether its SDK takes a client of httpx2 instead of httpx."""

    def __init__(self, endpoint: Endpoint, settings: ModelSettings) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.book = QuirkBook(endpoint)
        self._opened = OpenedModels(self._make_prepared, self.release)
        self._http: Any = None
        self._http_lock = threading.Lock()

    @abstractmethod
    def make(self, model: str) -> Any:
        """The LangChain chat model; called in a thread."""

    @abstractmethod
    def fields(self, model: str, parameters: Parameters) -> dict[str, Any]:
        """What `astream` takes for these parameters."""

    async def call_fields(self, model: str, prompt: Prompt) -> dict[str, Any]:
        """What `astream` takes for this prompt. Raises RunError."""
        return self.fields(model, prompt.parameters)

    @abstractmethod
    async def rows(self) -> dict[str, Mapping[str, Any]]:
        """The rows of the provider's list by the model's name. Raises whatever its client raises."""

    def refusal(self, error: Exception, model: str) -> RunError:
        """What an exception of its SDK means."""
        return refusal_of(error, model, self.endpoint)

    async def release(self, opened: Any) -> None:
        """Close the connections of a model that `make` made."""
        del opened

    @property
    def longest(self) -> float:
        """Seconds that a connection may be silent; the run's own deadlines are shorter."""
        return max(self.settings.first_token_timeout, self.settings.idle_timeout) + 5

    def http(self, mend: Mend) -> Any:
        """A client with our network, deadlines and headers for SDKs that take one; one for all of the provider's
        models. It is made in the thread that makes a model. Streams are read as `_frames` says."""
        with self._http_lock:
            if self._http is None:
                self._http = self._make_http(mend)
            return self._http

    def _make_http(self, mend: Mend) -> Any:
        headers = self.endpoint.request_headers({})
        host = urlsplit(self.endpoint.root).hostname
        connect, longest = self.settings.connect_timeout, self.longest
        limits = {"connect": connect, "read": longest, "write": longest, "pool": longest}

        # SDKs give each request a deadline of their own, without one for the connection, and headers.
        async def adapt(request: Any) -> None:
            request.extensions = {**request.extensions, "timeout": limits}
            request.headers.update(UNENCODED)
            # A redirect to another host gets no passwords.
            if request.url.host == host:
                request.headers.update(headers)

        options: dict[str, Any] = {"follow_redirects": True}
        if self.uses_httpx2:
            import httpx2

            from backend.kit.network.httpx2_client import httpx2_client

            options["event_hooks"] = {"request": [adapt], "response": [reading_hook(httpx2, mend)]}
            return httpx2_client(self.endpoint.network, **options)
        import httpx

        from backend.kit.network.httpx_client import httpx_client

        options["event_hooks"] = {"request": [adapt], "response": [reading_hook(httpx, mend)]}
        return httpx_client(self.endpoint.network, **options)

    def unset(self) -> str | None:
        """The setting that is missing, or None."""
        endpoint = self.endpoint
        return f"set {endpoint.key_setting}" if endpoint.key is None and not endpoint.own_address else None

    @override
    async def listing(self) -> Listing:
        if unset := self.unset():
            return Listing(False, unset)
        where = self.endpoint.set_up
        # The vendor's advice is about the vendor's models.
        advised = None if self.endpoint.own_address else self.default
        try:
            rows = await self.rows()
        except Exception as error:
            problem = unlisted(self.refusal(error, ""), self.endpoint)
            reason = f"{where}, but its model list can't be read: {problem}"
            return Listing(not is_unreached(error), reason, (), advised)
        specs = {name: spec_of_row(row) for name, row in rows.items()}
        return Listing(True, where, tuple(sorted(rows)), self.default if self.default in rows else advised, specs)

    @override
    def open(self, model: str) -> "LangChainModel":
        if unset := self.unset():
            raise ProviderRefused(f"{self.endpoint.name} is not set up.", advice=f"To use it, {unset} and restart.")
        return LangChainModel(self, model)

    async def opened(self, model: str) -> Any:
        """The LangChain model, made once: each has its own connections."""
        return await self._opened.get(model)

    def _make_prepared(self, model: str) -> Any:
        self.endpoint.network.load()
        return self.make(model)

    @override
    async def aclose(self) -> None:
        await self._opened.close()
        if self._http is not None:
            await self._http.aclose()
            self._http = None


class LangChainModel(ChatModel):
    """A model that streams through LangChain's `astream`."""

    writes = True

    def __init__(self, provider: LangChainProvider, model: str) -> None:
        self._provider = provider
        self._model = model

    @override
    def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        outputs, stops = self._stream(prompt), prompt.parameters.stop
        return ended_before(outputs, stops) if stops else outputs

    async def _stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        """The outputs; asked again if the provider refuses a parameter that can be left out."""
        loop, idle_seconds = asyncio.get_running_loop(), self._provider.settings.idle_timeout
        book, tried = self._provider.book, set[str]()
        while True:
            quirks, has_output, until = book.of(self._model), False, None
            reader = ChunkReader(quirks.finish_reasons)
            try:
                client = await self._provider.opened(self._model)
                sent = replace(prompt, parameters=adapted(prompt.parameters, quirks))
                fields = await self._provider.call_fields(self._model, sent)
                chunks = cast(AsyncGenerator[Any], client.astream(chat_messages(sent, quirks), **fields))
                async with aclosing(chunks):
                    while (chunk := await _next_chunk(chunks, until)) is not None:
                        for output in reader.outputs(chunk):
                            has_output = True
                            yield output
                        if reader.ending.reason is not None:
                            until = loop.time() + seconds_to_end(reader.ending.tokens is not None, idle_seconds)
                break
            except RunError:
                raise
            except Exception as error:
                # What is known to be complete is complete, whatever comes after its end.
                if reader.ending.is_known:
                    break
                if has_output or not book.learn(self._model, error, prompt, tried):
                    raise self._provider.refusal(error, self._model) from error
        for output in reader.ending.outputs():
            yield output


async def _next_chunk(chunks: AsyncGenerator[Any], until: float | None) -> Any:
    """The next chunk; None if the stream has ended, or if none comes until then."""
    if until is None:
        return await anext(chunks, None)
    try:
        async with asyncio.timeout_at(until):
            return await anext(chunks, None)
    except TimeoutError:
        return None


class ChunkReader:
    """LangChain's chunks of an answer in, outputs out."""

    def __init__(self, finish_reasons: Mapping[str, str] = MappingProxyType({})) -> None:
        self.ending = Ending(finish_reasons)
        self._counter = _Counter()

    def outputs(self, chunk: Any) -> list[Output]:
        """Text and reasoning of a chunk."""
        ending, metadata = self.ending, cast(Mapping[str, Any], chunk.response_metadata)
        outputs = outputs_of(chunk)
        ending.has_text = ending.has_text or any(isinstance(output, Text) for output in outputs)
        ending.has_reasoning = ending.has_reasoning or any(isinstance(output, Reasoning) for output in outputs)
        ending.has_calls = ending.has_calls or bool(chunk.tool_call_chunks)
        ending.is_refused = ending.is_refused or bool(chunk.additional_kwargs.get("refusal"))
        if prompt := count_in(metadata.get("prompt_tokens")):
            self._counter.prompt = prompt
        if chunk.usage_metadata:
            self._counter.add(chunk.usage_metadata)
            ending.tokens = self._counter.total()
        ending.reason = _reason_of(metadata) or ending.reason
        return outputs


def _reason_of(metadata: Mapping[str, Any]) -> str | None:
    """Why the model stopped, in the provider's words; None if it goes on."""
    for name in _REASONS:
        if (reason := reason_in(metadata.get(name))) is not None:
            return reason
    feedback = cast(Mapping[str, Any], metadata.get("prompt_feedback") or {})
    if blocked := feedback.get("block_reason"):
        # Whatever the reason is called: the prompt was not let in.
        return "content_filter" if reason_in(getattr(blocked, "value", blocked)) else None
    return "stop" if metadata.get("done") else None


def outputs_of(chunk: Any) -> list[Output]:
    """Text and reasoning of a chunk; LangChain's standard blocks are the same for every provider."""
    if isinstance(chunk.content, str):
        outputs: list[Output] = []
        if reasoning := chunk.additional_kwargs.get("reasoning_content"):
            outputs.append(Reasoning(str(reasoning)))
        if chunk.content:
            outputs.append(Text(chunk.content))
        return outputs
    found: list[Output] = []
    for block in chunk.content_blocks:
        if block["type"] == "reasoning" and (thought := _thought(block)):
            found.append(Reasoning(thought))
        elif block["type"] == "text" and block.get("text"):
            found.append(Text(block["text"]))
    return found


def _thought(block: Mapping[str, Any]) -> str:
    return block.get("reasoning") or "".join(each.get("text", "") for each in block.get("summary") or ())


class _Counter:
    """LangChain's usage metadata of a stream, which it tells in pieces that add up. `prompt`: what the stream began
    with, for a server that doesn't repeat it."""

    def __init__(self) -> None:
        self.prompt = 0
        self._sums: dict[str, float] = {}

    def total(self) -> Tokens | None:
        """The tokens of all pieces; None if they count nothing."""
        prompt, completion, total, reasoning, cached = (
            count_in(self._sums.get(name)) for name in ("input", "output", "total", "reasoning", "cached")
        )
        if not prompt and self.prompt:
            prompt, total = self.prompt, None
        if not prompt and not completion:
            return None
        return combined(prompt, completion, total, reasoning, cached)

    def add(self, usage: Mapping[str, Any]) -> None:
        """Count a piece."""
        written: Mapping[str, Any] = usage.get("output_token_details") or {}
        read: Mapping[str, Any] = usage.get("input_token_details") or {}
        values: dict[str, Any] = {
            "input": usage.get("input_tokens"),
            "output": usage.get("output_tokens"),
            "total": usage.get("total_tokens"),
            "reasoning": written.get("reasoning"),
            "cached": read.get("cache_read"),
        }
        for name, value in values.items():
            if isinstance(value, int | float):
                # A piece may be negative: some providers correct what they have counted before.
                self._sums[name] = self._sums.get(name, 0) + value


async def listed(
    network: Network,
    url: str,
    headers: Mapping[str, str],
    params: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON object at a provider's address, within seconds; an array is one with the `data` only. With a `body` it
    is a POST.

    Raises httpx's errors, ValueError.
    """
    await network.prepare()
    import httpx

    from backend.kit.network.httpx_client import httpx_client

    method = "GET" if body is None else "POST"
    async with httpx_client(network, timeout=httpx.Timeout(4.0, connect=2.0)) as client:
        answer = await client.request(method, url, headers=dict(headers), params=params, json=body)
        answer.raise_for_status()
        found = answer.json()
        if isinstance(found, list):
            return {"data": found}
        if not isinstance(found, dict):
            raise ValueError("no list of models")
        return cast(dict[str, Any], found)
