"""The reranker as searches use it: within a deadline, and never an error."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from backend.chains.retrieval.rerankers import Reranker, RerankFailed
from backend.errors import Unavailable

log = structlog.get_logger(__name__)

# The end of a long question, where what is asked most often stands: many models read 512 tokens, passage included.
_MAX_QUERY = 1_000


@dataclass(frozen=True, slots=True)
class Reranked:
    """How it went: time in ms, and what went wrong, if something did."""

    name: str
    ok: bool
    ms: float
    error: str | None = None


class Reranking:
    """Asks the reranker. When it fails or is slow, a search goes on without it; the log says so once a streak."""

    def __init__(self, reranker: Reranker, *, timeout: float, candidates: int) -> None:
        self.candidates = candidates
        """How many a search hands over."""
        self._reranker = reranker
        self._timeout = timeout
        self._failing = False

    async def open(self) -> None:
        """Load it. Raises Unavailable (`not_ready`) when it is a model here that can't be loaded."""
        try:
            await self._reranker.prepare()
        except RerankFailed as error:
            raise Unavailable(f"RERANKER: {error}", code="not_ready") from error
        log.info("reranker", model=self._reranker.name)

    async def close(self) -> None:
        """Give back what it holds."""
        await self._reranker.aclose()

    async def scores(self, query: str, texts: Sequence[str]) -> tuple[list[float] | None, Reranked]:
        """A score a text, on the model's own scale, and how it went; None when it failed or took too long."""
        name, begun, error, found = self._reranker.name, time.perf_counter(), None, None
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._reranker.scores(query[-_MAX_QUERY:], texts)
        except TimeoutError:
            error = f"no answer within {self._timeout:g} s"
        except RerankFailed as failure:
            error = str(failure)
        except Exception as failure:
            # Somebody else's model or server: whatever happens there, the search has an order without it.
            error = type(failure).__name__
        self._tell(error)
        return found, Reranked(name, error is None, round(1000 * (time.perf_counter() - begun), 2), error)

    def _tell(self, error: str | None) -> None:
        if error is not None and not self._failing:
            log.warning("reranker_failed", model=self._reranker.name, error=error, searches="go on without it")
        elif error is None and self._failing:
            log.info("reranker_back", model=self._reranker.name)
        self._failing = error is not None
