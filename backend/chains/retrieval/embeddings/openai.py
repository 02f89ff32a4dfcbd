"""OpenAI's embeddings, and those of any server that speaks its API (`openai_base_url`)."""

from functools import cached_property
from typing import Any

from backend.chains.retrieval.embeddings._base import EmbeddingSettings
from backend.chains.retrieval.embeddings._remote import RemoteEmbedder


class _OpenAIPlugin:
    name = "openai"
    example = "openai/text-embedding-3-small"

    def open(self, model: str, settings: EmbeddingSettings) -> "OpenAIEmbedder":
        if not settings.openai_api_key and not settings.openai_base_url:
            raise ValueError(f"the embedding model openai/{model} needs OPENAI_API_KEY")
        return OpenAIEmbedder(model, settings)


PLUGIN = _OpenAIPlugin()


class OpenAIEmbedder(RemoteEmbedder):
    """Embeds with OpenAI, or a server that speaks its API."""

    def __init__(self, model: str, settings: EmbeddingSettings) -> None:
        hint = "Check OPENAI_API_KEY, OPENAI_BASE_URL and the model's name, or try again later."
        super().__init__(f"openai/{model}", label="OpenAI", hint=hint, batch=256)
        self._model = model
        self._settings = settings

    def _client(self) -> Any:
        return self._langchain

    async def _ask(self, texts: list[str]) -> tuple[Any, int | None]:
        # What LangChain's `aembed_documents` does, which forgets the usage.
        made = await self._langchain.async_client.create(input=texts, model=self._model)
        answer: dict[str, Any] = made.model_dump()
        used: dict[str, Any] = answer.get("usage") or {}
        return [row["embedding"] for row in answer["data"]], used.get("prompt_tokens")

    async def aclose(self) -> None:
        """Close the connections."""
        if "_http" in self.__dict__:
            await self._http.aclose()

    @cached_property
    def _http(self) -> Any:
        from openai import DefaultAsyncHttpxClient

        return DefaultAsyncHttpxClient()

    @cached_property
    def _langchain(self) -> Any:
        from langchain_openai import OpenAIEmbeddings
        from pydantic import SecretStr

        return OpenAIEmbeddings(
            model=self._model,
            # A local server needs no key, the SDK does.
            api_key=SecretStr(self._settings.openai_api_key or "none"),
            base_url=self._settings.openai_base_url,
            # Else tiktoken is asked to count tokens, and downloads its table first. Chunks are far below the
            # limit.
            check_embedding_ctx_length=False,
            chunk_size=256,
            # Ours, so that it can be closed.
            http_async_client=self._http,
            timeout=60.0,
            max_retries=3,
        )
