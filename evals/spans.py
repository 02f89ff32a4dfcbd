"""Pieces of a text as (start, end), in code points; and where a piece of text stands in another."""

from collections.abc import Iterable

Span = tuple[int, int]


def union(spans: Iterable[Span]) -> list[Span]:
    """The same characters in order, none of them twice."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        elif start < end:
            joined.append((start, end))
    return joined


def size(spans: Iterable[Span]) -> int:
    """Characters in spans that don't overlap."""
    return sum(end - start for start, end in spans)


def shared(one: Iterable[Span], other: Iterable[Span]) -> int:
    """Characters that are in both."""
    others = union(other)
    return sum(max(0, min(end, e) - max(start, s)) for start, end in union(one) for s, e in others)


class Text:
    """A text in which pieces are found whatever white space either of them has."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._places = [at for at, character in enumerate(text) if not character.isspace()]
        self._dense = "".join(text.split())

    def find(self, piece: str) -> list[Span]:
        """Every place where the piece stands, in order; overlapping ones once."""
        dense = "".join(piece.split())
        found: list[Span] = []
        at = self._dense.find(dense) if dense else -1
        while at >= 0:
            found.append((self._places[at], self._places[at + len(dense) - 1] + 1))
            at = self._dense.find(dense, at + len(dense))
        return found
