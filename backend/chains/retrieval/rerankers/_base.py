"""The interface of rerankers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backend.kit.network.network import DIRECT, Network


@dataclass(frozen=True)
class RerankerSettings:
    """Settings that a reranker may need. `threads` is for models that run in this process, `network` for others."""

    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    threads: int = 1
    network: Network = DIRECT


class RerankFailed(Exception):
    """A reranker could not be loaded, reached or understood.

    The message is for the operator. It must not contain a provider's own text, which may quote the request.
    """


class Reranker(Protocol):
    """A model that reads a query and a text together and rates how well the text answers the query."""

    @property
    def name(self) -> str:
        """`kind:model`, for logs and explanations."""
        ...

    async def prepare(self) -> None:
        """Load what is needed, so that the first use is as fast as the next. Sends no request. Raises RerankFailed."""
        ...

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """A finite score for each text, in the order of `texts`. Higher is better; each model has its own scale.

        There is no deadline: the caller sets one and cancels. Raises RerankFailed.
        """
        ...

    async def aclose(self) -> None:
        """Give back threads and connections. The reranker must not be used afterwards."""
        ...


class RerankerPlugin(Protocol):
    """The interface of each module's `PLUGIN`."""

    @property
    def name(self) -> str:
        """The part of RERANKER before the colon."""
        ...

    @property
    def example(self) -> str:
        """A whole RERANKER, for messages."""
        ...

    def open(self, where: str, settings: RerankerSettings) -> Reranker:
        """The reranker at a URL or path. Raises ValueError if there can be none."""
        ...
