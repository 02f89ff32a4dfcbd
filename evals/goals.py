"""What the project wants to reach, and how far it is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SHARES = ("recall", "precision", "nDCG", "MRR", "hit", "declined", "quoted")
"""In the names of figures that are shares, shown in percent."""


@dataclass(frozen=True)
class Goal:
    """At least `least`, in the unit in which the figure is shown. `sets`: which ones it is for; none is any."""

    figure: str
    least: float
    sets: str | None = None


GOALS = (
    Goal("recall@5", 90.0, "chroma"),
    Goal("precision@5", 6.0, "chroma"),
    Goal("recall in 2,000", 82.0, "chroma"),
    Goal("recall in 4,000", 90.0, "chroma"),
    Goal("nDCG@10", 86.0, "scifact"),
    Goal("follow-up recall@5", 89.0),
    Goal("page hit@5", 75.0),
    Goal("text MB/min", 1.3),
    Goal("PDF MB/min", 10.0),
)
"""`python -m bench search` has those of the search's speed, which are for 10,000 and 100,000 chunks."""


def is_share(name: str) -> bool:
    """Whether a figure is a share of 0 to 1."""
    return any(word in name for word in SHARES)


def judged(name: str, reached: Mapping[str, float]) -> Iterator[tuple[Goal, str]]:
    """The goals that a set has figures for: `met`, or how far away it is."""
    for goal in GOALS:
        if goal.figure in reached and goal.sets in (None, name):
            value = reached[goal.figure] * (100 if is_share(goal.figure) else 1)
            yield goal, "met" if round(value, 1) >= goal.least else f"{goal.least - value:.1f} short"
