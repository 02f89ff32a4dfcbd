"""The base class of groups of settings, and types of fields: lists of names, hosts, URLs, keys."""

import re
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from backend.kit.network.addresses import Address


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


def check_url(value: str) -> str:
    """The URL of a server without white space around it. Raises ValueError, which never quotes it."""
    value = value.strip()
    Address.parse(value)
    return value


HttpUrl = Annotated[str, AfterValidator(check_url)]
"""The URL of a server, perhaps with a user and password."""

_QUOTES = re.compile(r"""(["'`]).*\1""", re.DOTALL)


def header_value(value: str) -> str:
    """A value that a header can carry, without white space around it. Raises ValueError, which never quotes it."""
    value = value.strip().strip("\ufeff\u200b").strip()
    if "\n" in value or "\r" in value:
        raise ValueError("holds a line end, so it can't be sent in a header: it must be one line")
    if not value.isascii():
        raise ValueError("holds a character that is not ASCII, so it can't be sent in a header: copy it again")
    if not value.replace("\t", " ").isprintable():
        raise ValueError("holds a control character, so it can't be sent in a header: copy it again")
    return value


def check_key(value: str) -> str:
    """A key, as it is sent. Empty if there is only white space. Raises ValueError, which never quotes it."""
    key = header_value(value)
    if _QUOTES.fullmatch(key):
        raise ValueError("is written in quotes, which would be sent as a part of it: leave them out")
    return key


def _check_secret(value: SecretStr | None) -> SecretStr | None:
    key = check_key(value.get_secret_value()) if value is not None else ""
    return SecretStr(key) if key else None


Key = Annotated[SecretStr | None, AfterValidator(_check_secret)]
"""A key of a provider, or None."""


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
