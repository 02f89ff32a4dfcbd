"""Embeddings of a local Ollama."""

from functools import cached_property
from typing import Any

from typing_extensions import override

from backend.chains.retrieval.embeddings._base import EmbeddingSettings
from backend.chains.retrieval.embeddings._remote import RemoteEmbedder


class _OllamaPlugin:
    name = "ollama"
    example = "ollama/nomic-embed-text"

    def open(self, model: str, settings: EmbeddingSettings) -> "OllamaEmbedder":
        return OllamaEmbedder(model, settings)


PLUGIN = _OllamaPlugin()


class OllamaEmbedder(RemoteEmbedder):
    """A model of a local Ollama."""

    def __init__(self, model: str, settings: EmbeddingSettings) -> None:
        hint = f"Check that Ollama is running at OLLAMA_BASE_URL and has the model: ollama pull {model}"
        super().__init__(f"ollama/{model}", settings.network, label="Ollama", hint=hint, batch=64)
        self._model = model
        self._address = settings.network.address(settings.ollama_base_url)

    @override
    def _client(self) -> Any:
        return self._langchain

    @override
    async def aclose(self) -> None:
        if "_langchain" in self.__dict__:
            await self._langchain._async_client.close()  # LangChain has no public method

    @cached_property
    def _langchain(self) -> Any:
        from langchain_ollama import OllamaEmbeddings

        from backend.kit.network.httpx_client import HttpxTransport

        login = self._address.login
        return OllamaEmbeddings(
            model=self._model,
            base_url=self._address.url,
            client_kwargs={
                # Loading a model can take a minute. If the server is down, the request fails at once.
                "timeout": 120.0,
                "trust_env": False,
                "headers": {"Authorization": login} if login is not None else {},
            },
            async_client_kwargs={"transport": HttpxTransport(self._network)},
            # Never used, but made: by itself it would read all certificates.
            sync_client_kwargs={"verify": self._network.tls()},
        )
