"""uvicorn, adapted to streams: runs end before connections close, and a request can drop a client that froze."""

import asyncio
import errno
import os
import signal
import socket
from types import FrameType
from typing import Any, cast

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from backend import __version__
from backend.config.settings import Settings
from backend.routers.edge.event_stream import HANG_UP
from backend.routers.edge.services import Services

log = structlog.get_logger("streamforge")

CLOSE_SECONDS = 3
"""Seconds that connections get to close by themselves when the server stops."""
_FLUSH_SECONDS = 1.5
"""Seconds that clients get to read what was sent, when the server stops."""


def is_taken(host: str, port: int) -> bool:
    """Whether another process listens on this port. Call it before services open: uvicorn checks only after that."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                if os.name == "posix":
                    # Ignore connections that a stopped server left behind.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:
        """Give requests a way to abort the connection: `close()` would wait until the client has read everything."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, HANG_UP: transport.abort}
        self._open: list[RequestResponseCycle] = []

    def on_headers_complete(self) -> None:
        """Remember the requests that have no complete response yet; with pipelining there are several."""
        super().on_headers_complete()
        self._open = [cycle for cycle in (*self._open, self.cycle) if cycle and not cycle.response_complete]

    def connection_lost(self, exc: Exception | None) -> None:
        """Mark every open request as disconnected. uvicorn marks only the last one; others would stream on unread."""
        for cycle in self._open:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """A uvicorn server that ends the runs before it stops: uvicorn alone would cut streams without a last event."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.server.host,
                port=settings.server.port,
                http=_Protocol,
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
        await super().startup(sockets)
        if self.started:
            host, port = self._settings.server.host, self.servers[0].sockets[0].getsockname()[1]
            base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            log.info("serving", address=base, docs=f"{base}/docs", version=__version__)
            log.info("data", folder=str(self._settings.storage.data_dir.resolve()))

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
        transports = [cast(_Protocol, c).transport for c in self.server_state.connections]
        return {t: size for t in transports if not t.is_closing() and (size := t.get_write_buffer_size())}
