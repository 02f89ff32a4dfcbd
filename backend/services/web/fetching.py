"""Fetches URLs for callers. It must not give them access to hosts that only this server can reach.

The danger is in addresses, not in names. So the check is made when a socket is created: whatever the URL, its redirects
or DNS contain, no connection is opened to an address that isn't public. Hosts in a setting are exempt.
"""

import asyncio
import errno
import importlib
import ipaddress
import re
import socket
import tempfile
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from backend import __version__
from backend.errors import StorageFull, TooLarge, UrlFailed, UrlRefused, UrlTimeout, UrlUnreachable
from backend.kit.network.network import DIRECT, Network

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

Lookup = Callable[[str, int], Sequence[tuple[Any, ...]]]
"""Returns the addresses of a host and port, as `socket.getaddrinfo` does. It may block, and raises OSError."""

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_FETCHES = 8
_CONNECT_SECONDS = 10.0
_BLOCK = 1 << 18
_MAX_HEADER = 32_768
_HOST = re.compile(r"[\w.:%-]{1,253}", re.ASCII)
_HEADERS = {
    "User-Agent": f"StreamForge/{__version__}",
    "Accept": "text/html, application/pdf, text/*;q=0.9, */*;q=0.5",
    "Accept-Encoding": "gzip",
}

# The tables of `ipaddress` differ between versions of Python, and treat relays to IPv4 as global.
_PRIVATE_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        # Azure has its metadata service at a public address.
        "168.63.129.16/32",
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
# Protocols (Teredo among them), documentation, 6to4. NAT64 and mapped addresses are outside of 2000::/3.
_PRIVATE_V6 = tuple(ipaddress.IPv6Network(n) for n in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))


def is_public(address: str) -> bool:
    """Whether everybody on the internet can reach an IP address. False for a text that is not an address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _PRIVATE_V4)
    return ip in _GLOBAL_V6 and not any(ip in network for network in _PRIVATE_V6)


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A page or file: its name, and its content, positioned at the beginning."""

    name: str
    file: BinaryIO


class Fetcher:
    """Fetches from public addresses, and from `allowed` (host, port) pairs with any address.

    The content has at most `max_bytes`, also after unpacking, and must arrive within `seconds`. Temporary files are in
    `folder`.

    A proxy of the network leads to the allowed hosts. To other hosts it leads only if `trusts_proxy`: a proxy connects
    to addresses that can't be checked here, so it must refuse private ones itself.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        allowed: Collection[tuple[str, int]] = (),
        seconds: float = 60.0,
        network: Network = DIRECT,
        trusts_proxy: bool = False,
        lookup: Lookup = lambda host, port: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._allowed = frozenset(allowed)
        self._seconds = seconds
        self._lookup = lookup
        # Own threads for DNS: a name server that doesn't answer blocks a thread for half a minute.
        self._threads = ThreadPoolExecutor(_MAX_FETCHES, "dns")
        self._turns = asyncio.Semaphore(_MAX_FETCHES)
        self._network = network
        self._trusts_proxy = trusts_proxy
        self._is_loaded = False

    @asynccontextmanager
    async def fetch(self, url: str) -> AsyncGenerator[FetchedFile]:
        """The file behind a URL, while the context is open. A few are fetched at the same time; others wait.

        Raises UrlRefused, UrlUnreachable, UrlFailed, UrlTimeout, TooLarge (`document_too_large`), StorageFull.
        """
        with tempfile.TemporaryFile(dir=self._folder) as file:
            async with self._turns:
                name = await self._download(url, file)
            file.seek(0)
            yield FetchedFile(name, file)

    def close(self) -> None:
        """Release the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _download(self, url: str, file: BinaryIO) -> str:
        trail = _Trail([self._check_url(url)])
        if not self._is_loaded:
            await asyncio.to_thread(self._load)
            self._is_loaded = True
        import aiohttp

        try:
            async with asyncio.timeout(self._seconds), self._session(trail) as session:
                while len(trail.urls) <= _MAX_REDIRECTS + 1:
                    trail.proxy = await self._proxy_for(trail.urls[-1])
                    async with session.get(trail.urls[-1], allow_redirects=False, proxy=trail.proxy) as response:
                        if response.status not in _REDIRECTS:
                            return await self._store(response, file)
                        trail.urls.append(self._check_url(response.headers.get("Location", ""), trail.urls[-1]))
        except aiohttp.ClientError as error:
            raise _explain(error, trail.urls[-1].raw_host) from None
        except TimeoutError:
            raise UrlTimeout(
                f"{trail.urls[-1].raw_host} took longer than {self._seconds:g} seconds. Try again later, or download "
                "the file and upload it.",
                advice="URL_TIMEOUT sets the limit.",
            ) from None
        raise UrlFailed(f"url: redirects more than {_MAX_REDIRECTS} times. Give the address where it ends.")

    def _check_url(self, text: str, base: "URL | None" = None) -> "URL":
        """A URL that may be requested. Its address is checked later, when a socket is created. Raises UrlRefused.

        `base` is the URL that redirects to it.
        """
        from yarl import URL

        subject = "url" if base is None else f"{base.raw_host} redirects to a URL that is not followed"
        try:
            url = URL(text.strip()) if base is None else base.join(URL(text))
            host, port = url.raw_host, url.port
        except ValueError:
            raise UrlRefused(f"{subject}: can't be read. Give one like https://example.com/page.") from None
        if url.scheme not in ("http", "https") or not _HOST.fullmatch(host or "") or port is None:
            raise UrlRefused(f"{subject}: must begin with http:// or https:// and a host.")
        if url.raw_user is not None or url.raw_password is not None:
            raise UrlRefused(f"{subject}: must not hold a user or password. Download the file and upload it.")
        if port not in (80, 443) and (host, port) not in self._allowed:
            raise UrlRefused(
                f"{subject}: port {port} is not 80 or 443. Download the file and upload it.",
                advice=f"URL_ALLOWED_HOSTS={host}:{port} allows it.",
            )
        return url

    async def _proxy_for(self, url: "URL") -> str | None:
        """The proxy that leads to a URL; None if it is fetched directly. Raises UrlRefused if the URL's host is known
        to have an address that is not public."""
        proxy = self._network.proxies.proxy_for(str(url))
        if proxy is None or (url.raw_host, url.port) in self._allowed:
            return proxy
        if not self._trusts_proxy:
            return None
        host, port = str(url.raw_host), url.port or 0
        try:
            infos = await asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, host, port)
        except (OSError, ValueError):
            # Behind some proxies nobody but the proxy knows the names of the internet.
            return proxy
        if not all(is_public(str(info[4][0])) for info in infos):
            raise _not_public(host)
        return proxy

    def _load(self) -> None:
        """Import aiohttp and load certificates: for the first fetch, in a thread, because it takes long."""
        importlib.import_module("aiohttp")
        self._network.tls()

    def _session(self, trail: "_Trail") -> "aiohttp.ClientSession":
        """A session for the URLs of one trail."""
        import aiohttp

        def checked_socket(info: tuple[Any, ...]) -> socket.socket:
            family, kind, protocol, _, address = info
            target = trail.urls[-1]
            # The operator chose the proxy, so its own address needs no check.
            is_trusted = trail.proxy is not None or (target.raw_host, target.port) in self._allowed
            if not is_trusted and not is_public(address[0]):
                raise _NotPublicError("not a public address")
            return socket.socket(family, kind, protocol)

        connector = aiohttp.TCPConnector(
            resolver=_resolver(self._lookup, self._threads),
            ssl=self._network.tls(),
            socket_factory=checked_socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )

    async def _store(self, response: "aiohttp.ClientResponse", file: BinaryIO) -> str:
        """Write the body to `file`. Returns the name of the page or file."""
        status, host = response.status, response.url.raw_host
        if not 200 <= status < 300:
            raise UrlFailed(
                f"{host} answered {status} instead of a page or a file. Check the URL, and whether it can be seen "
                "without signing in.",
                upstream_status=status,
            )
        size = 0
        async for block in response.content.iter_chunked(_BLOCK):
            size += len(block)
            if max(size, response.content_length or 0) > self._max_bytes:
                raise TooLarge.document(f"What {host} sends", self._max_bytes)
            await asyncio.to_thread(_write, file, block)
        disposition = response.content_disposition
        return (disposition.filename if disposition else None) or response.url.name or str(response.url.host)


@dataclass(slots=True)
class _Trail:
    """A URL and its redirects. The last one is requested now, perhaps through a proxy."""

    urls: "list[URL]"
    proxy: str | None = None


class _NotPublicError(OSError):
    """An OSError, so that the next address of the same name is tried."""


def _resolver(lookup: Lookup, threads: ThreadPoolExecutor) -> Any:
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Resolver(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            try:
                infos = await asyncio.get_running_loop().run_in_executor(threads, lookup, host, port)
            except ValueError:
                raise OSError("no name that DNS could know") from None
            return [
                ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=0)
                for kind, _, protocol, _, address in infos
            ]

        async def close(self) -> None:
            return

    return Resolver()


def _write(file: BinaryIO, block: bytes) -> None:
    try:
        file.write(block)
        file.flush()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise StorageFull.on_server() from None


def _explain(error: "aiohttp.ClientError", host: str | None) -> UrlRefused | UrlUnreachable:
    """The error for the caller."""
    import aiohttp

    match error:
        case aiohttp.InvalidURL():
            return UrlRefused(
                "url: its host is no name and no usual IP address. Give it as 93.184.216.34 or as a name."
            )
        case aiohttp.ClientHttpProxyError() | aiohttp.ClientProxyConnectionError():
            return UrlUnreachable(f"The proxy doesn't lead to {host}. Download the file and upload it.")
        case aiohttp.ClientConnectorCertificateError():
            return UrlUnreachable(f"The certificate of {host} is not valid. Download the file and upload it.")
        case aiohttp.ClientConnectorDNSError():
            return UrlUnreachable(f"There is no host {host}, or DNS doesn't answer. Check the name.")
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, _NotPublicError):
            return _not_public(host)
        case aiohttp.ClientConnectorError() | aiohttp.ServerTimeoutError():
            return UrlUnreachable(f"{host} can't be reached. Check the URL, or try again later.")
        case _:
            return UrlUnreachable(f"{host} broke off, or sent what is no answer. Try again later.")


def _not_public(host: str | None) -> UrlRefused:
    return UrlRefused(
        f"{host} is at an address that is not public; such hosts are not fetched from. Upload the file.",
        advice="URL_ALLOWED_HOSTS names hosts that are meant to be fetched from.",
    )
