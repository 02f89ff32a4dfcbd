"""Clients of httpx2 in our network."""

from typing import Any

import httpx2

from backend.kit.network.network import Network
from backend.kit.network.pools import Pools


class Httpx2Transport(httpx2.AsyncBaseTransport):
    """The connections of a client of httpx2, also of one that an SDK makes: give it `trust_env=False`, too."""

    def __init__(self, network: Network) -> None:
        self._pools = Pools(httpx2, network)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response. Raises httpx2's errors."""
        return await self._pools.send(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pools.close()


def httpx2_client(network: Network, **options: Any) -> httpx2.AsyncClient:
    """A client with these options of httpx2."""
    return httpx2.AsyncClient(transport=Httpx2Transport(network), trust_env=False, **options)
