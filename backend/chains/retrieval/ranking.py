"""Ranking: from the candidates of both legs to passages. This module only calculates; the caller reads the data.

There are two stages. First, chunks are ranked by the scores of both legs. Then the sentences of the best chunks and of
their neighbours are ranked by their similarity, their words and the score of their chunk. A passage is a good sentence
with the sentences around it that are good enough; it can be larger than a chunk, and begin in one chunk and end in the
next. Passages are ranked by their best sentence and by the words that all of their sentences contain together.

Every weight was measured on data sets of different kinds: docs/retrieval.md has the numbers, and what each part adds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backend.chains.passages import RELEVANCE_OF_WORDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

# The first stage: weights of the chunk's cosine, of its closest sentence's cosine, and of BM25 (each relative to the
# best candidate), and of the share of the question's words.
_DENSE, _CLOSEST, _LEXICAL, _COVERAGE = 0.3, 0.2, 0.5, 0.3
# The share of its better neighbour's score that is added to a chunk's score.
_SMOOTH = 0.1
# The second stage: weights of the sentence's cosine, of its share of the question's words, of its chunk's score, and of
# its length, up to `_LONG` characters.
_OWN_CLOSENESS, _OWN_WORDS, _CHUNK, _LENGTH = 1.2, 1.0, 2.0, 0.2
_LONG = 120
# Neighbours of so many best chunks take part, with this share of the chunk's score.
_NEIGHBOUR, _WITH_NEIGHBOURS = 0.8, 5
# A passage grows as long as the next sentence has at least this share of the best sentence's score.
_GROW = 0.6
# The weight of the share of the question's words that a whole passage has, relative to its best sentence's score; and
# how many passages are compared at least, even if fewer are needed.
_WHOLE, _COMPARED = 0.1, 20


@dataclass(slots=True)
class Query:
    """A query: its vector of length 1 (None: the dense leg is off) and its terms (empty: the lexical leg is off)."""

    vector: "Vectors | None"
    terms: Sequence[str]
    weight: float = 1.0


@dataclass(slots=True)
class ChunkCandidate:
    """A chunk that a leg found, or a neighbour of one.

    `terms` are those terms of the queries that are in the chunk, its title or its headings; `sentences` are those in
    each of its sentences. `vectors` has a row of length 1 for the chunk, then one for each sentence. `lexical` has the
    BM25 score for each query, 0 if the chunk doesn't match. `reranker` is the reranker's score, on its own scale.

    The other scores are filled in by `rank_chunks`: `dense` is the chunk's cosine, `closest` that of its closest
    sentence, `coverage` the weighted share of the question's words in it.
    """

    n: int
    document_id: str
    terms: frozenset[str]
    sentences: Sequence[frozenset[str]]
    vectors: "Vectors"
    lexical: Sequence[float]
    dense: float = 0.0
    closest: float = 0.0
    coverage: float = 0.0
    bm25: float = 0.0
    reranker: float | None = None
    score: float = 0.0

    @property
    def relevance(self) -> float:
        """How well the chunk fits, 0 to 1.5, comparable between searches: cosine plus half of `coverage`."""
        return max(0.0, self.dense, self.closest) + RELEVANCE_OF_WORDS * self.coverage


@dataclass(slots=True)
class Sentence:
    """A sentence of a ranked chunk: `[start:end]` of the canonical text. `terms`: those of the queries that it has."""

    n: int
    start: int
    end: int
    score: float
    terms: frozenset[str] = frozenset()


@dataclass(slots=True)
class RankedPassage:
    """A passage: `[start:end]` of the document's canonical text, with its `best` sentence. `score` is 0 to 1."""

    document_id: str
    start: int
    end: int
    score: float
    best: Sentence
    sentences: list[Sentence] = field(default_factory=list[Sentence])


def rank_chunks(candidates: Sequence[ChunkCandidate], queries: Sequence[Query]) -> list[ChunkCandidate]:
    """The candidates with their scores filled in (0 to 1: the weighted mean over the queries), best first."""
    if not candidates:
        return []
    import numpy as np

    rows = np.concatenate([c.vectors for c in candidates])
    first = np.cumsum([0, *(len(c.vectors) for c in candidates[:-1])])
    total = np.zeros(len(candidates), np.float32)
    for number, query in enumerate(queries):
        score = np.zeros(len(candidates), np.float32)
        dense = closest = np.zeros(len(candidates), np.float32)
        if query.vector is not None:
            cosines = np.maximum(rows @ query.vector, 0.0)
            dense, closest = cosines[first], np.maximum.reduceat(cosines, first)
            score += _DENSE * _relative(dense) + _CLOSEST * _relative(closest)
        weights = _weights(query.terms, [c.terms for c in candidates])
        bm25 = np.array([c.lexical[number] for c in candidates], np.float32)
        coverage = np.array([_covered(weights, c.terms) for c in candidates], np.float32)
        score += _LEXICAL * _relative(bm25) + _COVERAGE * coverage
        total += query.weight * score
        if number == 0 or query.weight >= 1.0:
            for row, candidate in enumerate(candidates):
                candidate.dense = max(candidate.dense, float(dense[row]))
                candidate.closest = max(candidate.closest, float(closest[row]))
                candidate.coverage = max(candidate.coverage, float(coverage[row]))
                candidate.bm25 = max(candidate.bm25, float(bm25[row]))
    total /= sum(q.weight for q in queries) * (_DENSE + _CLOSEST + _LEXICAL + _COVERAGE)
    # Chunks with consecutive numbers are neighbours only if they are in the same document.
    own_scores = {(c.document_id, c.n): float(t) for c, t in zip(candidates, total, strict=True)}
    for candidate in candidates:
        neighbour = max(own_scores.get((candidate.document_id, candidate.n + step), 0.0) for step in (-1, 1))
        candidate.score = (own_scores[candidate.document_id, candidate.n] + _SMOOTH * neighbour) / (1 + _SMOOTH)
    return sorted(candidates, key=lambda c: -c.score)


def rerank(ranked: Sequence[ChunkCandidate], scores: Mapping[int, float]) -> list[ChunkCandidate]:
    """The chunks in a reranker's order. Its scores (by number, on any scale) become 0 for the worst to 1 for the best.

    Chunks without a score follow in their present order, with score 0. If all scores are equal, nothing changes.
    """
    for candidate in ranked:
        candidate.reranker = scores.get(candidate.n)
    # Halves, because the difference of two floats can be too large for a float.
    half = {n: score / 2 for n, score in scores.items()}
    worst = min(half.values(), default=0.0)
    width = max(half.values(), default=0.0) - worst
    if width == 0:
        return list(ranked)
    for candidate in ranked:
        candidate.score = (half.get(candidate.n, worst) - worst) / width
    return sorted(ranked, key=lambda c: (c.n not in scores, -scores.get(c.n, 0.0)))


def neighbour_scores(ranked: Sequence[ChunkCandidate]) -> dict[tuple[str, int], float]:
    """The chunks whose sentences take part in the second stage: score relative to the best, by (document, number).

    The numbers before and after each ranked chunk are included; the caller finds out whether these chunks exist.
    """
    best = (ranked[0].score if ranked else 0.0) or 1.0
    scores = {(c.document_id, c.n): c.score / best for c in ranked}
    for place, candidate in enumerate(ranked):
        share = _NEIGHBOUR * candidate.score / best if place < _WITH_NEIGHBOURS else 0.0
        for step in (-1, 1):
            neighbour = (candidate.document_id, candidate.n + step)
            scores[neighbour] = max(scores.get(neighbour, 0.0), share)
    return scores


def rank_sentences(
    chunk: ChunkCandidate,
    offsets: Sequence[tuple[int, int]],
    score: float,
    queries: Sequence[Query],
    words: Mapping[str, float],
) -> list[Sentence]:
    """The sentences of a chunk with their scores, in their order.

    `offsets` are those of the sentences in the document, `score` is the chunk's (0 to 1), `words` see `word_weights`.
    """
    import numpy as np

    cosines = np.zeros(len(offsets), np.float32)
    for query in queries:
        if query.vector is not None:
            # If the model has only one vector for a chunk, all of its sentences have the chunk's cosine.
            vectors = chunk.vectors[1:] if len(chunk.vectors) > 1 else chunk.vectors
            cosines += query.weight * np.maximum(vectors @ query.vector, 0.0)
    cosines /= sum(query.weight for query in queries)
    covered = np.array([_covered(words, terms) for terms in chunk.sentences], np.float32)
    length = np.array([min(1.0, (end - start) / _LONG) for start, end in offsets], np.float32)
    scores = _OWN_CLOSENESS * cosines + _OWN_WORDS * covered + _CHUNK * score + _LENGTH * length
    scores /= _OWN_CLOSENESS + _OWN_WORDS + _CHUNK + _LENGTH
    return [
        Sentence(chunk.n, start, end, float(own), terms)
        for (start, end), own, terms in zip(offsets, scores, chunk.sentences, strict=True)
    ]


def word_weights(queries: Sequence[Query], candidates: Sequence[ChunkCandidate]) -> dict[str, float]:
    """The weight of each word of the queries: rare words among the candidates weigh more.

    The sum is 1 if each query has words.
    """
    term_sets = [c.terms for c in candidates]
    total = sum(query.weight for query in queries)
    words: dict[str, float] = {}
    for query in queries:
        for word, weight in _weights(query.terms, term_sets).items():
            words[word] = words.get(word, 0.0) + query.weight * weight / total
    return words


def select_passages(
    documents: Iterable[tuple[str, list[list[Sentence]]]], words: Mapping[str, float], width: int, count: int
) -> list[RankedPassage]:
    """At most `count` passages of at most about `width` characters, best first.

    `documents` are ids with runs; a run is the ranked sentences of chunks that follow each other. `words`: see
    `word_weights`.
    """
    places: list[tuple[str, list[Sentence], int]] = [
        (document_id, run, at) for document_id, runs in documents for run in runs for at in range(len(run))
    ]
    places.sort(key=lambda place: -place[1][place[2]].score)
    least = _GROW * places[0][1][places[0][2]].score if places else 0.0
    taken: set[tuple[int, int]] = set()
    selected: list[RankedPassage] = []
    for document_id, run, at in places:
        if len(selected) == max(count, _COMPARED):
            break
        if (run[at].n, run[at].start) in taken:
            continue
        low, high = _grow(run, at, width, least, taken)
        part = run[low : high + 1]
        taken.update((s.n, s.start) for s in part)
        terms = frozenset[str]().union(*(s.terms for s in part))
        score = (run[at].score + _WHOLE * _covered(words, terms)) / (1 + _WHOLE)
        selected.append(RankedPassage(document_id, part[0].start, part[-1].end, score, run[at], part))
    return sorted(selected, key=lambda passage: -passage.score)[:count]


def select_sentences(
    documents: Iterable[tuple[str, list[list[Sentence]]]], max_chars: int, count: int
) -> list[RankedPassage]:
    """The best sentences that have at most `max_chars` characters in total, as at most `count` passages, best first.

    Sentences that follow each other become one passage.
    """
    runs = [(document_id, run, set[int]()) for document_id, runs in documents for run in runs]
    places = [(number, at) for number, (_, run, _) in enumerate(runs) for at in range(len(run))]
    places.sort(key=lambda place: -runs[place[0]][1][place[1]].score)
    before = -1
    # A sentence that would be one passage too many may get a neighbour later, and then belongs to its passage.
    while len(places) != before:
        before, skipped = len(places), list[tuple[int, int]]()
        for number, at in places:
            _, run, picked = runs[number]
            above, below = at - 1 in picked, at + 1 in picked
            # Next to a selected sentence, it joins that passage: the blanks between them count, too.
            length = (run[at + 1].start if below else run[at].end) - (run[at - 1].end if above else run[at].start)
            more = 1 - above - below
            if length > max_chars or more > count:
                skipped.append((number, at))
                continue
            max_chars -= length
            count -= more
            picked.add(at)
        places = skipped
    selected: list[RankedPassage] = []
    for document_id, run, picked in runs:
        for low, high in _ranges_of(sorted(picked)):
            part = run[low : high + 1]
            best = max(part, key=lambda s: s.score)
            selected.append(RankedPassage(document_id, part[0].start, part[-1].end, best.score, best, part))
    return sorted(selected, key=lambda passage: -passage.score)


def _ranges_of(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive numbers as (first, last)."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] + 1 == number:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _grow(run: Sequence[Sentence], at: int, width: int, least: float, taken: set[tuple[int, int]]) -> tuple[int, int]:
    """Extend a passage from the sentence `at`, each time to the better side. Returns its first and last sentence.

    At most `width` characters; each sentence has at least the score `least` and is not in `taken`.
    """
    low = high = at
    while True:
        sides: list[tuple[float, int, int]] = []
        for new_low, new_high, added in ((low - 1, high, low - 1), (low, high + 1, high + 1)):
            if not 0 <= added < len(run) or (run[added].n, run[added].start) in taken:
                continue
            if run[new_high].end - run[new_low].start <= width and run[added].score >= least:
                sides.append((run[added].score, new_low, new_high))
        if not sides:
            return low, high
        _, low, high = max(sides)


def _relative(values: "Vectors") -> "Vectors":
    """The values divided by the largest one."""
    largest = float(values.max()) if len(values) else 0.0
    return values / largest if largest > 0 else values


def _weights(terms: Sequence[str], term_sets: Sequence[frozenset[str]]) -> dict[str, float]:
    """The weight of each term: the fewer sets have it, the larger. The sum is 1."""
    count = len(term_sets)
    raw: dict[str, float] = {}
    for term in terms:
        frequency = sum(term in term_set for term_set in term_sets)
        raw[term] = math.log(1 + (count - frequency + 0.5) / (frequency + 0.5))
    total = sum(raw.values())
    return {term: weight / total for term, weight in raw.items()} if total else {}


def _covered(weights: Mapping[str, float], terms: frozenset[str]) -> float:
    """The weighted share of the terms that are there."""
    return sum(weight for term, weight in weights.items() if term in terms)
