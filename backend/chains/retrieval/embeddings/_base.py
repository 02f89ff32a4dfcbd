"""The interface of embedding providers, and who pays for their requests."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from backend.kit.network.network import DIRECT, Network

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingSettings:
    """Settings that a provider may need. `threads` is for models that run in this process, `network` for others."""

    cache_dir: Path
    openai_api_key: str | None = field(default=None, repr=False)
    openai_base_url: str | None = field(default=None, repr=False)
    ollama_base_url: str = field(default="http://127.0.0.1:11434", repr=False)
    threads: int = 1
    network: Network = DIRECT


@dataclass(frozen=True, slots=True)
class EmbeddingInput:
    """A text, and the offsets of parts of it (code points) that get vectors of their own."""

    text: str
    offsets: Sequence[tuple[int, int]] = ()


@dataclass(slots=True)
class EmbeddingUsage:
    """The tokens of one request; `estimated` if the provider didn't report them."""

    tokens: int = 0
    estimated: bool = False


Payer = Callable[[str, int], AbstractAsyncContextManager[EmbeddingUsage]]
"""Opens the context of one request, for a model and a maximum number of tokens. When the context ends, the tokens in
`EmbeddingUsage` are paid for. Raises an error if the owner may not spend that."""
_payer: ContextVar[Payer | None] = ContextVar("payer", default=None)


@contextmanager
def charge_embeddings_to(payer: Payer) -> Generator[None]:
    """In this context, and in tasks that begin in it, `payer` pays for requests of providers. Local models are free."""
    token = _payer.set(payer)
    try:
        yield
    finally:
        _payer.reset(token)


def charged_request(model: str, max_tokens: int) -> AbstractAsyncContextManager[EmbeddingUsage]:
    """The context of one request of a provider, charged to the present payer, if there is one."""
    payer = _payer.get()
    return payer(model, max_tokens) if payer is not None else nullcontext(EmbeddingUsage())


class Embedder(Protocol):
    """Computes vectors of length 1, so that a dot product is a cosine.

    All methods except `aclose` prepare the embedder first if it isn't prepared. They raise EmbeddingFailed if the model
    can't be loaded, reached or understood.
    """

    @property
    def fingerprint(self) -> str:
        """`provider/model:dimension`: equal fingerprints, comparable vectors. RuntimeError before `prepare()`."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector. RuntimeError before `prepare()`."""
        ...

    async def prepare(self) -> None:
        """Load or reach the model, so that the first use is as fast as the next. A second call does nothing."""
        ...

    async def embed_passages(self, texts: Sequence[str]) -> "Vectors":
        """float32 (len(texts), dimension), in the order of `texts`. An empty text has a vector, too."""
        ...

    async def embed_chunks(self, chunks: Sequence[EmbeddingInput]) -> "list[Vectors]":
        """One matrix per chunk: float32 (1 + number of offsets, dimension), rows of length 1.

        The first row is the chunk's vector; then there is one for each pair of offsets, computed with the chunk as
        context. Models that have only one vector per text return (1, dimension).
        """
        ...

    async def embed_query(self, text: str) -> "Vectors":
        """float32 (dimension,). This doesn't wait for passages that are being embedded."""
        ...

    async def aclose(self) -> None:
        """Give back threads and connections. The embedder must not be used afterwards."""
        ...


class EmbeddingPlugin(Protocol):
    """The interface of each module's `PLUGIN`."""

    @property
    def name(self) -> str:
        """The part of a model's name before the slash."""
        ...

    @property
    def example(self) -> str:
        """A complete model name, for messages."""
        ...

    def open(self, model: str, settings: EmbeddingSettings) -> Embedder:
        """The embedder of a model. Raises ValueError if the provider has no such model, or if a setting is missing."""
        ...
