"""What all protocols share that use one of LangChain's own packages."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from typing_extensions import override

from backend.chains.models._refusals import broken_off, filtered, is_unreached, refusal_of, unlisted
from backend.chains.models._rows import spec_of_row
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

if TYPE_CHECKING:
    import httpx

_MAX_OPENED = 64
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

    def __init__(self, endpoint: Endpoint, settings: ModelSettings) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self._opened: dict[str, asyncio.Task[Any]] = {}
        self._http: httpx.AsyncClient | None = None

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
    def key(self) -> str:
        """The key, or a placeholder if the server needs none."""
        return self.endpoint.key.get_secret_value() if self.endpoint.key is not None else "none"

    @property
    def longest(self) -> float:
        """Seconds that a connection may be silent; the run's own deadlines are shorter."""
        return max(self.settings.first_token_timeout, self.settings.idle_timeout) + 5

    def http(self) -> "httpx.AsyncClient":
        """A client with our deadlines and headers for SDKs that take one; one for all of the provider's models."""
        import httpx

        if self._http is None:
            limits = httpx.Timeout(self.longest, connect=self.settings.connect_timeout)

            # SDKs give each request a deadline of their own, without one for the connection.
            async def limit(request: httpx.Request) -> None:
                request.extensions = {**request.extensions, "timeout": limits.as_dict()}

            headers = dict(self.endpoint.headers)
            self._http = httpx.AsyncClient(
                timeout=limits, headers=headers, follow_redirects=True, event_hooks={"request": [limit]}
            )
        return self._http

    def unset(self) -> str | None:
        """The setting that is missing, or None."""
        own = self.endpoint.base_url != self.endpoint.kind.base_url
        return f"set {self.endpoint.key_setting}" if self.endpoint.key is None and not own else None

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
            raise ProviderRefused(f"{self.endpoint.name} is not set up: {unset} and restart.")
        return LangChainModel(self, model)

    async def opened(self, model: str) -> Any:
        """The LangChain model, made once: each has its own connections. It is made in a thread, since the
        first one imports an SDK."""
        if model not in self._opened:
            if len(self._opened) >= _MAX_OPENED:
                await self._let_go(next(iter(self._opened)))
            self._opened[model] = asyncio.create_task(asyncio.to_thread(self.make, model))
        try:
            # A caller that stops waiting doesn't stop it for the other callers.
            return await asyncio.shield(self._opened[model])
        except Exception:
            self._opened.pop(model, None)
            raise

    async def _let_go(self, model: str) -> None:
        making = self._opened.pop(model)
        if making.done() and not making.cancelled() and making.exception() is None:
            await self.release(making.result())

    @override
    async def aclose(self) -> None:
        for model in list(self._opened):
            await self._let_go(model)
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
            fields = await self._provider.call_fields(self._model, prompt)
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
    url: str,
    headers: Mapping[str, str],
    params: Mapping[str, str] | None = None,
    *,
    proxies: bool = True,
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON object at a provider's address, within seconds; an array is one with the `data` only. `proxies`: those
    of the environment are used. With a `body` it is a POST.

    Raises httpx's errors, ValueError.
    """
    import httpx

    async with httpx.AsyncClient(timeout=httpx.Timeout(4.0, connect=2.0), trust_env=proxies) as client:
        method = "GET" if body is None else "POST"
        answer = await client.request(method, url, headers=dict(headers), params=params, json=body)
        answer.raise_for_status()
        found = answer.json()
        if isinstance(found, list):
            return {"data": found}
        if not isinstance(found, dict):
            raise ValueError("no list of models")
        return cast(dict[str, Any], found)
