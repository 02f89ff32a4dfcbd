"""Chat models. Each provider protocol is one file; a module with a `PLUGIN` is found without being listed."""

import importlib
import pkgutil
from functools import cache

from pydantic import SecretStr

from backend.chains.models.provider import Endpoint, Plugin
from backend.config.fields import check_key
from backend.config.models_file import ProviderTable, variable
from backend.kit.network.network import DIRECT, Network

_OWN_RANK = 18
"""The rank of providers that MODELS_FILE adds: after the vendors, before what runs on this machine by chance."""


@cache
def plugins() -> tuple[Plugin, ...]:
    """The plugin of every protocol."""
    entries: list[Plugin] = []
    for module in pkgutil.iter_modules(__path__):
        # A leading underscore marks what a protocol imports when it is used.
        if module.name.startswith("_"):
            continue
        plugin = getattr(importlib.import_module(f"{__name__}.{module.name}"), "PLUGIN", None)
        if isinstance(plugin, Plugin):
            entries.append(plugin)
    return tuple(entries)


def endpoints(table: ProviderTable, network: Network = DIRECT) -> list[tuple[Plugin, Endpoint]]:
    """Every provider, built in or from MODELS_FILE, in the order in which a default model is looked for.

    Raises ValueError, which names the setting to change, if a kind is unknown, an address is no URL, or a key can't be
    sent.
    """
    kinds = {kind.name: (plugin, kind) for plugin in plugins() for kind in plugin.kinds}
    entries: list[tuple[Plugin, Endpoint]] = []
    for name in dict.fromkeys((*kinds, *table.providers)):
        spec = table.spec(name)
        plugin, kind = kinds.get(spec.kind or name, (None, None))
        if plugin is None or kind is None:
            wrong = (
                f"kind {spec.kind!r} is unknown" if spec.kind else "no built-in one has this name, so it needs a `kind`"
            )
            raise ValueError(f"MODELS_FILE: providers.{name}: {wrong}. Known: {', '.join(kinds)}.")
        url = table.base_url(name) or kind.base_url
        key = _checked_key(table, name)
        try:
            address = network.address(url, has_key=key is not None) if url is not None else None
        except ValueError as error:
            raise ValueError(f"{variable(name, 'BASE_URL')}: {error}") from None
        headers = {header: value.get_secret_value() for header, value in spec.headers.items()}
        rank = kind.default_rank if name == kind.name else _OWN_RANK
        url, login = (address.url, address.login) if address is not None else (None, None)
        endpoint = Endpoint(
            name, kind, url, key, headers, rank, spec.quirks, spec.models, spec.file, login=login, network=network
        )
        entries.append((plugin, endpoint))
    return sorted(entries, key=lambda entry: (entry[1].rank is None, entry[1].rank or 0))


def _checked_key(table: ProviderTable, name: str) -> SecretStr | None:
    """The key of a provider. Raises ValueError, which names its setting, if it can't be sent."""
    key = table.key(name)
    if key is None:
        return None
    try:
        checked = check_key(key.get_secret_value())
    except ValueError as error:
        raise ValueError(f"{variable(name, 'API_KEY')}: {error}") from None
    return SecretStr(checked) if checked else None
