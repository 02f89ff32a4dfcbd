"""Which proxy leads to a URL: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, read in one way for every client."""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

_SOCKS = ("socks4", "socks4a", "socks5", "socks5h")
_EXCEPTION = re.compile(r"(?:[a-z]+://)?(?:\[(?P<v6>[^]]+)]|(?P<host>[^:/\[\]]+))(?::(?P<port>\d+))?/?", re.IGNORECASE)


def proxy_url(value: str) -> str:
    """The URL of a proxy, given as a URL or as `host:port`. Raises ValueError, which never quotes it."""
    value = value.strip()
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        is_complete = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_complete = False
    else:
        if parts.scheme in _SOCKS:
            raise ValueError("SOCKS proxies are not supported: name an http:// proxy, or unset it")
        is_complete = is_complete and parts.scheme in ("http", "https")
    if not is_complete:
        raise ValueError("must be the URL of a proxy, like http://proxy.example.com:3128")
    return url


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies for http:// and https:// URLs, and the hosts that are reached without one."""

    http: str | None = field(default=None, repr=False)
    https: str | None = field(default=None, repr=False)
    exceptions: "tuple[ProxyException, ...]" = ()

    def __bool__(self) -> bool:
        return bool(self.http or self.https)

    def proxy_for(self, url: str) -> str | None:
        """The proxy that leads to a URL; None if it is reached directly, as this machine always is."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        if proxy is None:
            return None
        host = (parts.hostname or "").rstrip(".").lower()
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if is_this_machine(host) or any(exception.covers(host, port) for exception in self.exceptions):
            return None
        return proxy


@dataclass(frozen=True, slots=True)
class ProxyException:
    """An entry of NO_PROXY: a name with all names below it, an address or a network, perhaps for one port only."""

    name: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    port: int | None = None

    @classmethod
    def parse(cls, entry: str) -> Self | None:
        """The exception of `example.com`, `.example.com`, `*.example.com`, `10.0.0.0/8`, `::1`, `host:port` or `*`.
        None if it can't be read: like curl, the server then passes over it."""
        try:
            return cls("", ipaddress.ip_network(entry, strict=False))
        except ValueError:
            pass
        match = _EXCEPTION.fullmatch(entry)
        if match is None:
            return None
        port = int(match["port"]) if match["port"] else None
        host = (match["v6"] or match["host"]).lower()
        try:
            return cls("", ipaddress.ip_network(host, strict=False), port)
        except ValueError:
            name = host.removeprefix("*.") if host != "*" else host
            return cls(name.strip("."), None, port) if name.strip(".") else None

    def covers(self, host: str, port: int) -> bool:
        """Whether the host and port are reached without a proxy."""
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            address = _address(host)
            return address is not None and address in self.network
        return self.name == "*" or host == self.name or host.endswith(f".{self.name}")


NO_PROXIES = Proxies()
"""Every URL is reached directly."""


def parse_exceptions(value: str) -> tuple[ProxyException, ...]:
    """The entries of NO_PROXY, separated by commas or white space."""
    entries = (ProxyException.parse(entry) for entry in re.split(r"[\s,]+", value) if entry)
    return tuple(entry for entry in entries if entry is not None)


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine itself, whose ports no proxy can reach."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
