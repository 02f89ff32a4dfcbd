"""The cost of a model call: with the price of the settings, or else with the price that genai-prices has now.

A price is in US dollars per million tokens, which is the same as micro-dollars per token.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any

from backend import events as ev
from backend.chains.models.prompt import Tokens
from backend.chains.models.provider import Endpoint
from backend.config.models_file import Price
from backend.kit.numbers import bounded


@dataclass(frozen=True, slots=True)
class Charge:
    """`cost` in whole micro-dollars, and the rates it was computed with."""

    cost: int
    price: ev.AppliedPrice


def charge(endpoint: Endpoint, model: str, own_price: Price | None, tokens: Tokens) -> Charge | None:
    """The cost of a call with these tokens; None if the price is unknown. `own_price` is the price of the settings."""
    if own_price is not None:
        return _flat(own_price, "settings", tokens)
    if endpoint.kind.price is not None:
        return _flat(endpoint.kind.price, "built in", tokens)
    return _listed(endpoint.listed_as, model, tokens) if endpoint.listed_as is not None else None


def charge_at_most(endpoint: Endpoint, model: str, own_price: Price | None, tokens: Tokens) -> int | None:
    """The highest cost in micro-dollars of a call with at most these tokens, with or without cached input. None if the
    price is unknown."""
    cases = (Tokens(tokens.input, tokens.output), Tokens(tokens.input, tokens.output, cached=tokens.input))
    charges = [charge(endpoint, model, own_price, case) for case in cases]
    return max((result.cost for result in charges if result is not None), default=None)


def _flat(price: Price, source: str, tokens: Tokens) -> Charge:
    cached = _cached(tokens)
    rate = price.input if price.cached is None else price.cached
    cost = (tokens.input - cached) * price.input + cached * rate + tokens.output * price.output
    applied = ev.AppliedPrice(source=source, input=price.input, output=price.output, cached=price.cached)
    return Charge(_whole(cost), applied)


def _listed(provider: str, model: str, tokens: Tokens) -> Charge | None:
    entry = _entry(provider, model)
    if not entry.known:
        return None
    if entry.flat is not None:
        return _flat(entry.flat, entry.source, tokens)
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=tokens.input, output_tokens=tokens.output, cache_read_tokens=_cached(tokens))
    calculation = calc_price(usage, model, provider_id=provider)
    rates = calculation.model_price
    input_rate, output_rate = _rate(rates.input_mtok, tokens), _rate(rates.output_mtok, tokens)
    if input_rate is None or (output_rate is None and tokens.output):
        return None
    applied = ev.AppliedPrice(
        source=entry.source,
        input=input_rate,
        output=output_rate or Decimal(0),
        cached=_rate(rates.cache_read_mtok, tokens),
    )
    return Charge(_whole(calculation.total_price * 1_000_000), applied)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A model in genai-prices. `flat` is its price, if every call has the same price."""

    known: bool
    source: str = ""
    flat: Price | None = None


@lru_cache(1024)
def _entry(provider: str, model: str) -> _Entry:
    # Cached, since a look-up takes 0.1 ms, and most prices are flat.
    from genai_prices import Usage, __version__, calc_price
    from genai_prices.types import ModelPrice

    try:
        calculation = calc_price(Usage(input_tokens=0, output_tokens=0), model, provider_id=provider)
    except LookupError:
        return _Entry(False)
    source, prices = f"genai-prices {__version__}", calculation.model.prices
    if not isinstance(prices, ModelPrice):
        return _Entry(True, source)
    # Calls use only text and its cache: rates per million of other tokens and per search never apply. A rate per
    # request would apply, so such a price is not flat.
    rates: dict[str, Any] = {name: rate for name, rate in vars(prices).items() if rate is not None}
    known = all(name.endswith(("_mtok", "_searches_kcount")) for name in rates)
    if not known or not {"input_mtok", "output_mtok"} <= rates.keys():
        return _Entry(True, source)
    values = [rates.get(name) for name in ("input_mtok", "output_mtok", "cache_read_mtok")]
    if not all(rate is None or isinstance(rate, Decimal) for rate in values):
        return _Entry(True, source)
    return _Entry(True, source, Price.model_construct(input=values[0], output=values[1], cached=values[2]))


def _rate(rate: Any, tokens: Tokens) -> Decimal | None:
    """The rate of this call. If the rate depends on the prompt's length, it is that of the highest tier reached."""
    if rate is None or isinstance(rate, Decimal):
        return rate
    reached = [tier.price for tier in rate.tiers if tokens.input > tier.start]
    return Decimal(reached[-1] if reached else rate.base)


def _cached(tokens: Tokens) -> int:
    """The cached tokens of the input, at most all of them: some servers report more cached than input tokens."""
    return min(tokens.cached or 0, tokens.input)


def _whole(micro: Decimal) -> int:
    return bounded(int(micro.to_integral_value(ROUND_HALF_UP)))
