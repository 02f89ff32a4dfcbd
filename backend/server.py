"""uvicorn, adapted to streams: runs end before connections close, and connections have limits."""

import asyncio
import functools
import os
import signal
import socket
from types import FrameType
from typing import Any, cast

import structlog
import uvicorn
from fastapi import FastAPI

from backend import __version__
from backend.config.settings import Settings
from backend.routers.edge.connection import HttpConnection
from backend.routers.edge.connections import Connections, descriptor_limit, kept_back
from backend.routers.edge.listener import Listener, bound_sockets
from backend.routers.edge.services import Services

log = structlog.get_logger("streamforge")

CLOSE_SECONDS = 3
"""Seconds that connections get to close by themselves when the server stops."""
_BATCH = 32
"""Connections that are accepted at once."""
_FLUSH_SECONDS = 1.5
"""Seconds that clients get to read what was sent, when the server stops."""


class Server(uvicorn.Server):
    """A uvicorn server that ends the runs before it stops: uvicorn alone would cut streams without a last event.

    `sockets` are bound and don't accept connections yet; without them, the server binds the address of the settings.
    """

    def __init__(self, app: FastAPI, settings: Settings, sockets: list[socket.socket] | None = None) -> None:
        descriptors = descriptor_limit()
        self._sockets = sockets
        self._batch = _BATCH if descriptors is None else min(_BATCH, max(1, kept_back(descriptors) // 8))
        self._connections = Connections(settings.server, descriptors)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.server.host,
                port=settings.server.port,
                http=cast(Any, functools.partial(HttpConnection, connections=self._connections)),
                # Requests to change the protocol are answered in HTTP/1.1.
                ws="none",
                timeout_keep_alive=cast(int, settings.server.keep_alive_timeout),
                forwarded_allow_ips=list(settings.server.trusted_proxies) or None,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=CLOSE_SECONDS,
                lifespan="on",
            )
        )
        self._app = app
        self._settings = settings
        self._draining: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signals = 0

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Open the port and log its address."""
        self._loop = asyncio.get_running_loop()
        server = self._settings.server
        bound = self._sockets or bound_sockets(server.host, server.port)
        # uvicorn starts the application, and is given no sockets to listen on.
        await super().startup([])
        if self.started:
            make, make_room = self._make_connection, self._connections.make_room
            self.servers = cast(Any, [Listener(each, make, make_room, self._batch) for each in bound])
            host, port = self._settings.server.host, self.servers[0].sockets[0].getsockname()[1]
            base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            log.info("serving", address=base, docs=f"{base}/docs", version=__version__)
            log.info("data", folder=str(self._settings.storage.data_dir.resolve()))

    def _make_connection(self) -> asyncio.Protocol:
        make = cast(Any, self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        """Whether the server shall stop. Called every 0.1 s."""
        self._connections.sweep()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: let the runs end, then exit. Second: end them now. Third: exit at once."""
        self._signals += 1
        if self._signals > 2:
            # Like kill -9: the next start repairs what was left unfinished.
            os._exit(1)
        if self.should_exit or self._loop is None:
            super().handle_exit(signal.SIGINT, frame)
        else:
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        grace = 0.0 if self._draining else self._settings.server.shutdown_grace
        self._draining.append(asyncio.create_task(self._drain_services(grace), name="drain"))

    async def _drain_services(self, grace: float) -> None:
        services: Services | None = getattr(self._app.state, "services", None)
        try:
            if services is not None:
                log.info("stopping")
                await services.core.draining.drain(grace)
                await self._hang_up_on_frozen()
        finally:
            self.should_exit = True

    async def _hang_up_on_frozen(self) -> None:
        """Abort the connections of clients that read nothing for a moment; uvicorn would wait for them."""
        before = self._unsent_bytes()
        for _ in range(round(_FLUSH_SECONDS / 0.05)):
            if not self._unsent_bytes():
                return
            await asyncio.sleep(0.05)
        for transport, size in self._unsent_bytes().items():
            if size >= before.get(transport, size + 1):
                transport.abort()

    def _unsent_bytes(self) -> dict[asyncio.Transport, int]:
        """Number of bytes that clients have not read yet, by connection."""
        transports = [cast(HttpConnection, c).transport for c in self.server_state.connections]
        return {t: size for t in transports if not t.is_closing() and (size := t.get_write_buffer_size())}
