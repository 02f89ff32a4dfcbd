"""What a call of a model costs: by the settings' price, else by genai-prices', as it is at the time of the call.

A price is in US dollars for a million tokens, which is micro-dollars for one.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from backend import events as ev
from backend.chains.models.base import Endpoint, Tokens
from backend.config.providers import Price


@dataclass(frozen=True, slots=True)
class Charge:
    """`cost` in whole micro-dollars, and the rates it was computed with."""

    cost: int
    price: ev.AppliedPrice


def charge(endpoint: Endpoint, model: str, own: Price | None, tokens: Tokens) -> Charge | None:
    """The cost of a call that took these tokens; None when nobody knows the price. `own`: what the settings say."""
    price = own or endpoint.kind.price
    if price is not None:
        source = "settings" if own is not None else "built in"
        applied = ev.AppliedPrice(source=source, input=price.input, output=price.output, cached=price.cached)
        return Charge(_cost(price, tokens), applied)
    return _listed(endpoint.listed_as, model, tokens)


def charge_at_most(endpoint: Endpoint, model: str, own: Price | None, tokens: Tokens) -> int | None:
    """Micro-dollars that a call can cost which takes no more than these tokens, however much of its input is cached."""
    ways = (Tokens(tokens.input, tokens.output), Tokens(tokens.input, tokens.output, cached=tokens.input))
    charges = [charge(endpoint, model, own, way) for way in ways]
    return max((each.cost for each in charges if each is not None), default=None)


def _cost(price: Price, tokens: Tokens) -> int:
    cached = _cached(tokens)
    rate = price.input if price.cached is None else price.cached
    return _whole((tokens.input - cached) * price.input + cached * rate + tokens.output * price.output)


def _listed(provider: str | None, model: str, tokens: Tokens) -> Charge | None:
    if provider is None:
        return None
    from genai_prices import Usage, __version__, calc_price

    used = Usage(input_tokens=tokens.input, output_tokens=tokens.output, cache_read_tokens=_cached(tokens))
    try:
        found = calc_price(used, model, provider_id=provider)
    except LookupError:
        return None
    rates = found.model_price
    read, written = _rate(rates.input_mtok, tokens), _rate(rates.output_mtok, tokens)
    if read is None or (written is None and tokens.output):
        return None
    applied = ev.AppliedPrice(
        source=f"genai-prices {__version__}",
        input=read,
        output=written or Decimal(0),
        cached=_rate(rates.cache_read_mtok, tokens),
    )
    return Charge(_whole(found.total_price * 1_000_000), applied)


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
