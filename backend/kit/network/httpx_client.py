"""Clients of httpx in our network."""

from typing import Any

import httpx

from backend.kit.network.network import Network
from backend.kit.network.pools import Pools


class HttpxTransport(httpx.AsyncBaseTransport):
    """The connections of a client of httpx, also of one that an SDK makes: give it `trust_env=False`, too."""

    def __init__(self, network: Network) -> None:
        self._pools = Pools(httpx, network)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The response. Raises httpx's errors."""
        return await self._pools.send(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pools.close()


def httpx_client(network: Network, **options: Any) -> httpx.AsyncClient:
    """A client with these options of httpx."""
    return httpx.AsyncClient(transport=HttpxTransport(network), trust_env=False, **options)
