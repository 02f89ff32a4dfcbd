"""Values that several groups of settings have in common."""

from collections.abc import Iterable
from urllib.parse import urlsplit


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
