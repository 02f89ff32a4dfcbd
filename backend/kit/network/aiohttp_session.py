"""Connections of aiohttp to one provider, as our network wants them. Tokens come over aiohttp: it is the quickest."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from backend.kit.network.network import KEEP_SECONDS, Network


class StreamSession:
    """Posts requests whose responses are streams. It is made on the running loop, after `network.load()`.

    A request on a kept connection that dies before the head of a response is sent once more on a new connection.
    """

    def __init__(self, network: Network, connect_seconds: float) -> None:
        self._network = network
        self._connect_seconds = connect_seconds
        self._kept = self._open(keepalive_timeout=KEEP_SECONDS)
        self._unkept: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def post(
        self, url: str, *, data: bytes, headers: Mapping[str, str]
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The response, from its head on. Raises aiohttp's errors."""
        sent: dict[str, Any] = {"data": data, "headers": headers, "proxy": self._network.proxies.proxy_for(url)}
        reuses: list[bool] = []
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._kept.post(url, trace_request_ctx=reuses, **sent)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if not reuses or isinstance(error, aiohttp.ClientConnectorError):
                raise
        if response is None:
            if self._unkept is None:
                self._unkept = self._open(force_close=True)
            response = await self._unkept.post(url, **sent)
        async with response:
            yield response

    async def close(self) -> None:
        """Close the connections."""
        await self._kept.close()
        if self._unkept is not None:
            await self._unkept.close()

    def _open(self, **connections: Any) -> aiohttp.ClientSession:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._network.tls(), **connections),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds),
            # No cookies: what a provider sets for one answer is nothing to the next one's.
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[tracing],
            trust_env=False,
        )


async def _note_reuse(session: aiohttp.ClientSession, context: Any, parameters: object) -> None:
    """Tell the request that it goes over a kept connection."""
    del session, parameters
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.append(True)
