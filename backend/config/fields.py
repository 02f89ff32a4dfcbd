"""The base class of groups of settings, and types of fields: lists of names, hosts, URLs."""

from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class SettingsGroup(BaseSettings):
    """The settings of one capability. The name of a field in capitals is the name of its environment variable."""

    model_config = SettingsConfigDict(
        env_file=None,
        extra="ignore",
        env_ignore_empty=True,
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


def _split(value: object) -> object:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Names, comma-separated."""


def _check_url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("must be an http:// or https:// URL")
    return value


HttpUrl = Annotated[str, AfterValidator(_check_url)]
"""The URL of a server."""


def parse_hosts(value: Iterable[str]) -> frozenset[tuple[str, int]]:
    """The pairs (host, port) of entries `host:port` or `host`, which stands for ports 80 and 443. Raises ValueError."""
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
        hosts |= {(host, number) for number in ((80, 443) if port is None else (port,))}
    return frozenset(hosts)
