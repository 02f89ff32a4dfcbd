"""Helpers for tests of fetching."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.config.settings import Settings
from backend.errors import StreamForgeError
from backend.services.web.fetching import Fetcher
from tests.support.site_server import Site


def infos(*addresses: str) -> Callable[[str, int], list[Any]]:
    """A lookup that returns these addresses for every name."""
    return lambda _, port: [info for a in addresses for info in socket.getaddrinfo(a, port, type=socket.SOCK_STREAM)]


def refuse_names(name: str, port: int) -> list[Any]:
    raise AssertionError(f"{name}:{port} was looked up")


@asynccontextmanager
async def fetcher(folder: Path, **options: Any) -> AsyncIterator[Fetcher]:
    network = Settings.load(env_file=None).network.network()
    new_fetcher = Fetcher(
        folder, **{"max_bytes": 1_000_000, "seconds": 10.0, "lookup": refuse_names, "network": network, **options}
    )
    try:
        yield new_fetcher
    finally:
        new_fetcher.close()


def local(site: Site, *hosts: str) -> dict[str, Any]:
    """Options with which a fetcher can reach a site by these names, or by its address."""
    return {"allowed": {(host, site.port) for host in hosts or ("127.0.0.1",)}, "lookup": infos("127.0.0.1")}


async def fetched(fetcher: Fetcher, url: str) -> tuple[str, bytes]:
    async with fetcher.fetch(url) as page:
        return page.name, page.file.read()


async def refusal(fetcher: Fetcher, url: str) -> StreamForgeError:
    with pytest.raises(StreamForgeError) as raised:
        await fetched(fetcher, url)
    assert len(raised.value.message) > 20
    return raised.value
