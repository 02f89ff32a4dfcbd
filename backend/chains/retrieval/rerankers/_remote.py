"""Rerankers behind an HTTP API: `POST {url}/rerank`. The APIs differ in a few names, which is what a protocol says."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from backend.chains.retrieval.rerankers._base import RerankerSettings, RerankFailed

if TYPE_CHECKING:
    import httpx

_THIS_MACHINE = frozenset(("localhost", "127.0.0.1", "::1"))
# For those who set no deadline.
_MOST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RerankerProtocol:
    """`body` makes a request of query and texts (the model is added to it); `entries` finds the list in an answer,
    whose entries have an `index` and a `score`; `batch` is how many texts a request may have.
    """

    name: str
    example: str
    body: Callable[[str, Sequence[str]], dict[str, Any]]
    entries: Callable[[Any], Any]
    score: str = "relevance_score"
    batch: int = 1_000

    def open(self, where: str, settings: RerankerSettings) -> "RemoteReranker":
        """Raises ValueError for what is no URL."""
        parts = urlsplit(where)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError(f"{self.name} needs an http:// or https:// URL, for example {self.example}")
        return RemoteReranker(self, where, settings)


class RemoteReranker:
    """A reranker behind an HTTP API."""

    def __init__(self, protocol: RerankerProtocol, url: str, settings: RerankerSettings) -> None:
        self.name = f"{protocol.name}:{settings.model or urlsplit(url).hostname}"
        self._protocol = protocol
        self._url = f"{url.rstrip('/')}/rerank"
        self._settings = settings

    async def prepare(self) -> None:
        """Read the certificates, which takes a moment."""
        await asyncio.to_thread(lambda: self._http)

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """A finite score for each text, in the order of `texts`. Raises RerankFailed."""
        size = self._protocol.batch
        batches = [texts[at : at + size] for at in range(0, len(texts), size)]
        found = await asyncio.gather(*(self._ask(query, batch) for batch in batches))
        return [score for scores in found for score in scores]

    async def aclose(self) -> None:
        """Close the connections."""
        if "_http" in self.__dict__:
            await self._http.aclose()

    @cached_property
    def _http(self) -> "httpx.AsyncClient":
        import httpx

        key = self._settings.api_key
        headers = httpx.Headers({"Authorization": f"Bearer {key}"} if key is not None else {}, encoding="utf-8")
        # A proxy of the environment leads outside, and never back to this machine.
        outside = urlsplit(self._url).hostname not in _THIS_MACHINE
        return httpx.AsyncClient(headers=headers, timeout=_MOST_SECONDS, trust_env=outside)

    async def _ask(self, query: str, texts: Sequence[str]) -> list[float]:
        import httpx

        body = self._protocol.body(_sendable(query), [_sendable(text) for text in texts])
        if self._settings.model is not None:
            body["model"] = self._settings.model
        try:
            response = await self._http.post(self._url, json=body)
        except httpx.HTTPError as error:
            # What it says may quote the URL; the class tells enough.
            raise RerankFailed(f"could not be reached ({type(error).__name__})") from None
        if response.status_code != 200:
            raise RerankFailed(f"answered with HTTP {response.status_code}")
        try:
            return self._read(response.json(), len(texts))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise RerankFailed("sent an answer that scores not each text once") from None

    def _read(self, answer: Any, count: int) -> list[float]:
        """Raises ValueError, TypeError, KeyError, OverflowError for anything but one finite score a text."""
        found: dict[int, float] = {}
        for entry in self._protocol.entries(answer):
            index, score = entry["index"], entry[self._protocol.score]
            if type(index) is not int or type(score) not in (int, float) or index in found:
                raise ValueError
            found[index] = float(score)
        if found.keys() != set(range(count)) or not all(map(math.isfinite, found.values())):
            raise ValueError
        return [found[index] for index in range(count)]


def _sendable(text: str) -> str:
    """JSON can't carry a lone surrogate, and some providers refuse an empty string."""
    return text.encode("utf-8", "replace").decode("utf-8").strip() or "."
