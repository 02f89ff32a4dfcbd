"""Figures of one ranking of passages, for one question. Shares are 0 to 1.

A passage finds a place that has spans when it holds at least half of one of them; a place with a page when it begins on
that page; any other place when it is of that document. A place is credited once, to the first passage that finds it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .questions import Place, Question
from .spans import Span, shared, size, union

BUDGETS = (2000, 4000)  # characters
DEPTH = 20
"""Passages that are asked for: what fits into the largest budget, and more."""
_HALF = 0.5


@dataclass(frozen=True)
class Passage:
    """What a search found: `[start:end]` of the canonical text of a document."""

    document: str
    start: int
    end: int
    page: int | None = None


def figures(question: Question, passages: Sequence[Passage], k: int = 5) -> dict[str, float]:
    """All figures that the question's places allow. Raises ValueError for a question without places."""
    if not question.places:
        raise ValueError("an unanswerable question has no figures of a search")
    found: dict[str, float] = {}
    if any(place.spans for place in question.places):
        found[f"recall@{k}"], found[f"precision@{k}"] = characters(question.places, passages[:k])
        for budget in BUDGETS:
            found[f"recall in {budget:,}"] = characters(question.places, within(passages, budget))[0]
    else:
        found[f"recall@{k}"] = sum(credits(question.places, passages)[:k]) / len(question.places)
    gains = credits(question.places, passages)
    found["nDCG@10"] = ndcg(gains, len(question.places))
    found["MRR@10"] = next((1 / rank for rank, gain in enumerate(gains[:10], 1) if gain), 0.0)
    if any(place.page for place in question.places):
        pages = {(place.document, place.page) for place in question.places if place.page}
        found[f"page hit@{k}"] = float(any((p.document, p.page) in pages for p in passages[:k]))
    return found


def characters(places: Sequence[Place], passages: Sequence[Passage]) -> tuple[float, float]:
    """Recall and precision of the passages' characters. Of a place with several spans, the best found one counts.

    Characters that two passages share count twice in what was retrieved, as a model pays for them twice.
    """
    held = due = 0
    for document in {place.document for place in places if place.spans}:
        got = [(p.start, p.end) for p in passages if p.document == document]
        gold = union(
            max(place.spans, key=lambda span: shared([span], got) / (span[1] - span[0]))
            for place in places
            if place.document == document and place.spans
        )
        due += size(gold)
        held += shared(gold, got)
    retrieved = sum(p.end - p.start for p in passages)
    return held / due if due else 0.0, held / retrieved if retrieved else 0.0


def within(passages: Sequence[Passage], budget: int) -> list[Passage]:
    """The first passages that fit whole into so many characters, what they repeat left out; a first one that is too
    long is cut."""
    kept: list[Passage] = []
    used = 0
    for p in passages:
        before = [(q.start, q.end) for q in kept if q.document == p.document]
        new = p.end - p.start - shared([(p.start, p.end)], before)
        if new > budget - used:
            if kept:
                continue
            p, new = Passage(p.document, p.start, p.start + budget, p.page), budget
        if new:
            kept.append(p)
            used += new
    return kept


def credits(places: Sequence[Place], passages: Sequence[Passage]) -> list[int]:
    """For each passage the number of places that it finds and none before it found.

    Where whole documents are looked for, passages of a document that came before are left out.
    """
    if not any(place.spans or place.page for place in places):
        first: dict[str, Passage] = {}
        for p in passages:
            first.setdefault(p.document, p)
        passages = list(first.values())
    open_places = list(places)
    gains: list[int] = []
    for p in passages:
        found = [place for place in open_places if finds(p, place)]
        gains.append(len(found))
        open_places = [place for place in open_places if place not in found]
    return gains


def finds(passage: Passage, place: Place) -> bool:
    """See the top of this file."""
    if passage.document != place.document:
        return False
    if place.spans:
        return any(covered(span, [(passage.start, passage.end)]) >= _HALF for span in place.spans)
    return place.page is None or passage.page == place.page


def covered(span: Span, got: Sequence[Span]) -> float:
    """Share of a span's characters that are in `got`."""
    return shared([span], got) / (span[1] - span[0])


def ndcg(gains: Sequence[int], relevant: int, depth: int = 10) -> float:
    """Discounted gain of the first `depth`, as a share of what `relevant` places have that are found one by one.

    Passages that find several at once could have more than all of it; 1 is the most.
    """
    gained = sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:depth], 1))
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(relevant, depth) + 1))
    return min(1.0, gained / best)
