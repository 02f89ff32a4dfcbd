"""What a call of a model costs: by the settings' price, else by genai-prices', as it is at the time of the call.

A price is in US dollars for a million tokens, which is micro-dollars for one.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any

from backend import events as ev
from backend.chains.models.provider import Endpoint, Tokens
from backend.config.models_file import Price


@dataclass(frozen=True, slots=True)
class Charge:
    """`cost` in whole micro-dollars, and the rates it was computed with."""

    cost: int
    price: ev.AppliedPrice


def charge(endpoint: Endpoint, model: str, own: Price | None, tokens: Tokens) -> Charge | None:
    """The cost of a call that took these tokens; None when nobody knows the price. `own`: what the settings say."""
    if own is not None:
        return _flat(own, "settings", tokens)
    if endpoint.kind.price is not None:
        return _flat(endpoint.kind.price, "built in", tokens)
    return _listed(endpoint.listed_as, model, tokens) if endpoint.listed_as is not None else None


def charge_at_most(endpoint: Endpoint, model: str, own: Price | None, tokens: Tokens) -> int | None:
    """Micro-dollars that a call can cost which takes no more than these tokens, however much of its input is cached."""
    ways = (Tokens(tokens.input, tokens.output), Tokens(tokens.input, tokens.output, cached=tokens.input))
    charges = [charge(endpoint, model, own, way) for way in ways]
    return max((each.cost for each in charges if each is not None), default=None)


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

    used = Usage(input_tokens=tokens.input, output_tokens=tokens.output, cache_read_tokens=_cached(tokens))
    found = calc_price(used, model, provider_id=provider)
    rates = found.model_price
    read, written = _rate(rates.input_mtok, tokens), _rate(rates.output_mtok, tokens)
    if read is None or (written is None and tokens.output):
        return None
    applied = ev.AppliedPrice(
        source=entry.source,
        input=read,
        output=written or Decimal(0),
        cached=_rate(rates.cache_read_mtok, tokens),
    )
    return Charge(_whole(found.total_price * 1_000_000), applied)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the list has of a model. `flat`: its price, where it is the same for every call."""

    known: bool
    source: str = ""
    flat: Price | None = None


@lru_cache(1024)
def _entry(provider: str, model: str) -> _Entry:
    # Kept, since looking it up takes 0.1 ms, and most prices are flat.
    from genai_prices import Usage, __version__, calc_price
    from genai_prices.types import ModelPrice

    try:
        found = calc_price(Usage(input_tokens=0, output_tokens=0), model, provider_id=provider)
    except LookupError:
        return _Entry(False)
    source, prices = f"genai-prices {__version__}", found.model.prices
    if not isinstance(prices, ModelPrice):
        return _Entry(True, source)
    # Other things than text and its cache are never asked for, searches of the provider's neither; requests always are.
    rates: dict[str, Any] = {name: rate for name, rate in vars(prices).items() if rate is not None}
    known = all(name.endswith(("_mtok", "_searches_kcount")) for name in rates)
    if not known or not {"input_mtok", "output_mtok"} <= rates.keys():
        return _Entry(True, source)
    told = [rates.get(name) for name in ("input_mtok", "output_mtok", "cache_read_mtok")]
    if not all(rate is None or isinstance(rate, Decimal) for rate in told):
        return _Entry(True, source)
    return _Entry(True, source, Price.model_construct(input=told[0], output=told[1], cached=told[2]))


def _rate(rate: Any, tokens: Tokens) -> Decimal | None:
    """The rate of this call: of those that grow with the prompt, the one that it reaches."""
    if rate is None or isinstance(rate, Decimal):
        return rate
    reached = [tier.price for tier in rate.tiers if tokens.input > tier.start]
    return Decimal(reached[-1] if reached else rate.base)


def _cached(tokens: Tokens) -> int:
    """Tokens of the input that were cached; some servers count more of them than there were."""
    return min(tokens.cached or 0, tokens.input)


def _whole(micro: Decimal) -> int:
    return int(micro.to_integral_value(ROUND_HALF_UP))
