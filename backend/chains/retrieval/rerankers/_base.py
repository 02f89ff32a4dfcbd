"""What every reranker offers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class RerankerSettings:
    """What rerankers may need. `threads` is for models that run in this process."""

    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    threads: int = 1


class RerankFailed(Exception):
    """A reranker could not be loaded, reached or understood. The text is for whoever runs the server, and holds nothing
    of what a provider said.
    """


class Reranker(Protocol):
    """Reads a query and a text together, and says how well the text answers it."""

    @property
    def name(self) -> str:
        """`kind:model`, for logs and explanations."""
        ...

    async def prepare(self) -> None:
        """Load what is needed, so that the first use is as fast as the next. Calls nobody. Raises RerankFailed."""
        ...

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """A finite score for each text, in the order of `texts`, higher for better, on a scale of the model's own.

        Takes as long as it takes: the caller sets the deadline, by cancelling. Raises RerankFailed.
        """
        ...

    async def aclose(self) -> None:
        """Give threads and connections back. The reranker is not used afterwards."""
        ...


class RerankerPlugin(Protocol):
    """What a module of this folder offers as `PLUGIN`."""

    @property
    def name(self) -> str:
        """The part of RERANKER before the colon."""
        ...

    @property
    def example(self) -> str:
        """A whole RERANKER, for messages."""
        ...

    def open(self, where: str, settings: RerankerSettings) -> Reranker:
        """The reranker at a URL or path. Raises ValueError when it is known that there can be none."""
        ...
