"""Embeddings of a local Ollama."""

from functools import cached_property
from typing import Any

from backend.chains.retrieval.embeddings._base import EmbeddingSettings
from backend.chains.retrieval.embeddings._remote import RemoteEmbedder


class _OllamaPlugin:
    name = "ollama"
    example = "ollama/nomic-embed-text"

    def open(self, model: str, settings: EmbeddingSettings) -> "OllamaEmbedder":
        return OllamaEmbedder(model, settings)


PLUGIN = _OllamaPlugin()


class OllamaEmbedder(RemoteEmbedder):
    """Embeds with a model of Ollama."""

    def __init__(self, model: str, settings: EmbeddingSettings) -> None:
        hint = f"Check that Ollama is running at OLLAMA_BASE_URL and has the model: ollama pull {model}"
        super().__init__(f"ollama/{model}", label="Ollama", hint=hint, batch=64)
        self._model = model
        self._base_url = settings.ollama_base_url

    def _client(self) -> Any:
        return self._langchain

    async def aclose(self) -> None:
        """Close the connections."""
        if "_langchain" in self.__dict__:
            await self._langchain._async_client.close()  # LangChain has no way of its own

    @cached_property
    def _langchain(self) -> Any:
        from langchain_ollama import OllamaEmbeddings

        return OllamaEmbeddings(
            model=self._model,
            base_url=self._base_url,
            # Loading a model can take a minute; a server that is not there is noticed at once.
            client_kwargs={"timeout": 120.0},
        )
