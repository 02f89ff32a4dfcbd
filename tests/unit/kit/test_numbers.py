"""Counts that every database and client can hold."""

import math

import pytest

from backend.chains.models.prompt import Tokens
from backend.kit.numbers import MAX_COUNT, bounded


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (7, 7),
        (-1, 0),
        (MAX_COUNT, MAX_COUNT),
        (MAX_COUNT + 1, MAX_COUNT),
        (10**400, MAX_COUNT),
        (7.9, 7),
        (1e300, MAX_COUNT),
        (-math.inf, 0),
        (math.inf, MAX_COUNT),
        (math.nan, 0),
        (None, 0),
        ("12", 0),
    ],
)
def test_a_count_is_a_whole_number_that_all_can_hold(value: object, count: int) -> None:
    assert bounded(value) == count


def test_what_a_provider_counts_is_bounded() -> None:
    assert Tokens(10**30, -5, 2**60, None) == Tokens(MAX_COUNT, 0, MAX_COUNT, None)
    assert Tokens(3, 4, 1, 2) == Tokens(3, 4, 1, 2)
