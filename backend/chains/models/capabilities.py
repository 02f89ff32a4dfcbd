"""What a model can do and what it costs: from the settings, then from the provider's list, then from LangChain's
profiles, then from genai-prices."""

import importlib.util
import runpy
from collections.abc import Mapping
from decimal import Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

from backend.chains.models.kinds import kind_of
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
"""Names of a profile's fields, by our names."""


def spec_of(
    endpoint: Endpoint, model: str, own_spec: ModelSpec | None, listed_spec: ModelSpec | None = None
) -> ModelSpec:
    """Everything that is known about a model. The values of the settings, `own_spec`, come first, then those that the
    provider lists."""
    own_values: dict[str, Any] = {"kind": kind_of(model, own_spec, listed_spec)}
    for spec in (listed_spec, own_spec):
        own_values |= spec.model_dump(exclude_none=True) if spec is not None else {}
    profile = profile_of(endpoint.kind, model)
    # False is a value; 0 tokens mean that the number is unknown.
    known: dict[str, Any] = {
        ours: profile[theirs]
        for ours, theirs in _PROFILE.items()
        if profile.get(theirs) or profile.get(theirs) is False
    }
    if "context" not in known or "price" not in own_values:
        context, price = _listed(endpoint.listed_as, model)
        known.setdefault("context", context)
        if (price := endpoint.kind.price or price) is not None:
            known["price"] = price
    return ModelSpec.model_validate({**known, **own_values})


def profile_of(kind: Kind, model: str) -> Mapping[str, Any]:
    """The profile of a model in LangChain's package for that kind, with its own names; empty if it has none."""
    return _profiles(kind.profiles).get(model, {})


@cache
def _profiles(package: str | None) -> Mapping[str, Mapping[str, Any]]:
    """The profiles of a package, by model. They are read from its file, since an import would load the SDK."""
    spec = package and importlib.util.find_spec(package)
    if not spec or spec.origin is None:
        return {}
    path = Path(spec.origin).parent / "data" / "_profiles.py"
    return (
        cast(Mapping[str, Mapping[str, Any]], runpy.run_path(str(path)).get("_PROFILES", {})) if path.is_file() else {}
    )


@lru_cache(1024)
def _listed(provider: str | None, model: str) -> tuple[int | None, Price | None]:
    """The context in tokens and today's price, if genai-prices has them."""
    if provider is None:
        return None, None
    from genai_prices import Usage, calc_price

    try:
        calculation = calc_price(Usage(input_tokens=0, output_tokens=0), model, provider_id=provider)
    except LookupError:
        return None, None
    rates = calculation.model_price
    million = [_flat(rates.input_mtok), _flat(rates.output_mtok)]
    price = None
    if million[0] is not None and million[1] is not None:
        price = Price(input=million[0], output=million[1], cached=_flat(rates.cache_read_mtok))
    return calculation.model.context_window, price


def _flat(rate: Any) -> Decimal | None:
    """A rate in dollars. If the rate depends on the length of the prompt, it is the lowest."""
    return rate if isinstance(rate, Decimal) or rate is None else Decimal(rate.base)
