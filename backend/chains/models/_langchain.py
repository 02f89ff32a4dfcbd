"""What all protocols share that use one of LangChain's own packages."""

import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from typing_extensions import override

from backend.chains.models._opened import OpenedModels
from backend.chains.models._refusals import broken_off, filtered, refusal_of, unlisted
from backend.chains.models.prompt import (
    Finish,
    Output,
    Parameters,
    Prompt,
    Reasoning,
    Text,
    Tokens,
    chat_messages,
)
from backend.chains.models.provider import ChatModel, Endpoint, Listing, Provider
from backend.config.groups.models import ModelSettings
from backend.errors import ProviderFailed, ProviderRefused, RunError
from backend.kit.network.network import Network

_FINISHES = ("finish_reason", "stop_reason", "done_reason")
_REASONS = {
    **dict.fromkeys(("end_turn", "stop_sequence", "complete"), "stop"),
    **dict.fromkeys(("max_tokens", "model_context_window_exceeded"), "length"),
    **dict.fromkeys(
        ("refusal", "error_toxic", "safety", "image_safety", "prohibited_content", "blocklist", "spii", "recitation"),
        "content_filter",
    ),
}
"""Finish reasons in OpenAI's words."""
_FAILED = frozenset({"error", "timeout", "malformed_response"})
"""Finish reasons that mean that the provider failed."""


class LangChainProvider(Provider, ABC):
    """A provider whose models are LangChain's. A subclass says how a model is made, which fields a call has, and how
    the models are listed."""

    default: ClassVar[str | None] = None
    uses_httpx2: ClassVar[bool] = False
    """Whether its SDK takes a client of httpx2 instead of httpx."""

    def __init__(self, endpoint: Endpoint, settings: ModelSettings) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self._opened = OpenedModels(self._make_prepared, self.release)
        self._http: Any = None
        self._http_lock = threading.Lock()

    @abstractmethod
    def make(self, model: str) -> Any:
        """The LangChain chat model; called in a thread."""

    @abstractmethod
    def fields(self, model: str, parameters: Parameters) -> dict[str, Any]:
        """What `astream` takes for these parameters."""

    @abstractmethod
    async def names(self) -> list[str]:
        """The models that the provider lists. Raises whatever its client raises."""

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

    def http(self) -> Any:
        """A client with our network, deadlines and headers for SDKs that take one; one for all of the provider's
        models. It is made in the thread that makes a model."""
        with self._http_lock:
            if self._http is None:
                self._http = self._make_http()
            return self._http

    def _make_http(self) -> Any:
        headers = self.endpoint.request_headers({})
        host = urlsplit(self.endpoint.root).hostname
        connect, longest = self.settings.connect_timeout, self.longest
        limits = {"connect": connect, "read": longest, "write": longest, "pool": longest}

        # SDKs give each request a deadline of their own, without one for the connection, and headers.
        async def adapt(request: Any) -> None:
            request.extensions = {**request.extensions, "timeout": limits}
            # A redirect to another host gets no passwords.
            if request.url.host == host:
                request.headers.update(headers)

        options: dict[str, Any] = {"follow_redirects": True, "event_hooks": {"request": [adapt]}}
        if self.uses_httpx2:
            from backend.kit.network.httpx2_client import httpx2_client

            return httpx2_client(self.endpoint.network, **options)
        from backend.kit.network.httpx_client import httpx_client

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
            models = await self.names()
        except Exception as error:
            problem = unlisted(self.refusal(error, ""), self.endpoint)
            return Listing(True, f"{where}, but its model list can't be read: {problem}", (), advised)
        default = self.default if self.default in models else models[0] if models else advised
        return Listing(True, where, tuple(sorted(models)), default)

    @override
    def open(self, model: str) -> "LangChainModel":
        if unset := self.unset():
            raise ProviderRefused(f"{self.endpoint.name} is not set up: {unset} and restart.")
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
    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        finished = False
        counted = _Counter()
        try:
            client = await self._provider.opened(self._model)
            fields = self._provider.fields(self._model, prompt.parameters)
            chunks = cast(AsyncGenerator[Any], client.astream(chat_messages(prompt), **fields))
            async with aclosing(chunks):
                async for chunk in chunks:
                    for output in outputs_of(chunk):
                        yield output
                    metadata = cast(Mapping[str, Any], chunk.response_metadata)
                    counted.add(chunk.usage_metadata)
                    counted.prompt = metadata.get("prompt_tokens") or counted.prompt
                    if reason := finish_of(metadata):
                        finished = True
                        yield Finish(_finished(reason))
        except RunError:
            raise
        except Exception as error:
            raise self._provider.refusal(error, self._model) from error
        if (tokens := counted.total()) is not None:
            yield tokens
        if not finished:
            raise broken_off()


def finish_of(metadata: Mapping[str, Any]) -> str | None:
    """Why a model stopped, in OpenAI's words where it has one."""
    found = next((metadata[name] for name in _FINISHES if metadata.get(name)), None)
    feedback = cast(Mapping[str, Any], metadata.get("prompt_feedback") or {})
    if found is None and feedback.get("block_reason"):
        return "content_filter"
    if found is None:
        return "stop" if metadata.get("done") else None
    reason = str(found).lower()
    return _REASONS.get(reason, reason)


def _finished(reason: str) -> str:
    """The reason, if it is one to be content with. Raises RunError."""
    if reason == "content_filter":
        raise filtered()
    if reason in _FAILED:
        raise ProviderFailed("The provider gave up in its answer. Ask again.", retry_after=0.0)
    return reason


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


def tokens_of(usage: Mapping[str, Any]) -> Tokens:
    """LangChain's usage metadata as Tokens."""
    details: Mapping[str, Any] = {**usage.get("output_token_details", {}), **usage.get("input_token_details", {})}
    return Tokens(
        input=usage.get("input_tokens") or 0,
        output=usage.get("output_tokens") or 0,
        reasoning=details.get("reasoning"),
        cached=details.get("cache_read"),
    )


class _Counter:
    """LangChain's usage metadata of a stream, which it tells in pieces that add up. `prompt`: what the stream began
    with, for a server that doesn't repeat it."""

    def __init__(self) -> None:
        self.tokens: Tokens | None = None
        self.prompt = 0

    def total(self) -> Tokens | None:
        if self.tokens is None or self.tokens.input:
            return self.tokens
        return replace(self.tokens, input=self.prompt)

    def add(self, usage: Mapping[str, Any] | None) -> None:
        if usage:
            more, before = tokens_of(usage), self.tokens or Tokens(0, 0)
            self.tokens = Tokens(
                input=before.input + more.input,
                output=before.output + more.output,
                reasoning=_sum(before.reasoning, more.reasoning),
                cached=_sum(before.cached, more.cached),
            )


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


async def listed(
    network: Network, url: str, headers: Mapping[str, str], params: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The JSON object at a provider's address, within seconds; an array is one with the `data` only.

    Raises httpx's errors, ValueError.
    """
    await network.prepare()
    import httpx

    from backend.kit.network.httpx_client import httpx_client

    async with httpx_client(network, timeout=httpx.Timeout(4.0, connect=2.0)) as client:
        answer = await client.get(url, headers=dict(headers), params=params)
        answer.raise_for_status()
        found = answer.json()
        if isinstance(found, list):
            return {"data": found}
        if not isinstance(found, dict):
            raise ValueError("no list of models")
        return cast(dict[str, Any], found)
