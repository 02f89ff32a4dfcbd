"""Two configurations over the same questions: is the difference more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Figures = dict[str, float]
RESAMPLES = 10_000
_SEED = 0


@dataclass(frozen=True)
class Difference:
    """Means over the questions that both have a figure for; `low` to `high` is the 95% interval of `second - first`."""

    first: float
    second: float
    low: float
    high: float
    questions: int

    @property
    def certain(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def mean(figures: Sequence[Figures]) -> Figures:
    """Of each figure, over the questions that have it, in the order of their first appearance."""
    names = dict.fromkeys(name for each in figures for name in each)
    return {name: float(np.mean([each[name] for each in figures if name in each])) for name in names}


def differences(first: Sequence[Figures], second: Sequence[Figures]) -> dict[str, Difference]:
    """Of each figure that both have, by a paired bootstrap: questions are drawn anew, with both of their figures."""
    pairs = list(zip(first, second, strict=True))
    names = dict.fromkeys(name for one, other in pairs for name in one if name in other)
    return {name: _difference([(a[name], b[name]) for a, b in pairs if name in a and name in b]) for name in names}


def _difference(pairs: Sequence[tuple[float, float]]) -> Difference:
    figures = np.array(pairs)
    gains = figures[:, 1] - figures[:, 0]
    random = np.random.default_rng(_SEED)
    # One resample at a time: all at once would be gigabytes for some thousands of questions.
    means = [gains[random.integers(0, len(gains), len(gains))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    one, other = figures.mean(axis=0)
    return Difference(float(one), float(other), float(low), float(high), len(gains))
