"""A server with one part of the search switched off: `SWITCHED_OFF=smoothing python -m evals.switched`.

The product has no such switches: what helps is on. They are put here from outside, to measure what each part is worth.
"""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.chains.retrieval import entries, ranking
from backend.chains.retrieval.ranking import ChunkCandidate, Query, Sentence
from backend.chains.text import terms


@dataclass(frozen=True)
class Switch:
    """What stands in place of the names of some modules (`module.name`) when a part is off. `indexed`: documents must
    be indexed with it as well, not only searched."""

    instead: Mapping[str, object]
    indexed: bool = False


def _only_ranked(ranked: Sequence[ChunkCandidate]) -> dict[tuple[str, int], float]:
    best = (ranked[0].score if ranked else 0.0) or 1.0
    return {(c.document_id, c.n): c.score / best for c in ranked}


def _whole_chunk(
    chunk: ChunkCandidate,
    spans: Sequence[tuple[int, int]],
    score: float,
    queries: Sequence[Query],
    words: Mapping[str, float],
) -> list[Sentence]:
    return [Sentence(chunk.n, spans[0][0], spans[-1][1], score)]


def _nothing_above(*_: Any) -> str:
    return ""


def _only_its_text(chunk: entries.ChunkText) -> str:
    return chunk.text


_RANKING = ranking.__name__
SWITCHES: Mapping[str, Switch] = {
    "first stage: the closest sentence": Switch({f"{_RANKING}._CLOSEST": 0.0}),
    "first stage: the share of the question's words": Switch({f"{_RANKING}._COVERAGE": 0.0}),
    "first stage: a tenth of the neighbour's score": Switch({f"{_RANKING}._SMOOTH": 0.0}),
    "second stage, whole: passages are the chunks": Switch(
        {
            f"{_RANKING}.neighbour_scores": _only_ranked,
            f"{_RANKING}.rank_sentences": _whole_chunk,
            f"{_RANKING}._GROW": 9.0,
        }
    ),
    "second stage: neighbours of the best chunks": Switch({f"{_RANKING}.neighbour_scores": _only_ranked}),
    "second stage: the sentence's closeness": Switch({f"{_RANKING}._OWN_CLOSENESS": 0.0}),
    "second stage: the sentence's words": Switch({f"{_RANKING}._OWN_WORDS": 0.0}),
    "second stage: its chunk's score": Switch({f"{_RANKING}._CHUNK": 0.0}),
    "second stage: its length": Switch({f"{_RANKING}._LENGTH": 0.0}),
    "passages: the words that they hold as a whole": Switch({f"{_RANKING}._WHOLE": 0.0}),
    "passages grow: a sentence each": Switch({f"{_RANKING}._GROW": 9.0}),
    "passages grow only over what fits: always to the full width": Switch({f"{_RANKING}._GROW": 0.0}),
    "title, headings and name in what is indexed": Switch(
        {
            f"{entries.__name__}.ChunkText.indexed": _only_its_text,
            f"{entries.__name__}.about_terms": _nothing_above,
        },
        indexed=True,
    ),
    "stems": Switch({f"{terms.__name__}._stem": lambda word, language: word}, indexed=True),
}


def switch_off(name: str) -> None:
    """Put what stands for a part that is off in its place, in this process. Raises KeyError."""
    for path, value in SWITCHES[name].instead.items():
        owner, attribute = owner_of(path)
        setattr(owner, attribute, value)


def owner_of(path: str) -> tuple[object, str]:
    """The module or class that holds a name, and the name in it."""
    *holder, attribute = path.split(".")
    for cut in range(len(holder), 0, -1):
        try:
            owner: object = importlib.import_module(".".join(holder[:cut]))
        except ModuleNotFoundError:
            continue
        for part in holder[cut:]:
            owner = getattr(owner, part)
        return owner, attribute
    raise ModuleNotFoundError(path)


def main() -> int:
    """Serve."""
    name = os.environ.get("SWITCHED_OFF")
    if name:
        switch_off(name)
    serve: Callable[[], int] = importlib.import_module("backend.main").main
    return serve()


if __name__ == "__main__":
    raise SystemExit(main())
