"""Rerankers behind an HTTP API: `POST {url}/rerank`. The APIs differ in a few names; a protocol has those."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from typing_extensions import override

from backend.chains.retrieval.rerankers._base import Reranker, RerankerSettings, RerankFailed
from backend.kit.network.addresses import Address
from backend.kit.network.network import merge_headers

if TYPE_CHECKING:
    import httpx

# For callers that set no deadline.
_MAX_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RerankerProtocol:
    """How one kind of API is spoken to.

    `body` makes the request from query and texts (the model is added to it). `entries` finds the list in the response;
    each entry has an `index` and a field `score`. `batch` is the maximum number of texts in a request.
    """

    name: str
    example: str
    body: Callable[[str, Sequence[str]], dict[str, Any]]
    entries: Callable[[Any], Any]
    score: str = "relevance_score"
    batch: int = 1_000

    def open(self, where: str, settings: RerankerSettings) -> "RemoteReranker":
        """The reranker at a URL. Raises ValueError if `where` is not a URL."""
        try:
            address = settings.network.address(where.strip(), has_key=settings.api_key is not None)
        except ValueError as error:
            raise ValueError(f"the URL {error}. For example {self.example}") from None
        return RemoteReranker(self, address, settings)


class RemoteReranker(Reranker):
    """A reranker behind an HTTP API."""

    def __init__(self, protocol: RerankerProtocol, address: Address, settings: RerankerSettings) -> None:
        self._name = f"{protocol.name}:{settings.model or urlsplit(address.url).hostname}"
        self._protocol = protocol
        self._url = f"{address.url.rstrip('/')}/rerank"
        self._login = address.login
        self._settings = settings

    @property
    @override
    def name(self) -> str:
        return self._name

    @override
    async def prepare(self) -> None:
        await self._settings.network.prepare()

    @override
    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        size = self._protocol.batch
        batches = [texts[at : at + size] for at in range(0, len(texts), size)]
        scores = await asyncio.gather(*(self._request(query, batch) for batch in batches))
        return [score for batch_scores in scores for score in batch_scores]

    @override
    async def aclose(self) -> None:
        if "_http" in self.__dict__:
            await self._http.aclose()

    @cached_property
    def _http(self) -> "httpx.AsyncClient":
        from backend.kit.network.httpx_client import httpx_client

        key = self._settings.api_key
        headers = merge_headers(
            {"Authorization": f"Bearer {key}"} if key is not None else {},
            {"Authorization": self._login} if self._login is not None else {},
        )
        return httpx_client(self._settings.network, headers=headers, timeout=_MAX_SECONDS)

    async def _request(self, query: str, texts: Sequence[str]) -> list[float]:
        import httpx

        body = self._protocol.body(_sendable(query), [_sendable(text) for text in texts])
        if self._settings.model is not None:
            body["model"] = self._settings.model
        try:
            response = await self._http.post(self._url, json=body)
        except httpx.HTTPError as error:
            # The error's own text may quote the URL: only its class is reported.
            raise RerankFailed(f"could not be reached ({type(error).__name__})") from None
        if response.status_code != 200:
            raise RerankFailed(f"answered with HTTP {response.status_code}")
        try:
            return self._read(response.json(), len(texts))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise RerankFailed("sent an answer that scores not each text once") from None

    def _read(self, answer: Any, count: int) -> list[float]:
        """The scores of a response.

        Raises ValueError, TypeError, KeyError, OverflowError unless each text has exactly one finite score.
        """
        scores: dict[int, float] = {}
        for entry in self._protocol.entries(answer):
            index, score = entry["index"], entry[self._protocol.score]
            if type(index) is not int or type(score) not in (int, float) or index in scores:
                raise ValueError
            scores[index] = float(score)
        if scores.keys() != set(range(count)) or not all(map(math.isfinite, scores.values())):
            raise ValueError
        return [scores[index] for index in range(count)]


def _sendable(text: str) -> str:
    """The text without lone surrogates, which JSON can't contain. An empty text, which some refuse, becomes "."."""
    return text.encode("utf-8", "replace").decode("utf-8").strip() or "."
