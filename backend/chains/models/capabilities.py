"""What a model can and costs: what the settings say of it, then LangChain's profiles, then genai-prices."""

import importlib.util
import runpy
from collections.abc import Mapping
from decimal import Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

from backend.chains.models.provider import Endpoint, Kind
from backend.config.models_file import ModelSpec, Price

_PROFILE = {
    "context": "max_input_tokens",
    "max_output": "max_output_tokens",
    "vision": "image_inputs",
    "tools": "tool_calling",
    "reasoning": "reasoning_output",
    "structured_output": "structured_output",
    "temperature": "temperature",
}
"""Our names of a profile's."""


def spec_of(endpoint: Endpoint, model: str, own: ModelSpec | None) -> ModelSpec:
    """What is known of a model; `own` is what the settings say of it, which wins."""
    said = own.model_dump(exclude_none=True) if own is not None else {}
    profile = profile_of(endpoint.kind, model)
    # False is an answer; no tokens at all is none.
    known: dict[str, Any] = {
        ours: profile[theirs]
        for ours, theirs in _PROFILE.items()
        if profile.get(theirs) or profile.get(theirs) is False
    }
    if "context" not in known or "price" not in said:
        context, price = _listed(endpoint.listed_as, model)
        known.setdefault("context", context)
        if (price := endpoint.kind.price or price) is not None:
            known["price"] = price
    return ModelSpec.model_validate({**known, **said})


def profile_of(kind: Kind, model: str) -> Mapping[str, Any]:
    """What LangChain's package of that kind knows of a model, in its words; empty where it knows none."""
    return _profiles(kind.profiles).get(model, {})


@cache
def _profiles(package: str | None) -> Mapping[str, Mapping[str, Any]]:
    """By model. Read from the package's file: importing it would load its SDK."""
    spec = package and importlib.util.find_spec(package)
    if not spec or spec.origin is None:
        return {}
    path = Path(spec.origin).parent / "data" / "_profiles.py"
    return (
        cast(Mapping[str, Mapping[str, Any]], runpy.run_path(str(path)).get("_PROFILES", {})) if path.is_file() else {}
    )


@lru_cache(1024)
def _listed(provider: str | None, model: str) -> tuple[int | None, Price | None]:
    """Context and today's price by genai-prices, where it knows them."""
    if provider is None:
        return None, None
    from genai_prices import Usage, calc_price

    try:
        found = calc_price(Usage(input_tokens=0, output_tokens=0), model, provider_id=provider)
    except LookupError:
        return None, None
    rates = found.model_price
    million = [_flat(rates.input_mtok), _flat(rates.output_mtok)]
    price = None
    if million[0] is not None and million[1] is not None:
        price = Price(input=million[0], output=million[1], cached=_flat(rates.cache_read_mtok))
    return found.model.context_window, price


def _flat(rate: Any) -> Decimal | None:
    """A rate in dollars; of one that grows with the prompt, the lowest."""
    return rate if isinstance(rate, Decimal) or rate is None else Decimal(rate.base)
