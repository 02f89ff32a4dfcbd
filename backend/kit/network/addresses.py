"""Addresses of servers: the user and password in them, and those of a netrc file."""

import base64
import netrc
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit


@dataclass(frozen=True, slots=True)
class Address:
    """The URL of a server without a user and password. `login` is the `Authorization` header that stands for them."""

    url: str
    login: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """The address of a URL, which may be `https://user:password@host`. Raises ValueError, which never quotes it."""
        parts = split_url(url)
        userinfo, at, place = parts.netloc.rpartition("@")
        if not at:
            return cls(url)
        user, _, password = userinfo.partition(":")
        login = basic(unquote_to_bytes(user), unquote_to_bytes(password))
        return cls(parts._replace(netloc=place).geturl(), login)


def split_url(url: str) -> SplitResult:
    """The parts of an http:// or https:// URL with a host. Raises ValueError, which never quotes it."""
    problem = "must be an http:// or https:// URL"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"{problem}; an IPv6 address stands in [ ]") from None
    try:
        is_port = parts.port != 0
    except ValueError:
        # Python takes what follows a / in a password for the path, and the rest for a port.
        hint = "in a password, write / as %2F, ? as %3F, # as %23, @ as %40"
        raise ValueError(f"{problem}; its port must be a number up to 65535 ({hint})") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_port:
        raise ValueError(problem)
    return parts


def basic(user: bytes, password: bytes) -> str:
    """The `Authorization` header of a user and password."""
    return f"Basic {base64.b64encode(user + b':' + password).decode('ascii')}"


def check_netrc(file: Path) -> None:
    """Raise ValueError if a netrc file can't be read. The text never quotes the file."""
    try:
        netrc.netrc(str(file))
    except OSError as error:
        raise ValueError(f"{file} can't be read ({error.strerror})") from None
    except netrc.NetrcParseError as error:
        raise ValueError(f"{file} is no netrc file (line {error.lineno})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no text") from None


@cache
def netrc_login(file: Path, host: str) -> str | None:
    """The `Authorization` header for a host that a netrc file names. The entry `default` is not used: it would give a
    password to every server."""
    try:
        entry = netrc.netrc(str(file)).hosts.get(host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return None
    if entry is None:
        return None
    user, _, password = entry
    return basic((user or "").encode(), (password or "").encode())
