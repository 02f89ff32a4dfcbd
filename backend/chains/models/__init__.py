"""Chat models, one file a provider. A module with a `PLUGIN` is found by itself."""

import importlib
import pkgutil
from functools import cache

from backend.chains.models.base import Plugin


@cache
def plugins() -> dict[str, Plugin]:
    """Every provider's plugin by name, in the order in which a default model is looked for."""
    found: list[Plugin] = []
    for module in pkgutil.iter_modules(__path__):
        # A leading underscore marks what a provider imports when it is used.
        if module.name.startswith("_"):
            continue
        plugin = getattr(importlib.import_module(f"{__name__}.{module.name}"), "PLUGIN", None)
        if isinstance(plugin, Plugin):
            found.append(plugin)
    return {p.name: p for p in sorted(found, key=lambda p: (p.default_rank is None, p.default_rank, p.name))}
