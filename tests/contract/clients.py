"""Every kind of client that this server has, each as one small task, so that a test plays on every one of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from backend.chains.models import endpoints
from backend.chains.models.prompt import Parameters, Prompt, Text
from backend.chains.models.provider import Provider
from backend.chains.retrieval.embeddings import EmbeddingSettings, open_embedder
from backend.chains.retrieval.rerankers import RerankerSettings, open_reranker
from backend.config.groups.models import ModelSettings
from backend.config.models_file import ProviderSpec, ProviderTable
from backend.kit.network.network import Network
from tests.support.provider_protocol import json_response
from tests.support.provider_server import ProviderServer

WIRES = ("openai", "ollama", "anthropic", "google", "cohere")
PROMPT = Prompt(system="Be brief.", history=(), content="hi", question="hi", parameters=Parameters(max_tokens=50))


@dataclass(frozen=True)
class Connection:
    """How a client is set up: the provider's URL without a path, its key, and the network."""

    url: str
    network: Network
    key: str | None = None


@asynccontextmanager
async def opened_provider(wire: str, connection: Connection) -> AsyncIterator[Provider]:
    """The provider of a wire, as the server makes it."""
    url = f"{connection.url}/v1" if wire == "openai" else connection.url
    key = SecretStr(connection.key) if connection.key is not None else None
    table = ProviderTable(providers={"work": ProviderSpec(kind=wire, base_url=url, api_key=key)})
    plugin, endpoint = next((p, e) for p, e in endpoints(table, connection.network) if e.name == "work")
    provider = plugin.create(endpoint, ModelSettings.model_validate({"connect_timeout": 5.0}))
    try:
        yield provider
    finally:
        await provider.aclose()


async def text_by(provider: Provider) -> str:
    """One answer."""
    outputs = [output async for output in provider.open("test-model").stream(PROMPT)]
    return "".join(output.text for output in outputs if isinstance(output, Text))


def _listing(wire: str) -> "Task":
    async def listing(server: ProviderServer, connection: Connection) -> bool:
        async with opened_provider(wire, connection) as provider:
            return "test-model" in (await provider.listing()).models

    return listing


def _answering(wire: str) -> "Task":
    async def answering(server: ProviderServer, connection: Connection) -> bool:
        async with opened_provider(wire, connection) as provider:
            return await text_by(provider) == "Hello from the provider."

    return answering


def _embedding(kind: str) -> "Task":
    async def embedding(server: ProviderServer, connection: Connection) -> bool:
        url: dict[str, Any] = {f"{kind}_base_url": f"{connection.url}/v1" if kind == "openai" else connection.url}
        key: dict[str, Any] = {"openai_api_key": connection.key} if kind == "openai" else {}
        settings = EmbeddingSettings(cache_dir=Path(), network=connection.network, **url, **key)
        embedder = open_embedder(f"{kind}/test", settings)
        try:
            await embedder.prepare()
            return embedder.dimension > 0
        finally:
            await embedder.aclose()

    return embedding


async def _reranking(server: ProviderServer, connection: Connection) -> bool:
    server.script([json_response(200, {"results": [{"index": 0, "relevance_score": 0.5}]})], path="/rerank")
    settings = RerankerSettings(api_key=connection.key, network=connection.network)
    reranker = open_reranker(connection.url, settings)
    try:
        return await reranker.scores("rent", ["one"]) == [0.5]
    finally:
        await reranker.aclose()


Task = Callable[[ProviderServer, Connection], Awaitable[bool]]
"""Uses a client once. Returns whether it got what it asked for; a failure is an exception or False."""

CLIENTS: dict[str, Task] = {
    **{f"{wire} list": _listing(wire) for wire in WIRES},
    **{f"{wire} answer": _answering(wire) for wire in WIRES},
    "openai embeddings": _embedding("openai"),
    "ollama embeddings": _embedding("ollama"),
    "reranker": _reranking,
}
