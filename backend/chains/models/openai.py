"""OpenAI, and any server that speaks its chat API, through langchain-openai."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from backend.chains.models.base import (
    Finish,
    Listing,
    Output,
    Plugin,
    Prompt,
    Reasoning,
    Text,
    langchain_messages,
    langchain_tokens,
)
from backend.config.settings import ModelSettings
from backend.errors import (
    ContentFiltered,
    ContextOverflow,
    ModelNotFound,
    ProviderFailed,
    ProviderRefused,
    ProviderTimeout,
    RateLimited,
    RunError,
)

DEFAULT_MODEL = "gpt-4.1-mini"
_CONNECT_SECONDS = 10.0
_MAX_OPENED = 64


class _Provider:
    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._opened: dict[tuple[str, float, int], Any] = {}
        self._http: Any = None

    @property
    def _configured(self) -> bool:
        return self._settings.openai_api_key is not None or self._settings.openai_base_url is not None

    async def listing(self) -> Listing:
        if not self._configured:
            return Listing(False, "set OPENAI_API_KEY, or OPENAI_BASE_URL for a server that speaks OpenAI's API")
        where = "OPENAI_BASE_URL is set" if self._settings.openai_base_url else "OPENAI_API_KEY is set"
        try:
            models = await self._list_models()
        except Exception as error:
            reason = f"{where}, but its model list can't be read: {_translate(error, 'its models').message}"
            return Listing(True, reason, (), DEFAULT_MODEL)
        own_server = self._settings.openai_base_url is not None
        default = models[0] if models and own_server and DEFAULT_MODEL not in models else DEFAULT_MODEL
        return Listing(True, where, tuple(models), default)

    async def _list_models(self) -> list[str]:
        import httpx

        base = self._settings.openai_base_url or "https://api.openai.com/v1"
        async with httpx.AsyncClient(timeout=httpx.Timeout(5.0, connect=2.0)) as client:
            answer = await client.get(f"{base.rstrip('/')}/models", headers={"Authorization": f"Bearer {self._key}"})
            answer.raise_for_status()
            rows = cast(list[dict[str, Any]], answer.json().get("data", []))
            return sorted(str(row["id"]) for row in rows if "id" in row)

    @property
    def _key(self) -> str:
        # Servers of one's own want no key, but the SDK wants one.
        key = self._settings.openai_api_key
        return key.get_secret_value() if key is not None else "none"

    def open(self, model: str) -> "_Model":
        if not self._configured:
            raise ProviderRefused("openai is not set up: set OPENAI_API_KEY (or OPENAI_BASE_URL) and restart.")
        return _Model(self, model)

    def client(self, model: str, temperature: float, max_tokens: int) -> Any:
        """The LangChain chat model for these parameters; making one takes milliseconds, so they are kept."""
        import openai
        from langchain_openai import ChatOpenAI

        if self._http is None:
            # Our own, so that it can be closed: langchain's belongs to the process and to the loop that used it first.
            self._http = openai.DefaultAsyncHttpxClient(timeout=_timeout(self._settings))
        key = (model, temperature, max_tokens)
        if key not in self._opened:
            if len(self._opened) >= _MAX_OPENED:
                self._opened.clear()
            options: dict[str, Any] = {
                "model": model,
                "api_key": self._key,
                "base_url": self._settings.openai_base_url,
                "temperature": temperature,
                "max_tokens": max_tokens,
                "streaming": True,
                "stream_usage": True,
                # Retries and silence are the run's business; langchain's own watch costs a task a token and has
                # swallowed cancels on Python 3.11.
                "max_retries": 0,
                "stream_chunk_timeout": None,
                "timeout": _timeout(self._settings),
                "http_async_client": self._http,
            }
            self._opened[key] = ChatOpenAI(**options)
        return self._opened[key]

    async def aclose(self) -> None:
        self._opened.clear()
        if self._http is not None:
            await self._http.aclose()
            self._http = None


class _Model:
    writes = True

    def __init__(self, provider: _Provider, model: str) -> None:
        self._provider = provider
        self._model = model

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        client = self._provider.client(self._model, prompt.temperature, prompt.max_tokens)
        finished = False
        try:
            chunks = cast(AsyncGenerator[Any], client.astream(langchain_messages(prompt)))
            async with aclosing(chunks):
                async for output in _outputs(chunks):
                    finished |= isinstance(output, Finish)
                    yield output
        except RunError:
            raise
        except Exception as error:
            raise _translate(error, self._model) from error
        if not finished:
            raise ProviderFailed("The provider broke off its answer. Ask again; what came until then is kept.")


async def _outputs(chunks: AsyncIterator[Any]) -> AsyncGenerator[Output]:
    async for chunk in chunks:
        if reasoning := chunk.additional_kwargs.get("reasoning_content"):
            yield Reasoning(str(reasoning))
        if text := chunk.text:
            yield Text(str(text))
        if usage := chunk.usage_metadata:
            yield langchain_tokens(usage)
        if reason := chunk.response_metadata.get("finish_reason"):
            if reason == "content_filter":
                raise ContentFiltered("The provider's content filter ended the answer. Rephrase the message.")
            yield Finish(str(reason))


def _timeout(settings: ModelSettings) -> Any:
    import httpx2

    # The run watches for silence; this only bounds what the run can't see.
    longest = max(settings.first_token_timeout, settings.idle_timeout) + 5
    return httpx2.Timeout(longest, connect=_CONNECT_SECONDS)


def _translate(error: Exception, model: str) -> RunError:
    """What an SDK's exception means to the caller, in our words: theirs may quote keys or prompts."""
    import httpx
    import openai

    status = getattr(error, "status_code", None)
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
    said = _said(error)
    match error:
        case openai.APITimeoutError() | httpx.TimeoutException():
            return ProviderTimeout("The provider did not answer in time. Try again.")
        case openai.APIConnectionError() | httpx.TransportError():
            return ProviderFailed("The provider can't be reached. Check OPENAI_BASE_URL and the network.")
        case _ if "context_length" in said or "maximum context" in said or "exceed_context" in said:
            return ContextOverflow("The conversation is longer than the model's context. Begin a new session.")
        case _ if "content_filter" in said or "content_policy" in said:
            return ContentFiltered("The provider's content filter refused the message. Rephrase it.")
        case _ if status == 404 or "model_not_found" in said:
            return ModelNotFound(f"The provider knows no model {model!r}. GET /models lists what it offers.")
        case _ if status in (401, 403):
            return ProviderRefused("The provider refused the key. Check OPENAI_API_KEY.")
        case _ if status == 429 or "rate_limit" in said or "insufficient_quota" in said:
            return RateLimited("The provider's limit is reached: too many requests, or no quota left. Try later.")
        case _ if isinstance(status, int) and 400 <= status < 500:
            return ProviderRefused(f"The provider refused the request (HTTP {status}). Check model and parameters.")
        case _ if isinstance(status, int):
            return ProviderFailed(f"The provider failed (HTTP {status}). Try again.")
        case openai.APIError():
            return ProviderFailed("The provider reported an error in the middle of its answer. Try again.")
        case _ if isinstance(error, json.JSONDecodeError | TypeError | KeyError | ValueError):
            return ProviderFailed("The provider sent something that is no answer. Check that it speaks OpenAI's API.")
        case _:
            return ProviderFailed("The connection to the provider broke. Ask again; what came until then is kept.")


def _said(error: Exception) -> str:
    """The machine-readable parts of a provider's error, lower case; for deciding, never for showing."""
    body = getattr(error, "body", None)
    pieces = [getattr(error, "code", None), getattr(error, "type", None)]
    if isinstance(body, dict):
        fields = cast(dict[str, Any], body)
        pieces += [fields.get("code"), fields.get("type"), fields.get("message")]
    return " ".join(str(p) for p in pieces if p).lower()


PLUGIN = Plugin(
    name="openai",
    summary="OpenAI, or any server that speaks its chat API (OPENAI_BASE_URL)",
    create=_Provider,
    default_rank=10,
    needs=("langchain_openai",),
    install="pip install langchain-openai",
    settings=("OPENAI_API_KEY", "OPENAI_BASE_URL"),
)
