"""One search: both legs at the same time, then the two stages of `chains/retrieval/ranking.py`.

    queries -> vectors and terms -> candidates of each leg -> ranked chunks -> ranked sentences -> passages

If there is a reranker, it decides the order of the best chunks.

The database is the truth: a chunk of an index that belongs to no active version is dropped.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from backend.chains.retrieval import ranking
from backend.chains.retrieval.embeddings import Embedder, Embedders
from backend.chains.retrieval.entries import ChunkText, unpack_offsets, unpack_vectors
from backend.chains.retrieval.index import Hit, IndexDamaged, VectorIndex, index_key
from backend.chains.retrieval.ranking import ChunkCandidate, Query, RankedPassage, Sentence
from backend.chains.text.terms import query_terms
from backend.storage.library.chunks import CandidateRow, ChunkRow, Chunks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from backend.services.library.search.reranking import RerankerCall, Reranking

Mode = Literal["hybrid", "dense", "lexical"]

# Candidates of each leg and query, and chunks whose sentences are ranked.
_CANDIDATES = 100
_RANKED = 20
# A search in chosen documents compares all of their chunks, if there are at most so many. For larger documents, it asks
# the index for this many times more candidates and drops those of other documents.
_MAX_COMPARED = 4_000
_MORE_CANDIDATES = 10
_ABOUT_WEIGHT = 1.0


@dataclass(frozen=True, slots=True)
class SearchPart:
    """What is searched in a collection. `ranges`: first and last chunk of each chosen document; None: all documents."""

    collection_id: str
    generation: int
    fingerprint: str
    languages: tuple[str | None, ...]
    ranges: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to search for. `queries` are texts with weights, the question itself first.

    `count` is the maximum number of passages, `width` the maximum length of each, in characters. With `max_chars`,
    single sentences are selected instead, until they have so many characters in total.
    """

    queries: Sequence[tuple[str, float]]
    count: int
    width: int
    mode: Mode = "hybrid"
    max_chars: int | None = None

    @property
    def fullest_query(self) -> str:
        """The query that can best be understood alone: the last one of full weight.

        For a follow-up question it contains the earlier question too.
        """
        return next((text for text, weight in reversed(self.queries) if weight >= 1.0), self.queries[0][0])


@dataclass(slots=True)
class SearchFindings:
    """What the engine found, best first, and what an explanation of the search needs (see explain.py)."""

    passages: list[RankedPassage] = field(default_factory=list[RankedPassage])
    chunks: dict[int, ChunkRow] = field(default_factory=dict[int, ChunkRow])
    ranked: list[ChunkCandidate] = field(default_factory=list[ChunkCandidate])
    terms: list[list[str]] = field(default_factory=list[list[str]])
    hits: dict[str, int] = field(default_factory=lambda: {"dense": 0, "lexical": 0, "inactive": 0})
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    reranker_call: "RerankerCall | None" = None

    def relevance(self, passage: RankedPassage) -> float:
        """The relevance of a passage: the largest one of the chunks that it is in or that are next to it."""
        first, last = passage.sentences[0].n - 1, passage.sentences[-1].n + 1
        chunks = (c for c in self.ranked if first <= c.n <= last and c.document_id == passage.document_id)
        return max((c.relevance for c in chunks), default=0.0)

    def add_hits(self, legs: "_LegScores", inactive: int) -> None:
        """Count the chunks that the legs found in one collection. `inactive` of them belong to no active version."""
        self.hits["dense"] += len({n for leg in legs.dense for n in leg})
        self.hits["lexical"] += len({n for leg in legs.lexical for n in leg})
        self.hits["inactive"] += inactive


@dataclass(slots=True)
class _LegScores:
    """What the legs found in one collection: for each query, cosine (dense) and BM25 (lexical) by chunk number."""

    dense: list[dict[int, float]]
    lexical: list[dict[int, float]]

    def numbers(self) -> list[int]:
        return list(dict.fromkeys(n for leg in (*self.dense, *self.lexical) for n in leg))


class SearchEngine:
    """Searches collections that the caller has chosen and checked."""

    def __init__(
        self, chunks: Chunks, index: VectorIndex, embedders: Embedders, reranking: "Reranking | None" = None
    ) -> None:
        self._chunks = chunks
        self._index = index
        self._embedders = embedders
        self._reranking = reranking

    async def find(
        self, owner: str, parts: Sequence[SearchPart], collection_ids: Sequence[str], request: SearchRequest
    ) -> SearchFindings:
        """The best passages in these parts. Documents that are in none of the collections are ignored.

        Raises EmbeddingMismatch, EmbeddingFailed.
        """
        findings = SearchFindings()
        for fingerprint in dict.fromkeys(part.fingerprint for part in parts):
            # Vectors of different models can't be compared: the collections of each model are searched separately.
            same_model = [part for part in parts if part.fingerprint == fingerprint]
            findings = _merge(findings, await self._find(owner, same_model, collection_ids, request), request)
        return findings

    async def _find(
        self, owner: str, parts: Sequence[SearchPart], collection_ids: Sequence[str], request: SearchRequest
    ) -> SearchFindings:
        findings = SearchFindings()
        timer = _StageTimer(findings.seconds)
        embedder = await self._embedders.by_fingerprint(parts[0].fingerprint)
        languages = tuple(dict.fromkeys(language for part in parts for language in part.languages))
        queries = await self._queries(embedder, languages, request)
        findings.terms = [list(query.terms) for query in queries]
        timer.end("embed")
        legs = await asyncio.gather(*(self._legs(part, queries) for part in parts))
        timer.end("legs")
        candidates: dict[int, ChunkCandidate] = {}
        for part, scores in zip(parts, legs, strict=True):
            numbers = scores.numbers()
            rows = await self._chunks.candidates(owner, part.collection_id, collection_ids, part.fingerprint, numbers)
            # For a moment, a document that moves is in two indexes, with the same numbers.
            candidates |= {c.n: c for c in _candidates(rows, embedder.dimension, scores, queries)}
            findings.add_hits(scores, len(numbers) - len(rows))
        timer.end("read")
        findings.ranked = ranking.rank_chunks(list(candidates.values()), queries)
        timer.end("rank")
        if self._reranking is not None:
            await self._rerank(self._reranking, request.fullest_query, findings)
            timer.end("rerank")
        if candidates:
            await self._select_passages(owner, parts, collection_ids, queries, request, findings)
        timer.end("passages")
        return findings

    async def _queries(
        self, embedder: Embedder, languages: Sequence[str | None], request: SearchRequest
    ) -> list[Query]:
        texts = [text for text, _ in request.queries]
        vectors: list[NDArray[np.float32] | None] = [None] * len(texts)
        if request.mode != "lexical":
            vectors = list(await asyncio.gather(*(embedder.embed_query(text) for text in texts)))
        terms = [query_terms(text, languages) if request.mode != "dense" else [] for text in texts]
        return [
            Query(vector, own_terms, weight)
            for vector, own_terms, (_, weight) in zip(vectors, terms, request.queries, strict=True)
        ]

    async def _legs(self, part: SearchPart, queries: Sequence[Query]) -> _LegScores:
        dense = [self._dense(part, query) for query in queries]
        lexical = [self._lexical(part, query) for query in queries]
        scores = await asyncio.gather(*dense, *lexical)
        return _LegScores(list(scores[: len(queries)]), list(scores[len(queries) :]))

    async def _dense(self, part: SearchPart, query: Query) -> dict[int, float]:
        """The chunks closest in meaning: cosine by number."""
        if query.vector is None:
            return {}
        key = index_key(part.collection_id, part.generation)
        if part.ranges is None:
            return dict(await self._query_index(key, part.fingerprint, query.vector, _CANDIDATES))
        if sum(last - first + 1 for first, last in part.ranges) <= _MAX_COMPARED:
            return await self._compare_all(part, query.vector)
        hits = await self._query_index(key, part.fingerprint, query.vector, _MORE_CANDIDATES * _CANDIDATES)
        inside = [(n, cosine) for n, cosine in hits if any(first <= n <= last for first, last in part.ranges)]
        return dict(inside[:_CANDIDATES])

    async def _query_index(self, key: str, fingerprint: str, vector: "NDArray[np.float32]", k: int) -> list[Hit]:
        """The hits of the index; none while it is damaged: then the words alone find."""
        try:
            return await self._index.query(key, fingerprint, vector, k)
        except IndexDamaged:
            return []

    async def _compare_all(self, part: SearchPart, vector: "NDArray[np.float32]") -> dict[int, float]:
        """The closest chunks of the part's ranges, compared with their stored vectors.

        This is faster than a filter in Chroma, and misses nothing.
        """
        rows: list[tuple[int, bytes]] = []
        for first, last in part.ranges or ():
            rows += await self._chunks.vectors(part.fingerprint, first, last)
        cosines = {n: float(unpack_vectors(stored[: len(vector)], len(vector))[0] @ vector) for n, stored in rows}
        return dict(sorted(cosines.items(), key=lambda hit: -hit[1])[:_CANDIDATES])

    async def _lexical(self, part: SearchPart, query: Query) -> dict[int, float]:
        """The chunks that match the query's terms best: BM25 by number."""
        ranges = part.ranges
        return dict(await self._chunks.match(part.collection_id, query.terms, _CANDIDATES, ranges, _ABOUT_WEIGHT))

    async def _rerank(self, reranking: "Reranking", query: str, findings: SearchFindings) -> None:
        """Let the reranker order the best candidates, unless it fails. It reads the text that was embedded."""
        rows = await self._chunks.rows([c.n for c in findings.ranked[: reranking.candidates]])
        if len(rows) < 2:
            return
        texts = [ChunkText(row.text, row.title, row.heading, row.context).indexed() for row in rows.values()]
        scores, findings.reranker_call = await reranking.scores(query, texts)
        if scores is not None:
            findings.ranked = ranking.rerank(findings.ranked, dict(zip(rows, scores, strict=True)))

    async def _select_passages(
        self,
        owner: str,
        parts: Sequence[SearchPart],
        collection_ids: Sequence[str],
        queries: Sequence[Query],
        request: SearchRequest,
        findings: SearchFindings,
    ) -> None:
        """The second stage of ranking: fill in the passages and the chunks that they are in."""
        top = findings.ranked[: max(_RANKED, request.count)]
        scores = ranking.neighbour_scores(top)
        known = {c.n: c for c in findings.ranked}
        missing = [n for _, n in scores if n not in known]
        for part in parts:
            # A number belongs to one collection, so each part returns its own chunks.
            rows = await self._chunks.candidates(owner, part.collection_id, collection_ids, part.fingerprint, missing)
            dimension = int(part.fingerprint.rpartition(":")[2])
            known.update((c.n, c) for c in _candidates(rows, dimension, None, queries))
        findings.chunks = await self._chunks.rows([n for _, n in scores if n in known])
        words = ranking.word_weights(queries, findings.ranked)
        sentences: dict[int, list[Sentence]] = {}
        for (document_id, n), score in scores.items():
            chunk, row = known.get(n), findings.chunks.get(n)
            if chunk is not None and row is not None and row.document_id == document_id:
                sentences[n] = ranking.rank_sentences(chunk, _sentence_offsets(row), score, queries, words)
        runs = _runs(sentences, findings.chunks)
        if request.max_chars is None:
            findings.passages = ranking.select_passages(runs, words, request.width, request.count)
        else:
            findings.passages = ranking.select_sentences(runs, request.max_chars, request.count)


class _StageTimer:
    """Adds the seconds of each stage of a search to a dictionary."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._last = time.perf_counter()

    def end(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now


def _sentence_offsets(row: ChunkRow) -> list[tuple[int, int]]:
    """The offsets of a chunk's sentences in the document."""
    return [(row.start + start, row.start + end) for start, end in unpack_offsets(row.spans)]


def _candidates(
    rows: Sequence[CandidateRow], dimension: int, legs: _LegScores | None, queries: Sequence[Query]
) -> Iterator[ChunkCandidate]:
    """The chunks with what ranking needs. `legs` is None for neighbours that no leg found."""
    if not rows:
        return
    # Only those terms of a chunk are kept that are in the queries: small sets are fast.
    terms = frozenset(term for query in queries for term in query.terms)
    # All vectors at once: a hundred small arrays cost more time than the work with them.
    vectors = unpack_vectors(b"".join(row.vectors for row in rows), dimension)
    end = 0
    for row in rows:
        start, end = end, end + len(row.vectors) // dimension
        sentences = [terms.intersection(line.split()) for line in row.body.split("\n")]
        yield ChunkCandidate(
            n=row.n,
            document_id=row.document_id,
            terms=terms.intersection(row.about.split()).union(*sentences),
            sentences=sentences,
            vectors=vectors[start:end],
            lexical=[leg.get(row.n, 0.0) for leg in legs.lexical] if legs is not None else [0.0] * len(queries),
        )


def _merge(one: SearchFindings, other: SearchFindings, request: SearchRequest) -> SearchFindings:
    """The findings of two searches as one."""
    if not one.ranked:
        return other
    passages = sorted((*one.passages, *other.passages), key=lambda passage: -passage.score)
    if request.max_chars is not None:
        passages = _passages_that_fit(passages, request.max_chars)
    return SearchFindings(
        passages=passages[: request.count],
        chunks=one.chunks | other.chunks,
        ranked=sorted((*one.ranked, *other.ranked), key=lambda c: -c.score),
        terms=one.terms,
        hits={name: count + other.hits[name] for name, count in one.hits.items()},
        seconds={name: spent + other.seconds.get(name, 0.0) for name, spent in one.seconds.items()},
        reranker_call=other.reranker_call if one.reranker_call is None or one.reranker_call.ok else one.reranker_call,
    )


def _passages_that_fit(passages: Sequence[RankedPassage], max_chars: int) -> list[RankedPassage]:
    """Of the passages, best first, those that have at most `max_chars` characters in total."""
    fitting: list[RankedPassage] = []
    for passage in passages:
        if passage.end - passage.start <= max_chars:
            max_chars -= passage.end - passage.start
            fitting.append(passage)
    return fitting


def _runs(sentences: dict[int, list[Sentence]], chunks: dict[int, ChunkRow]) -> list[tuple[str, list[list[Sentence]]]]:
    """The sentences by document, as runs: chunks that follow each other without a gap are in one run."""
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
