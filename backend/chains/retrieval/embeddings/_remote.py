"""What embedders behind an HTTP API share: discovering the dimension, checking and normalising what comes
back.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from backend.chains.retrieval.embeddings._base import EmbeddedText, Embedder, paying
from backend.chains.text.tokens import estimate_tokens
from backend.errors import EmbeddingFailed

if TYPE_CHECKING:
    from backend.chains.retrieval.embeddings._base import Vectors


_TOKENS_A_TEXT = 8
"""What a tokenizer may add at the ends; of the text itself it makes no more tokens than it has bytes."""


class RemoteEmbedder(Embedder):
    """An embedder behind an HTTP API. A provider adds `_client()`, a LangChain `Embeddings`.

    `label` is the provider's name in messages, `hint` what to check when it fails, `batch` texts of one
    request.
    """

    def __init__(self, name: str, *, label: str, hint: str, batch: int) -> None:
        self._name = name
        self._label = label
        self._hint = hint
        self._batch = batch
        self._dimension: int | None = None
        self._preparing = asyncio.Lock()

    @abstractmethod
    def _client(self) -> Any:
        """A LangChain `Embeddings`, the same one at each call. Imports its SDK here."""

    @property
    def dimension(self) -> int:
        if self._dimension is None:
            raise RuntimeError("the dimension is known after prepare()")
        return self._dimension

    @property
    def fingerprint(self) -> str:
        return f"{self._name}:{self.dimension}"

    async def prepare(self) -> None:
        if self._dimension is None:
            async with self._preparing:
                if self._dimension is None:
                    self._dimension = (await self._embed(["dimension"])).shape[1]

    async def embed_passages(self, texts: Sequence[str]) -> "Vectors":
        import numpy as np

        await self.prepare()
        parts = [await self._embed(texts[at : at + self._batch]) for at in range(0, len(texts), self._batch)]
        return np.concatenate([np.empty((0, self.dimension), np.float32), *parts])

    async def embed_chunks(self, chunks: Sequence[EmbeddedText]) -> "list[Vectors]":
        vectors = await self.embed_passages([chunk.text for chunk in chunks])
        return [vectors[row : row + 1] for row in range(len(chunks))]

    async def embed_query(self, text: str) -> "Vectors":
        await self.prepare()
        return (await self._embed([text]))[0]

    @abstractmethod
    @override
    async def aclose(self) -> None: ...

    async def _embed(self, texts: Sequence[str]) -> "Vectors":
        # Providers refuse an empty string, and JSON cannot carry a lone surrogate.
        sent = [text.encode("utf-8", "replace").decode("utf-8").strip() or "." for text in texts]
        async with paying(self._name, sum(len(text.encode()) + _TOKENS_A_TEXT for text in sent)) as paid:
            # Until the provider has said: who is cancelled meanwhile leaves it at work.
            paid.tokens, paid.estimated = sum(map(estimate_tokens, sent)), True
            try:
                answer, tokens = await self._ask(sent)
            except Exception as error:
                paid.tokens = 0
                # The provider's own words may hold a key or a part of a document: the log gets the class, no
                # more.
                kind = type(error).__name__
                raise EmbeddingFailed(f"{self._label} could not embed text ({kind}). {self._hint}") from None
            # Whatever it is worth.
            if tokens and tokens > 0:
                paid.tokens, paid.estimated = tokens, False
        return self._checked(answer, len(texts))

    async def _ask(self, texts: list[str]) -> tuple[Any, int | None]:
        """Vectors as the provider gives them, and how many tokens it counted, if it says. Raises what its SDK does."""
        return await self._client().aembed_documents(texts), None

    def _checked(self, answer: Any, count: int) -> "Vectors":
        import numpy as np

        try:
            vectors = np.asarray(answer, np.float32).reshape(count, self._dimension or -1)
            good = vectors.size > 0 and bool(np.isfinite(vectors).all()) and len(answer) == count
        except (TypeError, ValueError):
            vectors, good = np.empty((0, 0), np.float32), False
        if not good:
            raise EmbeddingFailed(f"{self._label} sent vectors of another shape than asked for. {self._hint}")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
