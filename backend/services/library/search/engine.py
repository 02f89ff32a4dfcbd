"""One search: both legs side by side, then the two stages of `chains/retrieval/ranking.py`.

    queries -> vectors and terms -> candidates of each leg -> ranked chunks -> ranked sentences -> passages

A reranker, if there is one, has the last word on the order of the best chunks.

The database is the truth: a chunk that no active version holds is dropped, whatever an index says of it.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from backend.chains.retrieval import ranking
from backend.chains.retrieval.embeddings import Embedder, Embedders
from backend.chains.retrieval.entries import ChunkText, unpack_spans, unpack_vectors
from backend.chains.retrieval.index import VectorIndex, index_key
from backend.chains.retrieval.ranking import ChunkCandidate, Query, RankedPassage, Sentence
from backend.chains.text.terms import query_terms
from backend.services.library.search.reranking import Reranked, Reranking
from backend.storage.library.chunks import CandidateRow, ChunkRow, Chunks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Mode = Literal["hybrid", "dense", "lexical"]

# Candidates of each leg and query, and chunks whose sentences are looked at.
_CANDIDATES = 100
_RANKED = 20
# Up to so many chunks, a search in chosen documents compares them all; beyond, it takes more of the leg's best.
_EXACT = 4_000
_MORE = 10
_ABOUT_WEIGHT = 1.0


@dataclass(frozen=True, slots=True)
class SearchPart:
    """What to search of a collection: all of it, or the chunks first..last of some documents."""

    collection_id: str
    generation: int
    fingerprint: str
    languages: tuple[str | None, ...]
    ranges: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to look for. `queries` are texts with weights, the question itself first; `width` is a passage's length in
    characters; with `budget`, sentences are picked one by one until they have so many characters together.
    """

    queries: Sequence[tuple[str, float]]
    count: int
    width: int
    mode: Mode = "hybrid"
    budget: int | None = None

    @property
    def asked(self) -> str:
        """The query that says most by itself: the last of full weight, which may hold what the question follows."""
        return next((text for text, weight in reversed(self.queries) if weight >= 1.0), self.queries[0][0])


@dataclass(slots=True)
class Found:
    """What was found, best first, and how: see `services/traces.py` for the telling."""

    spans: list[RankedPassage] = field(default_factory=list[RankedPassage])
    chunks: dict[int, ChunkRow] = field(default_factory=dict[int, ChunkRow])
    ranked: list[ChunkCandidate] = field(default_factory=list[ChunkCandidate])
    terms: list[list[str]] = field(default_factory=list[list[str]])
    hits: dict[str, int] = field(default_factory=lambda: {"dense": 0, "lexical": 0, "inactive": 0})
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    reranked: Reranked | None = None

    def relevance(self, span: RankedPassage) -> float:
        """That of the most relevant chunk that a passage lies in or beside."""
        first, last = span.sentences[0].n - 1, span.sentences[-1].n + 1
        beside = (c for c in self.ranked if first <= c.n <= last and c.document_id == span.document_id)
        return max((c.relevance for c in beside), default=0.0)

    def count(self, legs: "_Legs", inactive: int) -> None:
        """Add what a collection's legs have found, and how much of it was of no active version."""
        self.hits["dense"] += len({n for leg in legs.dense for n in leg})
        self.hits["lexical"] += len({n for leg in legs.lexical for n in leg})
        self.hits["inactive"] += inactive


@dataclass(slots=True)
class _Legs:
    """What the legs say of a collection's chunks: closeness and BM25 by number, for each query."""

    dense: list[dict[int, float]]
    lexical: list[dict[int, float]]

    def numbers(self) -> list[int]:
        return list(dict.fromkeys(n for leg in (*self.dense, *self.lexical) for n in leg))


class SearchEngine:
    """Searches collections that the caller has chosen and checked."""

    def __init__(
        self, chunks: Chunks, index: VectorIndex, embedders: Embedders, reranking: Reranking | None = None
    ) -> None:
        self._chunks = chunks
        self._index = index
        self._embedders = embedders
        self._reranking = reranking

    async def find(
        self, owner: str, parts: Sequence[SearchPart], within: Sequence[str], wanted: SearchRequest
    ) -> Found:
        """The best passages in these parts, of documents in the collections `within`.

        Raises EmbeddingMismatch, EmbeddingFailed.
        """
        found = Found()
        for fingerprint in dict.fromkeys(part.fingerprint for part in parts):
            # Vectors of different models say nothing to each other: each model's part is a search of its own.
            one = await self._find(owner, [p for p in parts if p.fingerprint == fingerprint], within, wanted)
            found = _joined(found, one, wanted)
        return found

    async def _find(
        self, owner: str, parts: Sequence[SearchPart], within: Sequence[str], wanted: SearchRequest
    ) -> Found:
        found = Found()
        clock = _Clock(found.seconds)
        embedder = await self._embedders.of(parts[0].fingerprint)
        languages = tuple(dict.fromkeys(language for part in parts for language in part.languages))
        queries = await self._queries(embedder, languages, wanted)
        found.terms = [list(query.terms) for query in queries]
        clock.stop("embed")
        legs = await asyncio.gather(*(self._legs(part, queries) for part in parts))
        clock.stop("legs")
        candidates: dict[int, ChunkCandidate] = {}
        for part, said in zip(parts, legs, strict=True):
            numbers = said.numbers()
            rows = await self._chunks.candidates(owner, part.collection_id, within, part.fingerprint, numbers)
            # A document that moves may be in two indexes for a moment, under the same numbers.
            candidates |= {c.n: c for c in _candidates(rows, embedder.dimension, said, queries)}
            found.count(said, len(numbers) - len(rows))
        clock.stop("read")
        found.ranked = ranking.rank_chunks(list(candidates.values()), queries)
        clock.stop("rank")
        if self._reranking is not None:
            await self._rerank(self._reranking, wanted.asked, found)
            clock.stop("rerank")
        if candidates:
            await self._passages(owner, parts, within, queries, wanted, found)
        clock.stop("passages")
        return found

    async def _queries(self, embedder: Embedder, languages: Sequence[str | None], wanted: SearchRequest) -> list[Query]:
        texts = [text for text, _ in wanted.queries]
        vectors: list[NDArray[np.float32] | None] = [None] * len(texts)
        if wanted.mode != "lexical":
            vectors = list(await asyncio.gather(*(embedder.embed_query(text) for text in texts)))
        terms = [query_terms(text, languages) if wanted.mode != "dense" else [] for text in texts]
        return [
            Query(vector, said, weight)
            for vector, said, (_, weight) in zip(vectors, terms, wanted.queries, strict=True)
        ]

    async def _legs(self, part: SearchPart, queries: Sequence[Query]) -> _Legs:
        dense = [self._near(part, query) for query in queries]
        lexical = [self._matching(part, query) for query in queries]
        found = await asyncio.gather(*dense, *lexical)
        return _Legs(list(found[: len(queries)]), list(found[len(queries) :]))

    async def _near(self, part: SearchPart, query: Query) -> dict[int, float]:
        if query.vector is None:
            return {}
        key = index_key(part.collection_id, part.generation)
        if part.ranges is None:
            return dict(await self._index.query(key, part.fingerprint, query.vector, _CANDIDATES))
        if sum(last - first + 1 for first, last in part.ranges) <= _EXACT:
            return await self._nearest(part, query.vector)
        hits = await self._index.query(key, part.fingerprint, query.vector, _MORE * _CANDIDATES)
        inside = [(n, near) for n, near in hits if any(first <= n <= last for first, last in part.ranges)]
        return dict(inside[:_CANDIDATES])

    async def _nearest(self, part: SearchPart, vector: "NDArray[np.float32]") -> dict[int, float]:
        """All chunks of the ranges compared: the closest. Quicker than a filter in Chroma, and complete."""
        rows: list[tuple[int, bytes]] = []
        for first, last in part.ranges or ():
            rows += await self._chunks.vectors(part.fingerprint, first, last)
        near = {n: float(unpack_vectors(stored[: len(vector)], len(vector))[0] @ vector) for n, stored in rows}
        return dict(sorted(near.items(), key=lambda hit: -hit[1])[:_CANDIDATES])

    async def _matching(self, part: SearchPart, query: Query) -> dict[int, float]:
        ranges = part.ranges
        return dict(await self._chunks.match(part.collection_id, query.terms, _CANDIDATES, ranges, _ABOUT_WEIGHT))

    async def _rerank(self, reranking: Reranking, query: str, found: Found) -> None:
        """Let the reranker order the best candidates, if it can. It reads what was embedded."""
        rows = await self._chunks.rows([c.n for c in found.ranked[: reranking.candidates]])
        if len(rows) < 2:
            return
        texts = [ChunkText(row.text, row.title, row.heading, row.context).indexed() for row in rows.values()]
        scores, found.reranked = await reranking.scores(query, texts)
        if scores is not None:
            found.ranked = ranking.rerank(found.ranked, dict(zip(rows, scores, strict=True)))

    async def _passages(
        self,
        owner: str,
        parts: Sequence[SearchPart],
        within: Sequence[str],
        queries: Sequence[Query],
        wanted: SearchRequest,
        found: Found,
    ) -> None:
        """The second stage: fill in the spans and the chunks they lie in."""
        top = found.ranked[: max(_RANKED, wanted.count)]
        scores = ranking.neighbour_scores(top)
        known = {c.n: c for c in found.ranked}
        missing = [n for _, n in scores if n not in known]
        for part in parts:
            # A number belongs to one collection, so that each part gives its own.
            rows = await self._chunks.candidates(owner, part.collection_id, within, part.fingerprint, missing)
            dimension = int(part.fingerprint.rpartition(":")[2])
            known.update((c.n, c) for c in _candidates(rows, dimension, None, queries))
        found.chunks = await self._chunks.rows([n for _, n in scores if n in known])
        words = ranking.weigh(queries, found.ranked)
        sentences: dict[int, list[Sentence]] = {}
        for (document_id, n), score in scores.items():
            chunk, row = known.get(n), found.chunks.get(n)
            if chunk is not None and row is not None and row.document_id == document_id:
                sentences[n] = ranking.rank_sentences(chunk, _spans(row), score, queries, words)
        runs = _runs(sentences, found.chunks)
        if wanted.budget is None:
            found.spans = ranking.passages(runs, words, wanted.width, wanted.count)
        else:
            found.spans = ranking.within_budget(runs, wanted.budget, wanted.count)


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._last = time.perf_counter()

    def stop(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now


def _spans(row: ChunkRow) -> list[tuple[int, int]]:
    """Where the sentences of a chunk stand in the document."""
    return [(row.start + start, row.start + end) for start, end in unpack_spans(row.spans)]


def _candidates(
    rows: Sequence[CandidateRow], dimension: int, legs: _Legs | None, queries: Sequence[Query]
) -> Iterator[ChunkCandidate]:
    """`legs` is None for neighbours that none of them has found."""
    if not rows:
        return
    # Of all terms of a chunk, what is kept is what the queries ask for: small sets cost little.
    asked = frozenset(term for query in queries for term in query.terms)
    # All at once: a hundred small arrays cost more than what is done with them.
    vectors = unpack_vectors(b"".join(row.vectors for row in rows), dimension)
    end = 0
    for row in rows:
        start, end = end, end + len(row.vectors) // dimension
        sentences = [asked.intersection(line.split()) for line in row.body.split("\n")]
        yield ChunkCandidate(
            n=row.n,
            document_id=row.document_id,
            held=asked.intersection(row.about.split()).union(*sentences),
            sentences=sentences,
            vectors=vectors[start:end],
            lexical=[leg.get(row.n, 0.0) for leg in legs.lexical] if legs is not None else [0.0] * len(queries),
        )


def _joined(one: Found, other: Found, wanted: SearchRequest) -> Found:
    if not one.ranked:
        return other
    spans = sorted((*one.spans, *other.spans), key=lambda span: -span.score)
    if wanted.budget is not None:
        spans = _fitting(spans, wanted.budget)
    return Found(
        spans=spans[: wanted.count],
        chunks=one.chunks | other.chunks,
        ranked=sorted((*one.ranked, *other.ranked), key=lambda c: -c.score),
        terms=one.terms,
        hits={name: count + other.hits[name] for name, count in one.hits.items()},
        seconds={name: spent + other.seconds.get(name, 0.0) for name, spent in one.seconds.items()},
        reranked=other.reranked if one.reranked is None or one.reranked.ok else one.reranked,
    )


def _fitting(spans: Sequence[RankedPassage], budget: int) -> list[RankedPassage]:
    """Those of the spans, best first, that have no more than `budget` characters together."""
    fitting: list[RankedPassage] = []
    for span in spans:
        if span.end - span.start <= budget:
            budget -= span.end - span.start
            fitting.append(span)
    return fitting


def _runs(sentences: dict[int, list[Sentence]], chunks: dict[int, ChunkRow]) -> list[tuple[str, list[list[Sentence]]]]:
    """Sentences of chunks that follow each other without a gap, as one run; by document."""
    runs: list[tuple[str, list[list[Sentence]]]] = []
    before: ChunkRow | None = None
    for n in sorted(sentences):
        row = chunks[n]
        follows = before is not None and before.n + 1 == n and before.version_id == row.version_id
        if follows and before is not None and before.after is not None:
            runs[-1][1][-1].extend(sentences[n])
        else:
            runs.append((row.document_id, [list(sentences[n])]))
        before = row
    return runs
