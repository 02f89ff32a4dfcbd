"""Keys and hosts as settings write them."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from pydantic import SecretStr

MIN_KEY_LENGTH = 24


def parse_hosts(value: Iterable[str]) -> frozenset[tuple[str, int]]:
    """`host` and `host:port` as (host, port); no port means 80 and 443. Raises ValueError."""
    hosts: set[tuple[str, int]] = set()
    for entry in value:
        problem = f"must be host or host:port, comma-separated; {entry!r} is not"
        try:
            parts = urlsplit(f"//{entry}")
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        except ValueError:
            raise ValueError(problem) from None
        if not host or port == 0 or parts.netloc != entry or "@" in entry or "*" in entry:
            raise ValueError(problem)
        hosts |= {(host, each) for each in ((80, 443) if port is None else (port,))}
    return frozenset(hosts)


def parse_keys(value: SecretStr | None) -> dict[str, str]:
    """`name:key,name:key` as {key: name}. Raises ValueError that never quotes a key."""
    keys: dict[str, str] = {}
    for number, pair in enumerate(p for p in (value.get_secret_value() if value else "").split(",") if p.strip()):
        name, _, key = pair.strip().partition(":")
        if not name.isidentifier() or len(key) < MIN_KEY_LENGTH or not key.isascii() or len(set(key)) < 8:
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
    """Raises ValueError for a name in one of the settings that is nobody's who may call."""
    known = sorted(parse_keys(keys).values()) if keys is not None else ["local"]
    callers = f"API_KEYS has {', '.join(known)}" if keys is not None else "while API_KEYS is unset, everybody is local"
    for setting, names in settings.items():
        for name in names:
            if name not in known:
                raise ValueError(f"{setting}: {name!r} is nobody who may call: {callers}")
