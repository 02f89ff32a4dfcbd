"""Connections of httpx and of httpx2, its twin, as our network wants them.

A kept connection may be dead without our knowing: the server closed it while our request was on its way. Such a request
is sent once more on a new connection, since the server has not begun to answer it.
"""

from typing import Any

from backend.kit.network.network import KEEP_SECONDS, Network

_MAX_CONNECTIONS = 1000
_LOST = "Server disconnected without sending a response."
"""How httpx says that the connection ended before the head of a response; its other protocol errors are answers."""


class Pools:
    """The connections by proxy: those that are kept, and those for one request. `library` is httpx or httpx2."""

    def __init__(self, library: Any, network: Network) -> None:
        self._library = library
        self._network = network
        self._pools: dict[tuple[str | None, bool], Any] = {}

    async def send(self, request: Any) -> Any:
        """The response. Raises the library's errors."""
        is_reused = True

        async def watch(event: str, info: object) -> None:
            nonlocal is_reused
            del info
            if event == "connection.connect_tcp.started":
                is_reused = False

        library, extensions = self._library, request.extensions
        proxy = self._network.proxies.proxy_for(str(request.url))
        request.extensions = {**extensions, "trace": watch}
        try:
            return await self._pool(proxy, is_kept=True).handle_async_request(request)
        except (library.RemoteProtocolError, library.ReadError, library.WriteError) as error:
            if not is_reused or (isinstance(error, library.RemoteProtocolError) and str(error) != _LOST):
                raise
        request.extensions = extensions
        return await self._pool(proxy, is_kept=False).handle_async_request(request)

    async def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()

    def _pool(self, proxy: str | None, *, is_kept: bool) -> Any:
        key = (proxy, is_kept)
        if key not in self._pools:
            library, tls = self._library, self._network.tls()
            limits = library.Limits(
                max_connections=_MAX_CONNECTIONS,
                max_keepalive_connections=_MAX_CONNECTIONS if is_kept else 0,
                keepalive_expiry=KEEP_SECONDS,
            )
            over_tls = tls if proxy is not None and proxy.startswith("https:") else None
            through = library.Proxy(proxy, ssl_context=over_tls) if proxy is not None else None
            self._pools[key] = library.AsyncHTTPTransport(verify=tls, trust_env=False, limits=limits, proxy=through)
        return self._pools[key]
