"""Whole numbers that every database and every client can hold."""

MAX_COUNT = 2**53
"""The largest count of tokens, cost in micro-dollars, or sum of them: JSON's readers hold no larger number exactly."""


def bounded(value: object) -> int:
    """The value as a count: a whole number from 0 to `MAX_COUNT`. What is no number counts as 0."""
    if isinstance(value, float):
        # Also infinity and NaN, which have no int.
        return int(min(max(value, 0.0), MAX_COUNT)) if value == value else 0
    return min(max(value, 0), MAX_COUNT) if isinstance(value, int) else 0
