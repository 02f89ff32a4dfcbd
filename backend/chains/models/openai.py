"""OpenAI, and any server that speaks its chat API, through langchain-openai."""

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from backend.chains.models.base import (
    Finish,
    Listing,
    Output,
    Plugin,
    Prompt,
    chat_messages,
    langchain_outputs,
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

if TYPE_CHECKING:
    import aiohttp

    from backend.chains.models._openai_chat import WireChatOpenAI

DEFAULT_MODEL = "gpt-4.1-mini"
_MAX_OPENED = 64
_TRACING = ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2")
"""Set to `true`, LangSmith sees every call of a model."""


class _Provider:
    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._opened: dict[tuple[str, float, int], Any] = {}
        self._session: aiohttp.ClientSession | None = None
        self.traced = any(os.environ.get(name, "").lower() == "true" for name in _TRACING)

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

        async with httpx.AsyncClient(timeout=httpx.Timeout(5.0, connect=2.0)) as client:
            answer = await client.get(
                f"{self._base_url.rstrip('/')}/models", headers={"Authorization": f"Bearer {self._key}"}
            )
            answer.raise_for_status()
            rows = cast(list[dict[str, Any]], answer.json().get("data", []))
            return sorted(str(row["id"]) for row in rows if "id" in row)

    @property
    def _base_url(self) -> str:
        return self._settings.openai_base_url or "https://api.openai.com/v1"

    @property
    def _key(self) -> str:
        # Servers of one's own want no key, but the SDK wants one.
        key = self._settings.openai_api_key
        return key.get_secret_value() if key is not None else "none"

    def open(self, model: str) -> "_Model":
        if not self._configured:
            raise ProviderRefused("openai is not set up: set OPENAI_API_KEY (or OPENAI_BASE_URL) and restart.")
        return _Model(self, model)

    def client(self, model: str, temperature: float, max_tokens: int) -> "WireChatOpenAI":
        """The LangChain chat model for these parameters; making one takes milliseconds, so they are kept."""
        from backend.chains.models._openai_chat import WireChatOpenAI

        key = (model, temperature, max_tokens)
        if key not in self._opened:
            if len(self._opened) >= _MAX_OPENED:
                self._opened.clear()
            self._opened[key] = WireChatOpenAI.over(
                self._open_session,
                self._base_url,
                self._key,
                model=model,
                temperature=temperature,
                max_tokens=max_tokens,
                streaming=True,
                stream_usage=True,
                # LangChain builds the payload of another endpoint for some names; this wire is chat completions.
                use_responses_api=False,
                # Retries and silence are the run's business; langchain's own watch costs a task a token and has
                # swallowed cancels on Python 3.11.
                max_retries=0,
                stream_chunk_timeout=None,
            )
        return self._opened[key]

    def _open_session(self) -> "aiohttp.ClientSession":
        from backend.chains.models._openai_chat import open_session

        if self._session is None:
            self._session = open_session(self._settings.connect_timeout)
        return self._session

    async def aclose(self) -> None:
        self._opened.clear()
        if self._session is not None:
            await self._session.close()
            self._session = None


class _Model:
    writes = True

    def __init__(self, provider: _Provider, model: str) -> None:
        self._provider = provider
        self._model = model

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        client = self._provider.client(self._model, prompt.temperature, prompt.max_tokens)
        outputs = _traced(client, prompt) if self._provider.traced else client.text_outputs(chat_messages(prompt))
        finished = False
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    match output:
                        case Finish("content_filter"):
                            raise ContentFiltered(
                                "The provider's content filter ended the answer. Rephrase the message."
                            )
                        case Finish():
                            finished = True
                            yield output
                        case _:
                            yield output
        except RunError:
            raise
        except Exception as error:
            raise _translate(error, self._model) from error
        if not finished:
            raise ProviderFailed(
                "The provider broke off its answer. Ask again; what came until then is kept.", retry_after=0.0
            )


async def _traced(client: "WireChatOpenAI", prompt: Prompt) -> AsyncGenerator[Output]:
    """The same stream through LangChain's callbacks."""
    chunks = cast(AsyncGenerator[Any], client.astream(chat_messages(prompt)))
    async with aclosing(chunks):
        async for chunk in chunks:
            for output in langchain_outputs(chunk):
                yield output
            if reason := chunk.response_metadata.get("finish_reason"):
                yield Finish(str(reason))


def _translate(error: Exception, model: str) -> RunError:
    """What an SDK's exception means to the caller, in our words: theirs may quote keys or prompts."""
    import aiohttp
    import httpx
    import openai

    status = getattr(error, "status_code", None)
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
    said = _said(error)
    # What may pass by itself. An empty account doesn't.
    again: float | None = None if "insufficient_quota" in said else getattr(error, "retry_after", 0.0)
    match error:
        case openai.APITimeoutError() | httpx.TimeoutException() | TimeoutError():
            return ProviderTimeout("The provider did not answer in time. Try again.", retry_after=again)
        case aiohttp.ClientSSLError():
            return ProviderFailed("The provider's certificate is not trusted. Check OPENAI_BASE_URL.")
        case openai.APIConnectionError() | httpx.TransportError() | aiohttp.ClientConnectorError():
            return ProviderFailed(
                "The provider can't be reached. Check OPENAI_BASE_URL and the network.", retry_after=again
            )
        case _ if said or isinstance(status, int):
            return _refusal(status, said, model, again)
        case _ if isinstance(error, TypeError | KeyError | ValueError):
            return ProviderFailed("The provider sent something that is no answer. Check that it speaks OpenAI's API.")
        case _:
            again = again if isinstance(error, aiohttp.ClientError | OSError) else None
            return ProviderFailed(
                "The connection to the provider broke. Ask again; what came until then is kept.", retry_after=again
            )


def _refusal(status: int | None, said: str, model: str, again: float | None) -> RunError:
    """What the provider's own error means; `status` is None for one inside a stream that doesn't tell."""
    match status:
        case _ if "context_length" in said or "maximum context" in said or "exceed_context" in said:
            return ContextOverflow("The conversation is longer than the model's context. Begin a new session.")
        case _ if "content_filter" in said or "content_policy" in said:
            return ContentFiltered("The provider's content filter refused the message. Rephrase it.")
        case _ if status == 404 or "model_not_found" in said:
            return ModelNotFound(f"The provider knows no model {model!r}. GET /models lists what it offers.")
        case _ if status in (401, 403):
            return ProviderRefused("The provider refused the key. Check OPENAI_API_KEY.")
        case _ if status == 429 or "rate_limit" in said or "insufficient_quota" in said:
            return RateLimited(
                "The provider's limit is reached: too many requests, or no quota left. Try later.", retry_after=again
            )
        case _ if isinstance(status, int) and 400 <= status < 500:
            return ProviderRefused(f"The provider refused the request (HTTP {status}). Check model and parameters.")
        case int():
            return ProviderFailed(f"The provider failed (HTTP {status}). Try again.", retry_after=again)
        case _:
            return ProviderFailed("The provider reported an error in its answer. Try again.", retry_after=again)


def _said(error: Exception) -> str:
    """The machine-readable parts of a provider's error, lower case; for deciding, never for showing."""
    if (said := getattr(error, "said", None)) is not None:
        return str(said)
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
    needs=("langchain_openai", "aiohttp"),
    install="pip install langchain-openai aiohttp",
    settings=("OPENAI_API_KEY", "OPENAI_BASE_URL"),
)
