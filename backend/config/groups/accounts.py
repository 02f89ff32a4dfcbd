"""The keys of API_KEYS, and the names of callers in other settings."""

from collections.abc import Iterable

from pydantic import SecretStr

LOCAL = "local"
"""The owner of all data while API_KEYS is unset."""
MIN_KEY_LENGTH = 24


def parse_keys(value: SecretStr | None) -> dict[str, str]:
    """The names of callers by key, from `name:key,name:key`. Raises ValueError, whose text never quotes a key."""
    keys: dict[str, str] = {}
    for number, pair in enumerate(p for p in (value.get_secret_value() if value else "").split(",") if p.strip()):
        name, key = (part.strip() for part in pair.partition(":")[::2])
        is_varied = len(key) >= MIN_KEY_LENGTH and len(set(key)) >= 8
        # Other characters can't be sent in a header.
        if not name.isidentifier() or not is_varied or not key.isascii() or not key.isprintable():
            raise ValueError(
                f"must be name:key,name:key with a plain name and at least {MIN_KEY_LENGTH} varied ASCII characters "
                f"a key; entry {number + 1} is not"
            )
        if key in keys or name in keys.values():
            raise ValueError(f"entry {number + 1} repeats a name or a key")
        keys[key] = name
    if value is not None and not keys:
        raise ValueError("must be name:key,name:key, or unset")
    return keys


def check_callers(keys: SecretStr | None, **settings: Iterable[str]) -> None:
    """Raise ValueError if one of the settings (lists of names) has a name without a key."""
    known = sorted(parse_keys(keys).values()) if keys is not None else [LOCAL]
    callers = f"API_KEYS has {', '.join(known)}" if keys is not None else "while API_KEYS is unset, everybody is local"
    for setting, names in settings.items():
        for name in names:
            if name not in known:
                raise ValueError(f"{setting}: {name!r} is nobody who may call: {callers}")
