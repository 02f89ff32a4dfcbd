"""Embeddings of OpenAI, and of any server with the same API (`openai_base_url`)."""

from functools import cached_property
from typing import Any

from typing_extensions import override

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
    """A model of OpenAI, or of a server with the same API."""

    def __init__(self, model: str, settings: EmbeddingSettings) -> None:
        hint = "Check OPENAI_API_KEY, OPENAI_BASE_URL and the model's name."
        super().__init__(f"openai/{model}", settings.network, label="OpenAI", hint=hint, batch=256)
        self._model = model
        self._settings = settings
        url, has_key = settings.openai_base_url, bool(settings.openai_api_key)
        self._address = settings.network.address(url, has_key=has_key) if url else None

    @override
    def _client(self) -> Any:
        return self._langchain

    @override
    async def _request(self, texts: list[str]) -> tuple[Any, int | None]:
        # LangChain's `aembed_documents` does the same, but it drops the usage.
        response = await self._langchain.async_client.create(input=texts, model=self._model)
        answer: dict[str, Any] = response.model_dump()
        usage: dict[str, Any] = answer.get("usage") or {}
        return [row["embedding"] for row in answer["data"]], usage.get("prompt_tokens")

    @override
    async def aclose(self) -> None:
        if "_http" in self.__dict__:
            await self._http.aclose()

    @cached_property
    def _http(self) -> Any:
        from backend.kit.network.httpx2_client import httpx2_client

        return httpx2_client(self._settings.network, follow_redirects=True)

    @cached_property
    def _langchain(self) -> Any:
        from langchain_openai import OpenAIEmbeddings
        from pydantic import SecretStr

        address = self._address
        return OpenAIEmbeddings(
            model=self._model,
            # A local server needs no key, but the SDK does.
            api_key=SecretStr(self._settings.openai_api_key or "none"),
            base_url=address.url if address is not None else None,
            # It takes precedence over the key.
            default_headers={"Authorization": address.login} if address is not None and address.login else None,
            # Otherwise tiktoken counts tokens, and first downloads its table. Chunks are far below the limit.
            check_embedding_ctx_length=False,
            chunk_size=256,
            # Our own client, which knows our network, and which we can close.
            http_async_client=self._http,
            openai_proxy=None,
            timeout=60.0,
            max_retries=3,
        )
