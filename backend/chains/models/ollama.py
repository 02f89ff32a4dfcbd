"""Models of an Ollama, through langchain-ollama."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import structlog
from typing_extensions import override

from backend.chains.models._context import UNKNOWN, OllamaModel, PromptSize
from backend.chains.models._finishes import reason_in
from backend.chains.models._frames import UNENCODED, fields_in, reading_hook, text_in
from backend.chains.models._langchain import LangChainModel, LangChainProvider, listed
from backend.chains.models._usage import counts_in
from backend.chains.models.prompt import Output, Parameters, Prompt, Tokens
from backend.chains.models.provider import Endpoint, Kind, Listing, Plugin
from backend.config.groups.models import ModelSettings
from backend.errors import ContextOverflow, ModelNotFound, ProviderTimeout, RunError

_DEFAULT = "http://127.0.0.1:11434"
_DESCRIBED_SECONDS = 60.0
"""How long a model's description is used."""
_DESCRIBE_SECONDS = 2.0
"""How long Ollama may take to describe a model."""
_DESCRIBED_AT_ONCE = 8
_MAX_DESCRIBED = 1_000

log = structlog.get_logger(__name__)


class _Provider(LangChainProvider):
    def unset(self) -> None:
        return None

    def __init__(self, endpoint: Endpoint, settings: ModelSettings) -> None:
        super().__init__(endpoint, settings)
        self._models: dict[str, tuple[float, OllamaModel]] = {}
        self._contexts: dict[str, int] = {}
        """The context with which each model is loaded, in tokens, by its full name."""

    async def listing(self) -> Listing:
        import httpx

        url = self.endpoint.shown
        try:
            names = tuple(await self.rows())
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return Listing(False, f"no Ollama answers at {url}: start it, or set {self.endpoint.url_setting}")
        if not names:
            return Listing(False, "Ollama runs but has no model: ollama pull llama3.2")
        turns = asyncio.Semaphore(_DESCRIBED_AT_ONCE)

        async def describe(name: str) -> OllamaModel:
            async with turns:
                return await self._describe(name)

        described = await asyncio.gather(*map(describe, names))
        specs = {name: model.spec for name, model in zip(names, described, strict=True)}
        return Listing(True, f"Ollama answers at {url}", names, specs=specs)

    async def rows(self) -> dict[str, Mapping[str, Any]]:
        listing = await self._get("/api/tags")
        return {str(row["name"]): row for row in listing["models"] if "name" in row}

    async def _get(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await listed(self.endpoint.network, f"{self.endpoint.root}{path}", self.headers(), body=body)

    async def _describe(self, model: str) -> OllamaModel:
        """What Ollama says about a model; asked once a minute. It is an answer's right to do without."""
        described_at, known = self._models.get(model, (0.0, None))
        if known is not None and time.monotonic() - described_at < _DESCRIBED_SECONDS:
            return known
        known = known or UNKNOWN
        try:
            async with asyncio.timeout(_DESCRIBE_SECONDS):
                known = OllamaModel.of(await self._get("/api/show", {"model": model}))
        except Exception as error:
            log.debug("ollama_describes_no_model", model=model, error=type(error).__name__)
        if len(self._models) >= _MAX_DESCRIBED:
            self._models.clear()
        self._models[model] = (time.monotonic(), known)
        return known

    async def _look_at_memory(self) -> None:
        """Learn the contexts of the models that Ollama has in memory: another one would load the model anew."""
        try:
            async with asyncio.timeout(_DESCRIBE_SECONDS):
                for row in (await self._get("/api/ps"))["models"]:
                    if isinstance(size := row.get("context_length"), int):
                        name = _full(str(row["name"]))
                        self._contexts[name] = max(size, self._contexts.get(name, 0))
        except Exception as error:
            log.debug("ollama_shows_no_memory", error=type(error).__name__)

    async def call_fields(self, model: str, prompt: Prompt) -> dict[str, Any]:
        fields = self.fields(model, prompt.parameters)
        if (context := await self._context(model, PromptSize.of(prompt), prompt.parameters.max_tokens)) is not None:
            fields["options"]["num_ctx"] = context
        return fields

    async def _context(self, model: str, size: PromptSize, answer_tokens: int) -> int | None:
        """The context to ask for, in tokens; None for a model that runs elsewhere. Raises ContextOverflow."""
        is_known, name = model in self._models, _full(model)
        described = await self._describe(model)
        if described.is_remote:
            return None
        if not is_known:
            await self._look_at_memory()
        own = self.endpoint.specs.get(model)
        if (fixed := (own and own.context) or self.settings.ollama_num_ctx) is not None:
            context = min(fixed, described.longest or fixed)
        else:
            context = size.context(answer_tokens, described, self._contexts.get(name, 0))
        self._contexts[name] = context
        if size.exceeds(context):
            raise ContextOverflow(
                f"The conversation is longer than the model's context of {context} tokens. Begin a new session."
            )
        return context

    @override
    def open(self, model: str) -> LangChainModel:
        return _Model(self, model)

    def examine(self, model: str, size: PromptSize, tokens: Tokens) -> Tokens:
        """The tokens of a call, with a mark if Ollama has cut the prompt."""
        context = self._contexts.get(_full(model), 0)
        if not context or not size.is_cut(tokens.input, context):
            return tokens
        log.warning("ollama_cut_the_prompt", model=model, read=tokens.input, about=size.tokens, num_ctx=context)
        return replace(tokens, prompt_cut=True)

    def headers(self) -> dict[str, str]:
        """What the settings add; a key, where one is set: Ollama's own service wants one."""
        endpoint = self.endpoint
        key = {"Authorization": f"Bearer {endpoint.key_text}"} if endpoint.key is not None else {}
        return endpoint.request_headers(key)

    def refusal(self, error: Exception, model: str) -> RunError:
        meant = super().refusal(error, model)
        if isinstance(meant, ModelNotFound):
            return ModelNotFound(f"Ollama has no model {model!r}.", advice=f"Get it with: ollama pull {model}")
        if isinstance(meant, ProviderTimeout):
            return ProviderTimeout(
                "Ollama did not answer in time. A large model may still be loading: try again.", retry_after=0.0
            )
        return meant

    def make(self, model: str) -> Any:
        import httpx
        from langchain_ollama import ChatOllama

        from backend.kit.network.httpx_client import HttpxTransport

        network = self.endpoint.network
        return ChatOllama(
            model=model,
            base_url=self.endpoint.base_url,
            client_kwargs={
                "timeout": httpx.Timeout(self.longest, connect=self.settings.connect_timeout),
                "trust_env": False,
                "headers": {**UNENCODED, **self.headers()},
            },
            async_client_kwargs={
                "transport": HttpxTransport(network),
                "event_hooks": {"response": [reading_hook(httpx, _mended, is_plain=True)]},
            },
            # Never used, but made: by itself it would read all certificates.
            sync_client_kwargs={"verify": network.tls()},
        )

    def fields(self, model: str, parameters: Parameters) -> dict[str, Any]:
        options = parameters.named(
            max_tokens="num_predict", temperature="temperature", top_p="top_p", seed="seed", stop="stop"
        )
        fields: dict[str, Any] = {"options": options}
        if parameters.response_schema is not None:
            fields["format"] = json.loads(parameters.response_schema)
        if (effort := parameters.reasoning_effort) is not None:
            # Only gpt-oss has levels; for the others it is on or off.
            level = "low" if effort == "minimal" else effort
            fields["reasoning"] = level if "gpt-oss" in model else True
        return fields

    async def release(self, opened: Any) -> None:
        # LangChain offers no way to close what it opened.
        await opened._async_client.close()


def _mended(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A line of the stream, or the whole answer, with what is needed of it."""
    del name
    if body.get("error"):
        return [{"error": body["error"]}]
    message = fields_in(body, "message")
    said: dict[str, Any] = {"role": "assistant", "content": text_in(message, "content")}
    if thinking := text_in(message, "thinking"):
        said["thinking"] = thinking
    if isinstance(message.get("tool_calls"), list):
        said["tool_calls"] = message["tool_calls"]
    line: dict[str, Any] = {"model": text_in(body, "model"), "message": said, "done": body.get("done") is True}
    if line["done"]:
        line["done_reason"] = reason_in(body.get("done_reason")) or "stop"
        counts = counts_in(body)
        line |= {name: counts.get(name, 0) for name in ("prompt_eval_count", "eval_count")}
    return [line]


class _Model(LangChainModel):
    def __init__(self, provider: _Provider, model: str) -> None:
        super().__init__(provider, model)
        self._ollama, self._name = provider, model

    @override
    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        async with aclosing(super().stream(prompt)) as outputs:
            async for output in outputs:
                is_count = isinstance(output, Tokens)
                yield self._ollama.examine(self._name, PromptSize.of(prompt), output) if is_count else output


def _full(model: str) -> str:
    """The name with its tag, as Ollama shows it."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


PLUGIN = Plugin(
    name="ollama",
    kinds=(Kind(name="ollama", summary="models of an Ollama", base_url=_DEFAULT, key=False, default_rank=20),),
    create=_Provider,
    needs=("langchain_ollama",),
    install="pip install langchain-ollama",
)
