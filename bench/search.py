"""`python -m bench search`: how long a search takes among 10,000 and 100,000 chunks: in all of them, in one document,
in one collection, and while a document is being read."""

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from .fill import fill
from .ingest import EMBEDDED, PATIENCE
from .language import TOPICS, Language
from .process import ANY_CORE, BenchError, Server
from .tables import milliseconds, print_table

WARM_UP = 20
TOP_K = 10
LEAST = 50
"""Minimum number of searches during an ingestion; with fewer, the slowest twentieth means nothing."""


@dataclass(frozen=True)
class Sizes:
    """Chunks of each measure, searches of each row, and characters of the document that is read meanwhile."""

    chunks: tuple[int, ...] = (10_000, 100_000)
    searches: int = 300
    document: int = 1_500_000


QUICK = Sizes(chunks=(2_000,), searches=60, document=150_000)

GOALS = {
    (10_000, "everything"): (15, 30),
    (100_000, "one document"): (40, 80),
    (100_000, "one collection"): (40, 80),
}
"""p50 and p95 in ms, at most."""


class Searcher:
    """Sends one search after the other over one connection. `passage_count` counts the results."""

    def __init__(self, client: httpx.Client, language: Language) -> None:
        self._client = client
        self._language = language
        self._random = random.Random(7)
        self.passage_count = 0

    def seconds(self, body: dict[str, Any]) -> Iterator[float]:
        """The seconds of one search after the other, without end."""
        while True:
            query = self._language.question(self._random.randrange(TOPICS))
            start = time.perf_counter()
            reply = self._client.post("/search", json={"query": query, "top_k": TOP_K, **body})
            took = time.perf_counter() - start
            if reply.status_code != 200:
                raise BenchError(f"a search for {query!r} was answered {reply.status_code}: {reply.text[:300]}")
            self.passage_count += len(reply.json()["items"])
            yield took

    def times(self, body: dict[str, Any], count: int) -> list[float]:
        """The seconds of `count` searches, after a warm-up. Raises BenchError if they find too few passages."""
        seconds = self.seconds(body)
        for _ in range(WARM_UP):
            next(seconds)
        self.passage_count = 0
        times = [next(seconds) for _ in range(count)]
        if self.passage_count < count * TOP_K:
            raise BenchError(f"{count} searches found {self.passage_count} passages, not {TOP_K} each: {body}")
        return times

    def times_while_reading(self, text: str) -> list[float]:
        """The seconds of searches while a document is being embedded. Raises BenchError if they are too few."""
        reply = self._client.post("/documents/upload", files={"file": ("long.txt", text.encode())})
        document = f"/documents/{reply.raise_for_status().json()['documents'][0]['id']}"
        times: list[float] = []
        seconds = self.seconds({})
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            status = self._client.get(document).raise_for_status().json()["status"]
            if status in ("ready", "failed"):
                break
            took = next(seconds)
            if status == "embedding":
                times.append(took)
        else:
            raise BenchError(f"{document} was not ready in {PATIENCE} s")
        if status == "failed" or len(times) < LEAST:
            raise BenchError(f"the document was {status} after {len(times)} searches: too few beside its ingestion")
        return times


def restrictions(client: httpx.Client, document_id: str, collection_id: str) -> dict[str, dict[str, Any]]:
    """Search bodies by what they are restricted to, as far as the server knows the field."""
    schemas = client.get("/openapi.json").raise_for_status().json()["components"]["schemas"]
    known = schemas["SearchRequest"]["properties"]
    bodies: dict[str, dict[str, Any]] = {
        "everything": {},
        "one document": {"documents": [document_id]},
        "one collection": {"collections": [collection_id]},
    }
    return {name: body for name, body in bodies.items() if body.keys() <= known.keys()}


def measured(chunks: int, sizes: Sizes) -> list[list[str]]:
    language = Language()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        began = time.monotonic()
        filled = asyncio.run(fill(data, chunks, language))
        print(f"{chunks:,} chunks put in ({time.monotonic() - began:.0f} s) ...", flush=True)
        env = {**EMBEDDED, "DATA_DIR": str(data)}
        with (
            Server(("backend.main",), "/ready", env, core=ANY_CORE, patience=PATIENCE) as server,
            httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
        ):
            searcher = Searcher(client, language)
            bodies = restrictions(client, filled.document_id, filled.collection_id)
            rows = [_row(chunks, name, searcher.times(body, sizes.searches)) for name, body in bodies.items()]
            long = "\n\n".join(language.text(topic % TOPICS, 2_000) for topic in range(sizes.document // 2_000))
            rows.append(_row(chunks, "everything, while a document is embedded", searcher.times_while_reading(long)))
            print(f"memory {server.memory_mb():.0f} MB", flush=True)
    return rows


def _row(chunks: int, where: str, times: list[float]) -> list[str]:
    ordered = sorted(times)
    p50, p95 = ordered[len(ordered) // 2] * 1e3, ordered[int(0.95 * len(ordered))] * 1e3
    goal = GOALS.get((chunks, where))
    verdict = "" if goal is None else "met" if (p50 <= goal[0] and p95 <= goal[1]) else "not met"
    goal_text = "" if goal is None else f"{goal[0]}, {goal[1]} ms"
    return [f"{chunks:,}", where, milliseconds(p50), milliseconds(p95), goal_text, verdict]


def run(sizes: Sizes) -> None:
    rows = [row for chunks in sizes.chunks for row in measured(chunks, sizes)]
    print_table(["chunks", "search in", "p50", "p95", "goal", ""], rows)
