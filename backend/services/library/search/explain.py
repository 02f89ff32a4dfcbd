"""How the passages of a search were found: for `explain`, and stored with each answer."""

import dataclasses
from collections.abc import Sequence

from backend.chains.passages import Passage
from backend.chains.retrieval.ranking import ChunkCandidate
from backend.services.library.search.engine import SearchFindings, SearchRequest

_MAX_CANDIDATES = 30
"""Number of candidates in an explanation; a search looks at hundreds."""


def explain_search(
    request: SearchRequest,
    findings: SearchFindings,
    relevant: Sequence[Passage],
    irrelevant: Sequence[Passage],
    floor: float,
) -> dict[str, object]:
    """The explanation of a search, as JSON: queries, legs, ranked candidates with their outcome, times in ms."""
    outcomes = {p.chunk_id: "passage" for p in relevant} | {p.chunk_id: "below_floor" for p in irrelevant}
    in_passages = {f"chk_{s.n}" for passage in findings.passages for s in passage.sentences}
    return {
        "mode": request.mode,
        "queries": [
            {"text": text, "weight": weight, "terms": findings.terms[number] if findings.terms else []}
            for number, (text, weight) in enumerate(request.queries)
        ],
        "budget_chars": request.max_chars,
        "relevance_floor": floor,
        "found": dict(findings.hits),
        "candidates": [
            _explain_candidate(c, place, outcomes, in_passages)
            for place, c in enumerate(findings.ranked[:_MAX_CANDIDATES], 1)
        ],
        "candidates_in_all": len(findings.ranked),
        "reranker": dataclasses.asdict(findings.reranker_call) if findings.reranker_call is not None else None,
        "milliseconds": {name: round(1000 * spent, 2) for name, spent in findings.seconds.items()},
    }


def _explain_candidate(
    candidate: ChunkCandidate, place: int, outcomes: dict[str, str], in_passages: set[str]
) -> dict[str, object]:
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
        # A chunk has the best sentence of a passage, or other sentences of one, or it was not good enough.
        "outcome": outcomes.get(chunk_id) or ("in_passage" if chunk_id in in_passages else "outranked"),
    }
