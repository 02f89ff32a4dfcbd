"""Ranking: from the candidates of both legs to passages. Arithmetic only; what it looks at is read by the caller.

Two stages. Chunks are ranked by what both legs say of them, then the sentences of the best chunks and of their
neighbours by their own closeness, their words and their chunk. A passage is a run of sentences around a good one, wider
than a chunk where the text around it fits as well, and may begin in one chunk and end in the next. Passages are ranked
by their best sentence and the words that all of their sentences hold together.

Every weight was measured on data sets of different kinds; docs/retrieval.md has the figures, and what each part adds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

# The first stage. Closeness (of the chunk, of its closest sentence) and BM25 count relative to the best candidate's.
_DENSE, _CLOSEST, _LEXICAL, _COVERAGE = 0.3, 0.2, 0.5, 0.3
# How much of its better neighbour's score a chunk is given.
_SMOOTH = 0.1
# The second stage: the sentence's closeness, its share of the question's words, its chunk, and that it is long enough
# to say something (`_LONG` characters).
_OWN_CLOSENESS, _OWN_WORDS, _CHUNK, _LENGTH = 1.2, 1.0, 2.0, 0.2
_LONG = 120
# Neighbours of the best chunks take part, at this share of its score.
_NEIGHBOUR, _WITH_NEIGHBOURS = 0.8, 5
# A passage grows as long as the sentence beside it has this share of the best sentence's score.
_GROW = 0.6
# Beside its best sentence's score, what counts is the share of the question's words that a passage holds as a whole. So
# many passages are compared, however few are asked for.
_WHOLE, _COMPARED = 0.1, 20
RELEVANCE_OF_WORDS = 0.5


@dataclass(slots=True)
class Query:
    """What to look for: vector of length 1 (None: the dense leg is off) and terms (empty: the lexical leg is off)."""

    vector: "Vectors | None"
    terms: Sequence[str]
    weight: float = 1.0


@dataclass(slots=True)
class ChunkCandidate:
    """A chunk that a leg has found. `lexical` is a BM25 score for each query, 0 where it didn't match.

    `held`: which of the queries' terms it has, with its title and headings, and `sentences` which each of its sentences
    has. `vectors`: its own, then its sentences', rows of length 1. `reranker`: what one has said of it, on a scale of
    its own.
    """

    n: int
    document_id: str
    held: frozenset[str]
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
        """How well it fits, on a scale that holds from search to search: closeness and half the share of the question's
        words, 0 to 1.5.
        """
        return max(0.0, self.dense, self.closest) + RELEVANCE_OF_WORDS * self.coverage


@dataclass(slots=True)
class Sentence:
    """A sentence of a ranked chunk; `[start:end]` of the document's canonical text. `held`: words of the queries."""

    n: int
    start: int
    end: int
    score: float
    held: frozenset[str] = frozenset()


@dataclass(slots=True)
class RankedPassage:
    """A passage: `[start:end]` of the document's text, and its `best` sentence. `score` is from 0 to 1."""

    document_id: str
    start: int
    end: int
    score: float
    best: Sentence
    sentences: list[Sentence] = field(default_factory=list[Sentence])


def rank_chunks(candidates: Sequence[ChunkCandidate], queries: Sequence[Query]) -> list[ChunkCandidate]:
    """Best first, with their scores filled in: each query's, weighted, from 0 to 1."""
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
            near = np.maximum(rows @ query.vector, 0.0)
            dense, closest = near[first], np.maximum.reduceat(near, first)
            score += _DENSE * _relative(dense) + _CLOSEST * _relative(closest)
        weights = _weights(query.terms, [c.held for c in candidates])
        bm25 = np.array([c.lexical[number] for c in candidates], np.float32)
        coverage = np.array([_covered(weights, c.held) for c in candidates], np.float32)
        score += _LEXICAL * _relative(bm25) + _COVERAGE * coverage
        total += query.weight * score
        if number == 0 or query.weight >= 1.0:
            for row, candidate in enumerate(candidates):
                candidate.dense = max(candidate.dense, float(dense[row]))
                candidate.closest = max(candidate.closest, float(closest[row]))
                candidate.coverage = max(candidate.coverage, float(coverage[row]))
                candidate.bm25 = max(candidate.bm25, float(bm25[row]))
    total /= sum(q.weight for q in queries) * (_DENSE + _CLOSEST + _LEXICAL + _COVERAGE)
    # Numbers that follow each other are neighbours only inside a document.
    alone = {(c.document_id, c.n): float(t) for c, t in zip(candidates, total, strict=True)}
    for candidate in candidates:
        beside = max(alone.get((candidate.document_id, candidate.n + step), 0.0) for step in (-1, 1))
        candidate.score = (alone[candidate.document_id, candidate.n] + _SMOOTH * beside) / (1 + _SMOOTH)
    return sorted(candidates, key=lambda c: -c.score)


def rerank(ranked: Sequence[ChunkCandidate], scores: Mapping[int, float]) -> list[ChunkCandidate]:
    """The chunks in a reranker's order: its scores (by number, on any scale) from 0 for its worst to 1 for its best.
    Those that it wasn't shown follow in their order, at 0. Scores that are all the same change nothing.
    """
    for candidate in ranked:
        candidate.reranker = scores.get(candidate.n)
    # Halves, because the difference of two floats may be more than a float can be.
    half = {n: score / 2 for n, score in scores.items()}
    worst = min(half.values(), default=0.0)
    width = max(half.values(), default=0.0) - worst
    if width == 0:
        return list(ranked)
    for candidate in ranked:
        candidate.score = (half.get(candidate.n, worst) - worst) / width
    return sorted(ranked, key=lambda c: (c.n not in scores, -scores.get(c.n, 0.0)))


def neighbour_scores(ranked: Sequence[ChunkCandidate]) -> dict[tuple[str, int], float]:
    """The chunks whose sentences take part in the second stage, (document, number): score relative to the best's.

    The numbers before and behind the ranked ones are among them; whether such a chunk exists, the caller finds out.
    """
    best = (ranked[0].score if ranked else 0.0) or 1.0
    scores = {(c.document_id, c.n): c.score / best for c in ranked}
    for place, candidate in enumerate(ranked):
        share = _NEIGHBOUR * candidate.score / best if place < _WITH_NEIGHBOURS else 0.0
        for step in (-1, 1):
            beside = (candidate.document_id, candidate.n + step)
            scores[beside] = max(scores.get(beside, 0.0), share)
    return scores


def rank_sentences(
    chunk: ChunkCandidate,
    spans: Sequence[tuple[int, int]],
    score: float,
    queries: Sequence[Query],
    words: Mapping[str, float],
) -> list[Sentence]:
    """The sentences of a chunk in their order; `spans` are theirs in the document, `score` is the chunk's (0 to 1), and
    `words` are as `weigh` says.
    """
    import numpy as np

    near = np.zeros(len(spans), np.float32)
    for query in queries:
        if query.vector is not None:
            # A model that gives one vector a text says of each sentence what it says of the chunk.
            vectors = chunk.vectors[1:] if len(chunk.vectors) > 1 else chunk.vectors
            near += query.weight * np.maximum(vectors @ query.vector, 0.0)
    near /= sum(query.weight for query in queries)
    covered = np.array([_covered(words, said) for said in chunk.sentences], np.float32)
    length = np.array([min(1.0, (end - start) / _LONG) for start, end in spans], np.float32)
    scores = _OWN_CLOSENESS * near + _OWN_WORDS * covered + _CHUNK * score + _LENGTH * length
    scores /= _OWN_CLOSENESS + _OWN_WORDS + _CHUNK + _LENGTH
    return [
        Sentence(chunk.n, start, end, float(own), said)
        for (start, end), own, said in zip(spans, scores, chunk.sentences, strict=True)
    ]


def weigh(queries: Sequence[Query], candidates: Sequence[ChunkCandidate]) -> dict[str, float]:
    """How telling each of the queries' words is among the candidates; together 1, if each query has words."""
    bags = [c.held for c in candidates]
    total = sum(query.weight for query in queries)
    words: dict[str, float] = {}
    for query in queries:
        for word, weight in _weights(query.terms, bags).items():
            words[word] = words.get(word, 0.0) + query.weight * weight / total
    return words


def passages(
    documents: Iterable[tuple[str, list[list[Sentence]]]], words: Mapping[str, float], width: int, count: int
) -> list[RankedPassage]:
    """At most `count` passages of at most about `width` characters, best first.

    `documents`: id and runs, each the ranked sentences of chunks that follow each other. `words`: see `weigh`.
    """
    places: list[tuple[str, list[Sentence], int]] = [
        (document_id, run, at) for document_id, runs in documents for run in runs for at in range(len(run))
    ]
    places.sort(key=lambda place: -place[1][place[2]].score)
    least = _GROW * places[0][1][places[0][2]].score if places else 0.0
    taken: set[tuple[int, int]] = set()
    found: list[RankedPassage] = []
    for document_id, run, at in places:
        if len(found) == max(count, _COMPARED):
            break
        if (run[at].n, run[at].start) in taken:
            continue
        low, high = _grown(run, at, width, least, taken)
        part = run[low : high + 1]
        taken.update((s.n, s.start) for s in part)
        held = frozenset[str]().union(*(s.held for s in part))
        score = (run[at].score + _WHOLE * _covered(words, held)) / (1 + _WHOLE)
        found.append(RankedPassage(document_id, part[0].start, part[-1].end, score, run[at], part))
    return sorted(found, key=lambda span: -span.score)[:count]


def within_budget(
    documents: Iterable[tuple[str, list[list[Sentence]]]], budget: int, count: int
) -> list[RankedPassage]:
    """The best sentences that fit into `budget` characters, at most `count` passages, best first.

    Those that follow each other are one passage.
    """
    runs = [(document_id, run, set[int]()) for document_id, runs in documents for run in runs]
    places = [(number, at) for number, (_, run, _) in enumerate(runs) for at in range(len(run))]
    places.sort(key=lambda place: -runs[place[0]][1][place[1]].score)
    before = -1
    # What would have been a passage too many may stand beside one later.
    while len(places) != before:
        before, passed_over = len(places), list[tuple[int, int]]()
        for number, at in places:
            _, run, picked = runs[number]
            above, below = at - 1 in picked, at + 1 in picked
            # With a sentence beside it, it becomes one passage: with the blanks between them.
            length = (run[at + 1].start if below else run[at].end) - (run[at - 1].end if above else run[at].start)
            more = 1 - above - below
            if length > budget or more > count:
                passed_over.append((number, at))
                continue
            budget -= length
            count -= more
            picked.add(at)
        places = passed_over
    found: list[RankedPassage] = []
    for document_id, run, picked in runs:
        for low, high in _runs_of(sorted(picked)):
            part = run[low : high + 1]
            best = max(part, key=lambda s: s.score)
            found.append(RankedPassage(document_id, part[0].start, part[-1].end, best.score, best, part))
    return sorted(found, key=lambda span: -span.score)


def _runs_of(numbers: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] + 1 == number:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _grown(run: Sequence[Sentence], at: int, width: int, least: float, taken: set[tuple[int, int]]) -> tuple[int, int]:
    """The sentences low..high around `at`: towards the better side, within `width`."""
    low = high = at
    while True:
        sides: list[tuple[float, int, int]] = []
        for new_low, new_high, beside in ((low - 1, high, low - 1), (low, high + 1, high + 1)):
            if not 0 <= beside < len(run) or (run[beside].n, run[beside].start) in taken:
                continue
            if run[new_high].end - run[new_low].start <= width and run[beside].score >= least:
                sides.append((run[beside].score, new_low, new_high))
        if not sides:
            return low, high
        _, low, high = max(sides)


def _relative(values: "Vectors") -> "Vectors":
    largest = float(values.max()) if len(values) else 0.0
    return values / largest if largest > 0 else values


def _weights(terms: Sequence[str], bags: Sequence[frozenset[str]]) -> dict[str, float]:
    """How telling each term is, by how few of the bags have it; together 1."""
    count = len(bags)
    raw: dict[str, float] = {}
    for term in terms:
        held = sum(term in bag for bag in bags)
        raw[term] = math.log(1 + (count - held + 0.5) / (held + 0.5))
    total = sum(raw.values())
    return {term: weight / total for term, weight in raw.items()} if total else {}


def _covered(weights: Mapping[str, float], bag: frozenset[str]) -> float:
    return sum(weight for term, weight in weights.items() if term in bag)
