"""What providers report as usage, in the words of each, becomes tokens that can be booked."""

import math
from typing import Any

import pytest

from backend.chains.models._usage import MAX_COUNT, combined, count_in, counts_in, later, tokens_in
from backend.chains.models.prompt import Tokens


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (7, 7),
        (0, 0),
        (7.0, 7),
        ("7", 7),
        (MAX_COUNT, MAX_COUNT),
        (MAX_COUNT + 1, None),
        (-1, None),
        (10**400, None),
        (math.inf, None),
        (math.nan, None),
        ("NaN", None),
        ("1e400", None),
        ("many", None),
        (True, None),
        (None, None),
        ([7], None),
        ({}, None),
    ],
)
def test_a_count_is_checked_where_it_enters(value: Any, count: int | None) -> None:
    assert count_in(value) == count


def usage(prompt: Any, completion: Any, total: Any = None, **more: Any) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    return {name: value for name, value in counts.items() if value is not None} | more


@pytest.mark.parametrize(
    ("reported", "tokens"),
    [
        # OpenAI: reasoning is a part of the completion.
        (usage(7, 30, 37, completion_tokens_details={"reasoning_tokens": 20}), Tokens(7, 30, reasoning=20)),
        # xAI: reasoning comes on top.
        (usage(32, 9, 135, completion_tokens_details={"reasoning_tokens": 94}), Tokens(32, 103, reasoning=94)),
        # The same without a total: more reasoning than completion can only be on top.
        (usage(32, 9, completion_tokens_details={"reasoning_tokens": 94}), Tokens(32, 103, reasoning=94)),
        # Gemini's OpenAI endpoint: no field names the thoughts.
        (usage(10, 5, 115), Tokens(10, 105, reasoning=100)),
        # DeepSeek, Moonshot, OpenAI, gateways to Anthropic: what came from the cache.
        (usage(100, 5, 105, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36), Tokens(100, 5, cached=64)),
        (usage(100, 5, 105, cached_tokens=64), Tokens(100, 5, cached=64)),
        (usage(100, 5, 105, prompt_tokens_details={"cached_tokens": 64}), Tokens(100, 5, cached=64)),
        (usage(36, 5, 105, cache_read_input_tokens=64), Tokens(100, 5, cached=64)),
        (usage(36, 5, cache_read_input_tokens=64), Tokens(100, 5, cached=64)),
        # Names of other APIs, and of Perplexity.
        ({"input_tokens": 7, "output_tokens": 3}, Tokens(7, 3)),
        (usage(7, 3, 10, reasoning_tokens=2), Tokens(7, 3, reasoning=2)),
        # A part that is missing follows from the total.
        (usage(7, None, 10), Tokens(7, 3)),
        (usage(None, 3, 10), Tokens(7, 3)),
        # Odd types.
        (usage("7", 3.0, "10"), Tokens(7, 3)),
        (usage(7, 3, -1), Tokens(7, 3)),
        (usage(7, 3, 0), Tokens(7, 3)),
        (usage(7, 3, 10, prompt_tokens_details=[], completion_tokens_details="x"), Tokens(7, 3)),
        # Nothing is counted.
        (usage(0, 0, 0), None),
        ({}, None),
        (usage(None, None, 10), None),
        (usage(True, -3, math.nan), None),
        ("usage", None),
        (None, None),
    ],
)
def test_usage_in_the_words_of_each_server(reported: Any, tokens: Tokens | None) -> None:
    assert tokens_in(reported) == tokens


@pytest.mark.parametrize(
    "reported",
    [usage(7, 3, 4), usage(7, 3, 10, completion_tokens_details={"reasoning_tokens": 30})],
    ids=["less than its parts", "more reasoning than output"],
)
def test_counts_that_contradict_each_other_are_doubtful(reported: Any) -> None:
    tokens = tokens_in(reported)
    assert tokens is not None
    assert (tokens.input, tokens.output, tokens.is_doubtful) == (7, 3, True)


def test_a_zero_never_replaces_a_figure() -> None:
    first = Tokens(7, 3, reasoning=2, cached=1)
    assert later(first, None) == later(None, first) == first
    assert later(first, Tokens(0, 5)) == Tokens(7, 5, reasoning=2, cached=1)


def test_sums_stay_within_bounds() -> None:
    tokens = combined(MAX_COUNT, MAX_COUNT, None, MAX_COUNT, MAX_COUNT)
    assert (tokens.input, tokens.output) == (MAX_COUNT, MAX_COUNT)
    tokens = combined(MAX_COUNT, 1, MAX_COUNT, MAX_COUNT, MAX_COUNT)
    assert max(tokens.input, tokens.output, tokens.reasoning or 0, tokens.cached or 0) <= MAX_COUNT


def test_only_counts_are_left_of_a_vendors_usage() -> None:
    reported = {"a": 1, "b": "2", "c": None, "d": {"e": 3, "f": True}, "g": [4], "h": -5}
    assert counts_in(reported) == {"a": 1, "b": 2, "d": {"e": 3}}
    assert counts_in("usage") == {}
