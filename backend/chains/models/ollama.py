"""Models of a local Ollama, through langchain-ollama."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import httpx

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
from backend.errors import ModelNotFound, ProviderFailed, ProviderRefused, ProviderTimeout, RateLimited, RunError

_MAX_OPENED = 64


class _Provider:
    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self._opened: dict[tuple[str, float, int], Any] = {}

    async def listing(self) -> Listing:
        url = self.settings.ollama_base_url
        try:
            async with httpx.AsyncClient(timeout=httpx.Timeout(3.0, connect=0.5), trust_env=False) as client:
                answer = await client.get(f"{url.rstrip('/')}/api/tags")
                answer.raise_for_status()
                rows = cast(list[dict[str, Any]], answer.json().get("models", []))
                models = [str(row["name"]) for row in rows if "name" in row]
        except (httpx.HTTPError, ValueError, AttributeError):
            return Listing(False, f"no Ollama answers at {url}: start it, or set OLLAMA_BASE_URL")
        if not models:
            return Listing(False, "Ollama runs but has no model: ollama pull llama3.2")
        chat = [m for m in models if "embed" not in m]
        return Listing(True, f"Ollama answers at {url}", tuple(models), chat[0] if chat else None)

    def open(self, model: str) -> "_Model":
        return _Model(self, model)

    def client(self, model: str, temperature: float, max_tokens: int) -> Any:
        """The LangChain chat model for these parameters, kept: each has connections of its own."""
        from langchain_ollama import ChatOllama

        key = (model, temperature, max_tokens)
        if key not in self._opened:
            if len(self._opened) >= _MAX_OPENED:
                self._opened.pop(next(iter(self._opened)))
            longest = max(self.settings.first_token_timeout, self.settings.idle_timeout) + 5
            timeout = httpx.Timeout(longest, connect=self.settings.connect_timeout)
            self._opened[key] = ChatOllama(
                model=model,
                base_url=self.settings.ollama_base_url,
                temperature=temperature,
                num_predict=max_tokens,
                client_kwargs={"timeout": timeout, "trust_env": False},
            )
        return self._opened[key]

    async def aclose(self) -> None:
        # LangChain offers no way to close what it opened.
        for opened in self._opened.values():
            await opened._async_client.close()
        self._opened.clear()


class _Model:
    writes = True

    def __init__(self, provider: _Provider, model: str) -> None:
        self._provider = provider
        self._model = model

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        client = self._provider.client(self._model, prompt.temperature, prompt.max_tokens)
        finished = False
        try:
            chunks = cast(AsyncGenerator[Any], client.astream(chat_messages(prompt)))
            async with aclosing(chunks):
                async for chunk in chunks:
                    for output in _outputs(chunk):
                        finished |= isinstance(output, Finish)
                        yield output
        except RunError:
            raise
        except Exception as error:
            raise _translate(error, self._model) from error
        if not finished:
            raise ProviderFailed(
                "Ollama broke off its answer. Ask again; what came until then is kept.", retry_after=0.0
            )


def _outputs(chunk: Any) -> list[Output]:
    outputs = langchain_outputs(chunk)
    if chunk.response_metadata.get("done"):
        outputs.append(Finish(str(chunk.response_metadata.get("done_reason") or "stop")))
    return outputs


def _translate(error: Exception, model: str) -> RunError:
    """What an SDK's exception means to the caller, in our words."""
    status = getattr(error, "status_code", None)
    match error:
        case httpx.TimeoutException():
            return ProviderTimeout(
                "Ollama did not answer in time. A large model may still be loading: try again.", retry_after=0.0
            )
        case httpx.TransportError() | ConnectionError():
            return ProviderFailed("Ollama can't be reached. Start it, or check OLLAMA_BASE_URL.", retry_after=0.0)
        case _ if status == 404:
            return ModelNotFound(f"Ollama has no model {model!r}: ollama pull {model}")
        case _ if status == 429:
            return RateLimited("Ollama takes no more requests now. Try later.", retry_after=0.0)
        case _ if isinstance(status, int) and 400 <= status < 500:
            return ProviderRefused(f"Ollama refused the request (HTTP {status}). Check model and parameters.")
        case _:
            again = None if status is None else 0.0
            return ProviderFailed("Ollama failed while it answered. Its log says more; try again.", retry_after=again)


PLUGIN = Plugin(
    name="ollama",
    summary="models of a local Ollama",
    create=_Provider,
    default_rank=20,
    needs=("langchain_ollama",),
    install="pip install langchain-ollama",
    settings=("OLLAMA_BASE_URL",),
)
