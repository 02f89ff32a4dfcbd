"""What embedders behind an HTTP API share: they find out the dimension, and check and normalise the vectors."""

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from backend.chains.retrieval.embeddings._base import Embedder, EmbeddingInput, charged_request
from backend.chains.text.tokens import estimate_tokens
from backend.errors import EmbeddingFailed
from backend.kit.network.network import Network
from backend.kit.numbers import bounded

if TYPE_CHECKING:
    from backend.chains.retrieval.embeddings._base import Vectors


_EXTRA_TOKENS = 8
"""Tokens that a tokenizer may add to a text. The text itself has at most as many tokens as bytes."""


class RemoteEmbedder(Embedder):
    """The base class of providers; each adds `_client()`, a LangChain `Embeddings`.

    `label` is the provider's name in messages, `hint` says what to check if it fails, `batch` is the maximum number of
    texts in a request.
    """

    def __init__(self, name: str, network: Network, *, label: str, hint: str, batch: int) -> None:
        self._name = name
        self._network = network
        self._label = label
        self._hint = hint
        self._batch = batch
        self._dimension: int | None = None
        self._preparing = asyncio.Lock()

    @abstractmethod
    def _client(self) -> Any:
        """A LangChain `Embeddings`, the same one for each call. The first call imports the SDK: it runs in a thread."""

    @property
    @override
    def dimension(self) -> int:
        if self._dimension is None:
            raise RuntimeError("the dimension is known after prepare()")
        return self._dimension

    @property
    @override
    def fingerprint(self) -> str:
        return f"{self._name}:{self.dimension}"

    @override
    async def prepare(self) -> None:
        if self._dimension is None:
            async with self._preparing:
                if self._dimension is None:
                    await asyncio.to_thread(self._load)
                    self._dimension = (await self._embed(["dimension"])).shape[1]

    @override
    async def embed_passages(self, texts: Sequence[str]) -> "Vectors":
        import numpy as np

        await self.prepare()
        parts = [await self._embed(texts[at : at + self._batch]) for at in range(0, len(texts), self._batch)]
        return np.concatenate([np.empty((0, self.dimension), np.float32), *parts])

    @override
    async def embed_chunks(self, chunks: Sequence[EmbeddingInput]) -> "list[Vectors]":
        vectors = await self.embed_passages([chunk.text for chunk in chunks])
        return [vectors[row : row + 1] for row in range(len(chunks))]

    @override
    async def embed_query(self, text: str) -> "Vectors":
        await self.prepare()
        return (await self._embed([text]))[0]

    async def _embed(self, texts: Sequence[str]) -> "Vectors":
        # Providers refuse an empty string, and JSON can't contain a lone surrogate.
        sent = [text.encode("utf-8", "replace").decode("utf-8").strip() or "." for text in texts]
        async with charged_request(self._name, sum(len(text.encode()) + _EXTRA_TOKENS for text in sent)) as usage:
            # The estimate counts until the provider reports usage: if the request is cancelled, the provider works on.
            usage.tokens, usage.estimated = sum(map(estimate_tokens, sent)), True
            try:
                vectors, tokens = await self._request(sent)
            except Exception as error:
                usage.tokens = 0
                # The provider's own text may contain a key or a part of a document: only the class is reported.
                kind = type(error).__name__
                text = f"{self._label} could not embed text ({kind}). Try again later."
                raise EmbeddingFailed(text, advice=self._hint) from None
            # Negative numbers are ignored.
            if tokens := bounded(tokens):
                usage.tokens, usage.estimated = tokens, False
        return self._checked(vectors, len(texts))

    def _load(self) -> None:
        self._network.load()
        self._client()

    async def _request(self, texts: list[str]) -> tuple[Any, int | None]:
        """The vectors as the provider sends them, and the tokens that it reports. Raises what its SDK raises."""
        return await self._client().aembed_documents(texts), None

    def _checked(self, answer: Any, count: int) -> "Vectors":
        import numpy as np

        try:
            vectors = np.asarray(answer, np.float32).reshape(count, self._dimension or -1)
            good = vectors.size > 0 and bool(np.isfinite(vectors).all()) and len(answer) == count
        except (TypeError, ValueError):
            vectors, good = np.empty((0, 0), np.float32), False
        if not good:
            text = f"{self._label} sent vectors of another shape than asked for."
            raise EmbeddingFailed(text, advice=self._hint)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
