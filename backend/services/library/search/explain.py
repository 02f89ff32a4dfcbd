"""How a search went, in words and figures: for `explain`, and stored with each answer."""

import dataclasses
from collections.abc import Sequence

from backend.chains.passages import Passage
from backend.chains.retrieval.ranking import ChunkCandidate
from backend.services.library.search.engine import Found, SearchRequest

_TOLD = 30
"""Candidates that are told about; hundreds are looked at."""


def trace_of(
    wanted: SearchRequest, found: Found, kept: Sequence[Passage], irrelevant: Sequence[Passage], floor: float
) -> dict[str, object]:
    """Queries, legs, ranked candidates and what became of each, dropped ones with the reason; times in ms."""
    given = {p.chunk_id: "passage" for p in kept} | {p.chunk_id: "below_floor" for p in irrelevant}
    inside = {f"chk_{s.n}" for span in found.spans for s in span.sentences}
    return {
        "mode": wanted.mode,
        "queries": [
            {"text": text, "weight": weight, "terms": found.terms[number] if found.terms else []}
            for number, (text, weight) in enumerate(wanted.queries)
        ],
        "budget_chars": wanted.budget,
        "relevance_floor": floor,
        "found": dict(found.hits),
        "candidates": [_told(c, place, given, inside) for place, c in enumerate(found.ranked[:_TOLD], 1)],
        "candidates_in_all": len(found.ranked),
        "reranker": dataclasses.asdict(found.reranked) if found.reranked is not None else None,
        "milliseconds": {name: round(1000 * spent, 2) for name, spent in found.seconds.items()},
    }


def _told(candidate: ChunkCandidate, place: int, given: dict[str, str], inside: set[str]) -> dict[str, object]:
    chunk_id = f"chk_{candidate.n}"
    return {
        "chunk_id": chunk_id,
        "document_id": candidate.document_id,
        "place": place,
        "score": round(candidate.score, 4),
        "relevance": round(candidate.relevance, 4),
        "dense": round(candidate.dense, 4),
        "sentence": round(candidate.closest, 4),
        "lexical": round(candidate.bm25, 4),
        "coverage": round(candidate.coverage, 4),
        "reranker": round(candidate.reranker, 4) if candidate.reranker is not None else None,
        # A chunk is the heart of a passage, or lies in another's, or others were better.
        "outcome": given.get(chunk_id) or ("in_passage" if chunk_id in inside else "outranked"),
    }
