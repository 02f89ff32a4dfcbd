"""Chat models, one file a wire. A module with a `PLUGIN` is found by itself."""

import importlib
import pkgutil
from functools import cache

from backend.chains.models.provider import Endpoint, Plugin
from backend.config.models_file import ProviderTable, variable

_OWN_RANK = 18
"""Of the providers that MODELS_FILE adds: after the vendors' own, before what is merely found on this machine."""


@cache
def plugins() -> tuple[Plugin, ...]:
    """Every wire's plugin."""
    found: list[Plugin] = []
    for module in pkgutil.iter_modules(__path__):
        # A leading underscore marks what a wire imports when it is used.
        if module.name.startswith("_"):
            continue
        plugin = getattr(importlib.import_module(f"{__name__}.{module.name}"), "PLUGIN", None)
        if isinstance(plugin, Plugin):
            found.append(plugin)
    return tuple(found)


def endpoints(table: ProviderTable) -> list[tuple[Plugin, Endpoint]]:
    """Every provider that could be used, built in or named by the table, in the order in which a default is looked for.

    Raises ValueError on a kind that there is not or an address that is none, with the setting to change.
    """
    kinds = {kind.name: (plugin, kind) for plugin in plugins() for kind in plugin.kinds}
    found: list[tuple[Plugin, Endpoint]] = []
    for name in dict.fromkeys((*kinds, *table.providers)):
        spec = table.spec(name)
        plugin, kind = kinds.get(spec.kind or name, (None, None))
        if plugin is None or kind is None:
            wrong = (
                f"kind {spec.kind!r} is unknown" if spec.kind else "no built-in one has this name, so it needs a `kind`"
            )
            raise ValueError(f"MODELS_FILE: providers.{name}: {wrong}. Known: {', '.join(kinds)}.")
        url = table.base_url(name) or kind.base_url
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f"{variable(name, 'BASE_URL')}: must be an http:// or https:// URL")
        headers = {header: value.get_secret_value() for header, value in spec.headers.items()}
        rank = kind.default_rank if name == kind.name else _OWN_RANK
        found.append((plugin, Endpoint(name, kind, url, table.key(name), headers, rank)))
    return sorted(found, key=lambda each: (each[1].rank is None, each[1].rank or 0))
