"""The reranker as searches use it: with a deadline, and without errors."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from backend.chains.retrieval.rerankers import Reranker, RerankFailed
from backend.errors import Unavailable

log = structlog.get_logger(__name__)

# Characters from the end of a long question, where the question itself usually is: many models read only 512 tokens,
# passage included.
_MAX_QUERY = 1_000


@dataclass(frozen=True, slots=True)
class RerankerCall:
    """How one call of the reranker went: time in ms, and the error if it failed."""

    name: str
    ok: bool
    ms: float
    error: str | None = None


class Reranking:
    """Calls the reranker. If it fails or is slow, the search goes on without it; the log says so once, until it works
    again.
    """

    def __init__(self, reranker: Reranker, *, timeout: float, candidates: int) -> None:
        self.candidates = candidates
        """Number of candidates that a search gives to the reranker."""
        self._reranker = reranker
        self._timeout = timeout
        self._failing = False

    async def open(self) -> None:
        """Load the reranker. Raises Unavailable (`not_ready`) if it is a local model that can't be loaded."""
        try:
            await self._reranker.prepare()
        except RerankFailed as error:
            raise Unavailable(f"RERANKER: {error}", code="not_ready") from error
        log.info("reranker", model=self._reranker.name)

    async def close(self) -> None:
        """Give back threads and connections."""
        await self._reranker.aclose()

    async def scores(self, query: str, texts: Sequence[str]) -> tuple[list[float] | None, RerankerCall]:
        """A score for each text, on the model's own scale, and how the call went. None: it failed or took too long."""
        name, began, error, scores = self._reranker.name, time.perf_counter(), None, None
        try:
            async with asyncio.timeout(self._timeout):
                scores = await self._reranker.scores(query[-_MAX_QUERY:], texts)
        except TimeoutError:
            error = f"no answer within {self._timeout:g} s"
        except RerankFailed as failure:
            error = str(failure)
        except Exception as failure:
            # The model or server is not ours: whatever happens there, the search has an order without it.
            error = type(failure).__name__
        self._log_change(error)
        return scores, RerankerCall(name, error is None, round(1000 * (time.perf_counter() - began), 2), error)

    def _log_change(self, error: str | None) -> None:
        if error is not None and not self._failing:
            log.warning("reranker_failed", model=self._reranker.name, error=error, searches="go on without it")
        elif error is None and self._failing:
            log.info("reranker_back", model=self._reranker.name)
        self._failing = error is not None
