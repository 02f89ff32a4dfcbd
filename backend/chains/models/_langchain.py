"""What all wires share that go through one of LangChain's own packages."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, cast

from backend.chains.models._refusals import refusal_of
from backend.chains.models.base import (
    Endpoint,
    Finish,
    Listing,
    Output,
    Parameters,
    Prompt,
    Reasoning,
    Text,
    Tokens,
    chat_messages,
)
from backend.config.settings import ModelSettings
from backend.errors import ContentFiltered, ProviderFailed, ProviderRefused, RunError

_MAX_OPENED = 64
_FILTERED = frozenset({"content_filter", "refusal", "SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION"})
_FINISHES = ("finish_reason", "stop_reason", "done_reason")
_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "complete": "stop"}
"""Finish reasons in OpenAI's words."""


class LangChainProvider(ABC):
    """A provider whose models are LangChain's. A wire says how one is made and how its models are listed."""

    default: ClassVar[str | None] = None

    def __init__(self, endpoint: Endpoint, settings: ModelSettings) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self._opened: dict[tuple[str, Parameters], Any] = {}

    @abstractmethod
    def make(self, model: str, parameters: Parameters) -> Any:
        """The LangChain chat model."""

    @abstractmethod
    async def names(self) -> list[str]:
        """The models that the provider lists. Raises whatever its client raises."""

    def refusal(self, error: Exception, model: str) -> RunError:
        """What an exception of its SDK means."""
        return refusal_of(error, model, self.endpoint)

    async def release(self, opened: Any) -> None:
        """Let go of the connections of what `make` made."""
        del opened

    @property
    def key(self) -> str:
        """The key, or a placeholder where a server wants none."""
        return self.endpoint.key.get_secret_value() if self.endpoint.key is not None else "none"

    @property
    def longest(self) -> float:
        """Seconds that a connection may be silent; the run's own deadlines are shorter."""
        return max(self.settings.first_token_timeout, self.settings.idle_timeout) + 5

    def unset(self) -> str | None:
        """What must be set before it can be used."""
        own = self.endpoint.base_url != self.endpoint.kind.base_url
        return f"set {self.endpoint.key_setting}" if self.endpoint.key is None and not own else None

    async def listing(self) -> Listing:
        """See `Provider`."""
        if unset := self.unset():
            return Listing(False, unset)
        where = f"{self.endpoint.key_setting if self.endpoint.key else self.endpoint.url_setting} is set"
        try:
            models = await self.names()
        except Exception as error:
            said = self.refusal(error, "its models").message
            return Listing(True, f"{where}, but its model list can't be read: {said}", (), self.default)
        default = self.default if self.default in models or not models else models[0]
        return Listing(True, where, tuple(sorted(models)), default)

    def open(self, model: str) -> "LangChainModel":
        """See `Provider`."""
        if unset := self.unset():
            raise ProviderRefused(f"{self.endpoint.name} is not set up: {unset} and restart.")
        return LangChainModel(self, model)

    def opened(self, model: str, parameters: Parameters) -> Any:
        """The chat model for these parameters, kept: each has connections of its own."""
        key = (model, parameters)
        if key not in self._opened:
            if len(self._opened) >= _MAX_OPENED:
                self._opened.pop(next(iter(self._opened)))
            self._opened[key] = self.make(model, parameters)
        return self._opened[key]

    async def aclose(self) -> None:
        """See `Provider`."""
        for opened in self._opened.values():
            await self.release(opened)
        self._opened.clear()


class LangChainModel:
    """A model that streams through LangChain's `astream`."""

    writes = True

    def __init__(self, provider: LangChainProvider, model: str) -> None:
        self._provider = provider
        self._model = model

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        """See `ChatModel`."""
        finished = False
        counted = _Counter()
        try:
            client = self._provider.opened(self._model, prompt.parameters)
            chunks = cast(AsyncGenerator[Any], client.astream(_messages(prompt)))
            async with aclosing(chunks):
                async for chunk in chunks:
                    for output in outputs_of(chunk):
                        yield output
                    counted.add(chunk.usage_metadata)
                    if reason := finish_of(chunk.response_metadata):
                        finished = True
                        if reason in _FILTERED:
                            raise ContentFiltered(
                                "The provider's content filter ended the answer. Rephrase the message."
                            )
                        yield Finish(_REASONS.get(reason.lower(), reason.lower()))
        except RunError:
            raise
        except Exception as error:
            raise self._provider.refusal(error, self._model) from error
        if counted.tokens is not None:
            yield counted.tokens
        if not finished:
            raise ProviderFailed(
                "The provider broke off its answer. Ask again; what came until then is kept.", retry_after=0.0
            )


def finish_of(metadata: Mapping[str, Any]) -> str | None:
    """Why a model stopped, in the provider's words."""
    found = next((metadata[name] for name in _FINISHES if metadata.get(name)), None)
    if found is None:
        return "stop" if metadata.get("done") else None
    return str(found)


def _messages(prompt: Prompt) -> list[tuple[str, Any]]:
    messages: list[tuple[str, Any]] = list(chat_messages(prompt))
    if prompt.images:
        shown = [{"type": "image", "base64": each.data, "mime_type": each.media_type} for each in prompt.images]
        messages[-1] = ("user", [{"type": "text", "text": prompt.content}, *shown])
    return messages


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
        if block["type"] == "reasoning" and block.get("reasoning"):
            found.append(Reasoning(block["reasoning"]))
        elif block["type"] == "text" and block.get("text"):
            found.append(Text(block["text"]))
    return found


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
    """LangChain's usage metadata of a stream, which it tells in pieces that add up."""

    def __init__(self) -> None:
        self.tokens: Tokens | None = None

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
    url: str, headers: Mapping[str, str], params: Mapping[str, str] | None = None, *, proxies: bool = True
) -> dict[str, Any]:
    """The JSON object at a provider's address, within seconds; `proxies`: of the environment, are used.

    Raises httpx's errors, ValueError.
    """
    import httpx

    async with httpx.AsyncClient(timeout=httpx.Timeout(5.0, connect=2.0), trust_env=proxies) as client:
        answer = await client.get(url, headers=dict(headers), params=params)
        answer.raise_for_status()
        found = answer.json()
        if not isinstance(found, dict):
            raise ValueError("no list of models")
        return cast(dict[str, Any], found)
