"""The network as this server sees it: one object for all clients, so that none of them differs from the others."""

import asyncio
import importlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from backend.kit.network.addresses import Address, netrc_login
from backend.kit.network.authorities import trusting_context
from backend.kit.network.proxies import NO_PROXIES, Proxies

KEEP_SECONDS = 4.0
"""How long an idle connection is kept. Many servers close theirs after 5 s (uvicorn, vLLM): ours must go first."""


@dataclass(frozen=True, slots=True)
class Network:
    """Whom the server trusts (beside the usual authorities), the proxies, and the file with passwords of hosts.

    The clients of this package use nothing else of the environment.
    """

    authorities: tuple[Path, ...] = ()
    proxies: Proxies = NO_PROXIES
    netrc: Path | None = None

    async def prepare(self) -> None:
        """Do what takes long, in a thread: later calls of this object don't hold up the event loop."""
        await asyncio.to_thread(self.load)

    def load(self) -> None:
        """Import the HTTP client and read the certificates. Takes up to 0.2 s."""
        for module in ("httpx", "httpcore"):
            importlib.import_module(module)
        self.tls()

    def tls(self) -> ssl.SSLContext:
        """The TLS settings of all clients. The first call of a process takes about 50 ms."""
        return trusting_context(self.authorities)

    def address(self, url: str, *, has_key: bool = False) -> Address:
        """The address of a URL. Its login is in the URL, or else, unless a key is sent, in the netrc file.

        Raises ValueError, which never quotes the URL.
        """
        address = Address.parse(url)
        if address.login is None and not has_key and self.netrc is not None:
            return Address(address.url, netrc_login(self.netrc, urlsplit(address.url).hostname or ""))
        return address


DIRECT = Network()
"""The network without proxies, own authorities and passwords."""


def merge_headers(*headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of all, of which the last has precedence; `Authorization` and `authorization` are the same."""
    merged: dict[str, tuple[str, str]] = {}
    for name, value in (pair for group in headers for pair in group.items()):
        merged[name.lower()] = (name, value)
    return dict(merged.values())
