"""OpenAI, and every server that speaks its chat API, through langchain-openai. Each is a row of the table."""

import json
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from backend.chains.models._chat_messages import chat_messages
from backend.chains.models._langchain import ChunkReader, listed
from backend.chains.models._opened import OpenedModels
from backend.chains.models._quirk_book import QuirkBook, adapted
from backend.chains.models._refusals import is_unreached, refusal_of, unlisted
from backend.chains.models._rows import in_order, spec_of_row, with_details
from backend.chains.models._stops import ended_before
from backend.chains.models.prompt import Output, Parameters, Prompt
from backend.chains.models.provider import Endpoint, Kind, Listing, Plugin
from backend.config.groups.models import ModelSettings
from backend.config.quirks import ModelQuirks
from backend.errors import ProviderRefused, RunError

if TYPE_CHECKING:
    from backend.chains.models._openai_stream import StreamingChatOpenAI
    from backend.kit.network.aiohttp_session import StreamSession

_VENDORS = (".openai.com", ".openai.azure.com", ".cognitiveservices.azure.com")
"""Hosts that know the newer name of the limit, and for some models only that."""
_TRACING = ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2")
"""If one of these is `true`, every call is sent to LangSmith."""


@dataclass(frozen=True, slots=True)
class Quirks:
    """How a server's API differs from OpenAI's. `limit`, `seed` and `effort` are its names for these parameters;
    `default` is the model if none is named, None the first of its list."""

    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    seed: Literal["seed", "random_seed"] = "seed"
    effort: Literal["reasoning_effort", "reasoning"] = "reasoning_effort"
    stream_options: bool = True
    key_header: str = "Authorization"
    default: str | None = None


class _Provider:
    def __init__(self, endpoint: Endpoint, settings: ModelSettings) -> None:
        self.endpoint = endpoint
        self._settings = settings
        self.book = QuirkBook(endpoint, _usual_quirks(endpoint, self.quirks))
        self._opened = OpenedModels(self._make_client)
        self._session: StreamSession | None = None
        self._http: Any = None
        self.traced = any(os.environ.get(name, "").lower() == "true" for name in _TRACING)

    @property
    def quirks(self) -> Quirks:
        return self.endpoint.kind.quirks or Quirks()

    def _unset(self) -> str | None:
        """The setting that is missing, or None."""
        endpoint = self.endpoint
        if endpoint.base_url is None:
            return f"set {endpoint.url_setting}"
        if endpoint.kind.key and endpoint.key is None and not endpoint.own_address:
            other = f", or {endpoint.url_setting} for a server that speaks OpenAI's API" if _is_openai(endpoint) else ""
            return f"set {endpoint.key_setting}{other}"
        return None

    async def listing(self) -> Listing:
        if unset := self._unset():
            return Listing(False, unset)
        endpoint = self.endpoint
        where = endpoint.set_up if endpoint.own_address or endpoint.kind.key else f"it answers at {endpoint.shown}"
        # The vendor's advice is about the vendor's models.
        advised = None if endpoint.own_address else self.quirks.default
        try:
            rows = await self._list_rows()
        except Exception as error:
            if not endpoint.kind.key and not self.endpoint.own_address:
                return Listing(False, f"nothing answers at {endpoint.shown}: start it, or set {endpoint.url_setting}")
            reason = f"{where}, but its model list can't be read: {unlisted(refusal_of(error, '', endpoint), endpoint)}"
            return Listing(not is_unreached(error), reason, (), advised)
        default = self.quirks.default if self.quirks.default in rows else advised
        specs = {name: spec_of_row(row) for name, row in rows.items()}
        return Listing(True, where, in_order(rows), default, specs)

    async def _list_rows(self) -> dict[str, Mapping[str, Any]]:
        """The rows of the list, by the model's name."""
        get = partial(listed, self.endpoint.network, headers=self.headers())
        listing = await get(f"{self.endpoint.root}/models")
        rows = {str(row["id"]): row for row in listing.get("data", ()) if "id" in row}
        return await with_details(rows, self.endpoint, get)

    def headers(self) -> dict[str, str]:
        """The headers that say who asks."""
        # A user's own server needs no key, but some require the header.
        key, name = self.endpoint.key_text, self.quirks.key_header
        return self.endpoint.request_headers({name: f"Bearer {key}" if name == "Authorization" else key})

    def open(self, model: str) -> "_Model":
        if unset := self._unset():
            raise ProviderRefused(f"{self.endpoint.name} is not set up.", advice=f"To use it, {unset} and restart.")
        return _Model(self, model)

    async def client(self, model: str) -> "StreamingChatOpenAI":
        """The LangChain chat model; making one takes milliseconds, so they are kept."""
        return await self._opened.get(model)

    def _make_client(self, model: str) -> "StreamingChatOpenAI":
        from backend.chains.models._openai_stream import ServerConnection, StreamingChatOpenAI

        self.endpoint.network.load()
        server = ServerConnection(
            str(self.endpoint.base_url), self.headers(), partial(self.book.of, model), self._settings.idle_timeout
        )
        return StreamingChatOpenAI.over(
            self._open_session,
            server,
            model=model,
            streaming=True,
            stream_usage=True,
            # LangChain builds the payload of another endpoint for some names; this protocol is chat completions.
            use_responses_api=False,
            # Retries and silence are the run's business; langchain's own watch costs a task a token and has
            # swallowed cancels on Python 3.11.
            max_retries=0,
            stream_chunk_timeout=None,
            **self._http_options(),
        )

    def _http_options(self) -> dict[str, Any]:
        """LangChain's own clients, which answer only while calls are traced, in our network."""
        import httpx2

        from backend.kit.network.httpx2_client import httpx2_client

        network = self.endpoint.network
        if self._http is None:
            self._http = httpx2_client(network, follow_redirects=True)
        # The other one is never used, but made: by itself it would read all certificates.
        unused = httpx2.Client(verify=network.tls(), trust_env=False)
        return {"http_async_client": self._http, "http_client": unused, "openai_proxy": None, "http_socket_options": ()}

    def _open_session(self) -> "StreamSession":
        from backend.kit.network.aiohttp_session import StreamSession

        if self._session is None:
            self._session = StreamSession(self.endpoint.network, self._settings.connect_timeout)
        return self._session

    async def aclose(self) -> None:
        await self._opened.close()
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._http is not None:
            await self._http.aclose()
            self._http = None


class _Model:
    writes = True

    def __init__(self, provider: _Provider, model: str) -> None:
        self._provider = provider
        self._model = model

    def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        outputs, stops = self._stream(prompt), prompt.parameters.stop
        return ended_before(outputs, stops) if stops else outputs

    async def _stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        """The outputs; asked again if the provider refuses a parameter that can be left out."""
        book, tried = self._provider.book, set[str]()
        client = await self._provider.client(self._model)
        while True:
            outputs, has_output = self._outputs(client, prompt, book.of(self._model)), False
            try:
                async with aclosing(outputs):
                    async for output in outputs:
                        has_output = True
                        yield output
                return
            except RunError:
                raise
            except Exception as error:
                if has_output or not book.learn(self._model, error, prompt, tried):
                    raise refusal_of(error, self._model, self._provider.endpoint) from error

    def _outputs(self, client: "StreamingChatOpenAI", prompt: Prompt, quirks: ModelQuirks) -> AsyncGenerator[Output]:
        """The outputs of one call of a model with these quirks."""
        fields = _fields(adapted(prompt.parameters, quirks), quirks)
        messages = chat_messages(prompt, quirks)
        traced = self._provider.traced
        return _traced(client, messages, fields) if traced else client.text_outputs(messages, fields)


def _usual_quirks(endpoint: Endpoint, row: Quirks) -> ModelQuirks:
    """The quirks of the row. At an address of one's own stands mostly a server that knows the older name of the limit
    only; those that refuse it say so."""
    host = urlsplit(endpoint.root).hostname or ""
    is_vendor = not _is_openai(endpoint) or not endpoint.own_address or host.endswith(_VENDORS)
    limit = row.limit if is_vendor else "max_tokens"
    return ModelQuirks(limit=limit, seed=row.seed, effort=row.effort, stream_options=row.stream_options)


def _fields(parameters: Parameters, quirks: ModelQuirks) -> dict[str, Any]:
    """The parameters as the request has them; the limit is renamed later."""
    fields = parameters.named(
        max_tokens="max_completion_tokens",
        temperature="temperature",
        top_p="top_p",
        seed=quirks.seed or "seed",
        stop="stop",
    )
    if parameters.reasoning_effort is not None:
        effort = parameters.reasoning_effort
        if quirks.effort == "reasoning":
            fields["reasoning"] = {"effort": effort}
        else:
            fields["reasoning_effort"] = effort
    if parameters.response_schema is not None:
        schema = json.loads(parameters.response_schema)
        described = {"name": "answer", "strict": _is_strict(schema), "schema": schema}
        fields["response_format"] = {"type": "json_schema", "json_schema": described}
    return fields


def _is_strict(schema: Any) -> bool:
    """Whether it is one that OpenAI can hold a model to: each object names all that it may have, and needs it all."""
    if isinstance(schema, list):
        return all(map(_is_strict, cast(list[Any], schema)))
    if not isinstance(schema, dict):
        return True
    parts = cast(dict[str, Any], schema)
    if parts.get("type") == "object" or "properties" in parts:
        named = set(parts.get("properties") or ())
        if parts.get("additionalProperties") is not False or named != set(parts.get("required") or ()):
            return False
    return all(map(_is_strict, parts.values()))


async def _traced(
    client: "StreamingChatOpenAI", messages: Sequence[tuple[str, Any]], fields: dict[str, Any]
) -> AsyncGenerator[Output]:
    """The same stream through LangChain's callbacks."""
    chunks = cast(AsyncGenerator[Any], client.astream(list(messages), **fields))
    reader = ChunkReader()
    async with aclosing(chunks):
        async for chunk in chunks:
            for output in reader.outputs(chunk):
                yield output
    for output in reader.ending.outputs():
        yield output


def _is_openai(endpoint: Endpoint) -> bool:
    return endpoint.kind.name == "openai"


_KINDS = (
    Kind(
        name="openai",
        summary="OpenAI, or any server that speaks its chat API (OPENAI_BASE_URL)",
        base_url="https://api.openai.com/v1",
        profiles="langchain_openai",
        prices="openai",
        hides_reasoning="by_model",
        default_rank=10,
        quirks=Quirks(limit="max_completion_tokens", default="gpt-4.1-mini"),
    ),
    Kind(
        name="azure",
        summary="Azure OpenAI: AZURE_BASE_URL is https://<name>.openai.azure.com/openai/v1, models are deployments",
        profiles="langchain_openai",
        prices="azure",
        hides_reasoning="by_model",
        quirks=Quirks(limit="max_completion_tokens", key_header="api-key"),
    ),
    Kind(
        name="openrouter",
        summary="OpenRouter, many vendors' models behind one key",
        base_url="https://openrouter.ai/api/v1",
        prices="openrouter",
        hides_reasoning="by_model",
        quirks=Quirks(effort="reasoning"),
    ),
    Kind(
        name="groq",
        summary="Groq",
        base_url="https://api.groq.com/openai/v1",
        prices="groq",
        quirks=Quirks(limit="max_completion_tokens"),
    ),
    Kind(
        name="deepseek",
        summary="DeepSeek",
        base_url="https://api.deepseek.com/v1",
        refuses=frozenset({"seed", "response_schema", "images"}),
        prices="deepseek",
    ),
    Kind(
        name="mistral",
        summary="Mistral",
        base_url="https://api.mistral.ai/v1",
        prices="mistral",
        quirks=Quirks(seed="random_seed", stream_options=False),
    ),
    Kind(name="xai", summary="xAI", base_url="https://api.x.ai/v1", prices="x-ai", hides_reasoning="by_model"),
    Kind(name="together", summary="Together", base_url="https://api.together.xyz/v1", prices="together"),
    Kind(name="fireworks", summary="Fireworks", base_url="https://api.fireworks.ai/inference/v1", prices="fireworks"),
    Kind(
        name="cerebras",
        summary="Cerebras",
        base_url="https://api.cerebras.ai/v1",
        prices="cerebras",
        quirks=Quirks(limit="max_completion_tokens"),
    ),
    Kind(name="nvidia", summary="NVIDIA's NIM models", base_url="https://integrate.api.nvidia.com/v1"),
    Kind(name="vllm", summary="a vLLM server", base_url="http://127.0.0.1:8000/v1", key=False),
    Kind(name="llamacpp", summary="llama.cpp's server", base_url="http://127.0.0.1:8080/v1", key=False),
    Kind(name="lmstudio", summary="LM Studio's server", base_url="http://127.0.0.1:1234/v1", key=False),
)

PLUGIN = Plugin(
    name="openai",
    kinds=_KINDS,
    create=_Provider,
    needs=("langchain_openai", "aiohttp"),
    install="pip install langchain-openai aiohttp",
)
