"""What a call costs: rounding, cached tokens, tiers, and what nobody knows."""

from dataclasses import replace
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price, data_snapshot
from hypothesis import given
from hypothesis import strategies as st

from backend.chains.models.prices import charge, charge_at_most
from backend.chains.models.prompt import Tokens
from backend.chains.models.provider import FREE, Endpoint, Kind
from backend.config.models_file import Price

OPENAI = Endpoint("openai", Kind("openai", "", base_url="https://a", prices="openai"), "https://a")
GOOGLE = Endpoint("google", Kind("google", "", base_url="https://b", prices="google"), "https://b")
UNKNOWN = "no-such-model-anywhere"
TIERED = "gemini-2.5-pro"
PROVIDERS = {"openai", "anthropic", "google", "cohere", "groq", "deepseek", "mistral", "x-ai", "together", "azure"}


def price(input: str, output: str = "0", cached: str | None = None) -> Price:
    return Price(input=Decimal(input), output=Decimal(output), cached=None if cached is None else Decimal(cached))


def cost(own: Price, tokens: Tokens) -> int:
    result = charge(OPENAI, UNKNOWN, own, tokens)
    assert result is not None
    return result.cost


@pytest.mark.parametrize(
    ("rate", "tokens", "expected"),
    [
        ("0.5", 1, 1),  # half a micro-dollar: up
        ("0.5", 3, 2),
        ("0.5", 2, 1),
        ("0.49", 1, 0),
        ("0.05", 9, 0),
        ("0.05", 10, 1),
        ("3", 1_000_000, 3_000_000),
        ("0.000001", 499_999, 0),
        ("0.000001", 500_000, 1),
    ],
)
def test_a_call_is_rounded_half_up_to_whole_micro_dollars(rate: str, tokens: int, expected: int) -> None:
    assert cost(price(rate), Tokens(tokens, 0)) == expected
    assert cost(price("0", rate), Tokens(0, tokens)) == expected


def test_a_call_is_rounded_once_not_each_of_its_parts() -> None:
    assert cost(price("0.4", "0.4"), Tokens(1, 1)) == 1


def test_cached_tokens_cost_what_cached_tokens_cost() -> None:
    assert cost(price("2", "8", "0.5"), Tokens(100, 10, cached=60)) == 40 * 2 + 30 + 80
    assert cost(price("2", "8"), Tokens(100, 10, cached=60)) == 280, "as other input, where nothing is said"
    assert cost(price("2", "8", "0"), Tokens(100, 10, cached=100)) == 80
    assert cost(price("2", "8", "0.5"), Tokens(100, 0, cached=200)) == 50, "no more can be cached than there was"


def test_reasoning_is_a_part_of_the_output() -> None:
    assert cost(price("1", "2"), Tokens(10, 20, reasoning=15)) == 50


def test_the_settings_price_wins_and_is_written_down() -> None:
    result = charge(OPENAI, "gpt-4.1-mini", price("1", "2", "0.1"), Tokens(10, 10))
    assert result is not None
    assert (result.cost, result.price.source) == (30, "settings")
    assert (result.price.input, result.price.output, result.price.cached) == (1, 2, Decimal("0.1"))


def test_the_list_says_the_price_and_which_list_it_was() -> None:
    result = charge(OPENAI, "gpt-4.1-mini", None, Tokens(1_000, 100, cached=400))
    assert result is not None
    assert result.price.source.startswith("genai-prices ")
    cached = result.price.cached
    assert cached is not None
    assert result.cost == round(600 * result.price.input + 400 * cached + 100 * result.price.output)


@pytest.mark.parametrize("input", [1_000, 200_000, 200_001, 900_000])
@pytest.mark.parametrize("cached", [0, 500])
def test_a_price_that_grows_with_the_prompt_is_the_one_that_the_call_reached(input: int, cached: int) -> None:
    result = charge(GOOGLE, TIERED, None, Tokens(input, 1_000, cached=cached))
    used = Usage(input_tokens=input, output_tokens=1_000, cache_read_tokens=cached)
    theirs = calc_price(used, TIERED, provider_id="google")
    assert result is not None
    assert result.cost == int((theirs.total_price * 1_000_000).to_integral_value("ROUND_HALF_UP"))
    rate = result.price.cached
    assert rate is not None
    # The rates written down are enough to compute the cost again.
    again = (input - cached) * result.price.input + cached * rate + 1_000 * result.price.output
    assert result.cost == int(again.to_integral_value("ROUND_HALF_UP"))


def test_the_tiers_are_different_prices() -> None:
    small, large = (charge(GOOGLE, TIERED, None, Tokens(n, 0)) for n in (200_000, 200_001))
    assert small is not None
    assert large is not None
    assert large.cost > 1.5 * small.cost


def test_what_nobody_knows_is_unknown_and_not_zero() -> None:
    assert charge(OPENAI, UNKNOWN, None, Tokens(10, 10)) is None
    assert charge_at_most(OPENAI, UNKNOWN, None, Tokens(10, 10)) is None
    local = Endpoint("box", Kind("ollama", ""), "http://127.0.0.1:1")
    assert charge(local, "gpt-4.1-mini", None, Tokens(10, 10)) is None


def test_a_server_of_ones_own_has_no_price_because_of_its_models_name() -> None:
    mine = replace(OPENAI, base_url="http://127.0.0.1:8080/v1")
    assert charge(OPENAI, "gpt-4.1-mini", None, Tokens(10, 10)) is not None
    assert charge(mine, "gpt-4.1-mini", None, Tokens(10, 10)) is None


def test_what_is_free_costs_zero_where_that_is_said() -> None:
    inside = Endpoint("extractive", Kind("extractive", "", price=FREE))
    assert charge(inside, "quotes", None, Tokens(10, 10)).cost == 0  # type: ignore[union-attr]
    assert charge(inside, "quotes", price("1"), Tokens(10, 10)).cost == 10  # type: ignore[union-attr]
    assert cost(price("0"), Tokens(10, 10)) == 0


@given(
    st.sampled_from([None, price("3", "12"), price("3", "12", "0.3"), price("1", "2", "5")]),
    st.integers(0, 400_000),
    st.integers(0, 10_000),
    st.integers(0, 400_000),
    st.integers(0, 400_000),
)
def test_no_call_within_its_bounds_costs_more_than_the_bound(
    own: Price | None, input: int, output: int, cached: int, more: int
) -> None:
    highest = charge_at_most(GOOGLE, TIERED, own, Tokens(input + more, output + more))
    real = charge(GOOGLE, TIERED, own, Tokens(input, output, cached=cached))
    assert highest is not None
    assert real is not None
    assert real.cost <= highest


LISTED = [(p.id, m.id) for p in data_snapshot.get_snapshot().providers for m in p.models if p.id in PROVIDERS]


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_every_price_of_the_list_is_what_the_list_makes_of_it(provider: str) -> None:
    """Flat ones are computed here: to the micro-dollar as there."""
    endpoint = Endpoint(provider, Kind(provider, "", base_url="https://c", prices=provider), "https://c")
    tier_count = 0
    for model in (m for p, m in LISTED if p == provider):
        for tokens in (Tokens(1_234, 567, cached=333), Tokens(300_001, 77)):
            used = Usage(input_tokens=tokens.input, output_tokens=tokens.output, cache_read_tokens=tokens.cached or 0)
            ours = charge(endpoint, model, None, tokens)
            try:
                theirs = calc_price(used, model, provider_id=provider)
            except LookupError:  # an entry that stands for models with longer names
                assert ours is None
                continue
            if ours is not None:
                tier_count += 1
                assert ours.cost == int((theirs.total_price * 1_000_000).to_integral_value("ROUND_HALF_UP")), model
    assert tier_count > 4
