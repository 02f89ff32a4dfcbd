"""Figures of one answer: are its citations right, and does it decline what the documents don't answer.

An answer without a citation has declined. A citation is right when its quote and an expected text share characters, or
when it is on the page where only that is known, or of the document.
"""

from collections.abc import Sequence

from .client import Answer
from .metrics import Passage, covered
from .questions import Place, Question
from .spans import shared

QUOTES = 2
"""Sentences that an answer of the extractive model has to hold the expected text."""
_HALF = 0.5


def figures(question: Question, answer: Answer) -> dict[str, float]:
    """All figures that the question's places allow. Raises ValueError for an answer that failed."""
    if answer.failed is not None:
        raise ValueError("a failed answer has no figures")
    declined = float(not answer.citations)
    if not question.answerable:
        return {"rightly declined": declined}
    right = [any(supports(c, place) for place in question.places) for c in answer.citations]
    backed = [any(supports(c, place) for c in answer.citations) for place in question.places]
    found = {"citation recall": sum(backed) / len(backed), "wrongly declined": declined}
    if right:
        found["citation precision"] = sum(right) / len(right)
    evidence = question.evidence or question.places
    if all(place.spans for place in evidence):
        found["quoted in two"] = float(any(holds(answer.citations[:QUOTES], place) for place in evidence))
    return found


def supports(citation: Passage, place: Place) -> bool:
    """See the top of this file."""
    if citation.document != place.document:
        return False
    if place.spans:
        return shared([(citation.start, citation.end)], place.spans) > 0
    return place.page is None or citation.page == place.page


def holds(citations: Sequence[Passage], place: Place) -> bool:
    """Whether the quotes together hold at least half of one of the place's spans."""
    quoted = [(c.start, c.end) for c in citations if c.document == place.document]
    return any(covered(span, quoted) >= _HALF for span in place.spans)
