"""What every embedding provider offers."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingSettings:
    """What providers may need. `threads` is for models that run in this process."""

    cache_dir: Path
    openai_api_key: str | None = field(default=None, repr=False)
    openai_base_url: str | None = None
    ollama_base_url: str = "http://127.0.0.1:11434"
    threads: int = 1


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    """A text to be embedded, and spans of it (code points) that get vectors of their own."""

    text: str
    spans: Sequence[tuple[int, int]] = ()


@dataclass(slots=True)
class Embedded:
    """Tokens that a request of a provider took; `estimated`: it didn't say how many."""

    tokens: int = 0
    estimated: bool = False


Payer = Callable[[str, int], AbstractAsyncContextManager[Embedded]]
"""Opens a request of a model that takes so many tokens at most, and pays for what is put into `Embedded` until its end.
Raises what forbids it."""
_payer: ContextVar[Payer | None] = ContextVar("payer", default=None)


@contextmanager
def paid_by(payer: Payer) -> Generator[None]:
    """Who pays what providers embed within, also in tasks begun there. Models of this process cost nothing."""
    token = _payer.set(payer)
    try:
        yield
    finally:
        _payer.reset(token)


def paying(model: str, most: int) -> AbstractAsyncContextManager[Embedded]:
    """One request of a provider, paid for by whoever is there to."""
    payer = _payer.get()
    return payer(model, most) if payer is not None else nullcontext(Embedded())


class Embedder(Protocol):
    """Turns text into vectors of length 1, so that a dot product is a cosine.

    All methods but `aclose` prepare the embedder first if nobody has. They raise EmbeddingFailed when the
    model cannot be loaded, reached or understood.
    """

    @property
    def fingerprint(self) -> str:
        """`provider/model:dimension`: which vectors these are. RuntimeError before `prepare()`."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector. RuntimeError before `prepare()`."""
        ...

    async def prepare(self) -> None:
        """Load or reach the model, so that the first use is as fast as the next. Again: does nothing."""
        ...

    async def embed_passages(self, texts: Sequence[str]) -> "Vectors":
        """float32 (len(texts), dimension), in the order of `texts`. An empty text gives some vector, no
        error.
        """
        ...

    async def embed_chunks(self, chunks: Sequence[EmbeddedText]) -> "list[Vectors]":
        """A matrix a chunk, float32 (1 + its spans, dimension): the chunk's vector, then one for each span, read in
        the chunk's context; (1, dimension) from models that give one vector a text. Rows of length 1.
        """
        ...

    async def embed_query(self, text: str) -> "Vectors":
        """float32 (dimension,). Does not wait for passages that are being embedded."""
        ...

    async def aclose(self) -> None:
        """Give threads and connections back. The embedder is not used afterwards."""
        ...


class EmbeddingPlugin(Protocol):
    """What a module of this folder offers as `PLUGIN`."""

    @property
    def name(self) -> str:
        """The part of a model's name before the slash."""
        ...

    @property
    def example(self) -> str:
        """A full model name, for messages."""
        ...

    def open(self, model: str, settings: EmbeddingSettings) -> Embedder:
        """Raises ValueError when the provider is known to have no such model, or lacks a setting."""
        ...
