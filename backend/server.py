"""uvicorn, for streams: runs end before connections close, and a request can hang up on a client that froze."""

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
"""That connections get to end by themselves when the server stops."""
_TAKE_SECONDS = 1.5


def is_taken(host: str, port: int) -> bool:
    """Whether somebody listens there. To be asked before anything is opened; uvicorn finds out when all is."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                if os.name == "posix":
                    # Connections of a server that has ended don't count.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:
        """Lets requests drop the connection: one that no longer reads outlives `close()`, which waits to flush."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, HANG_UP: transport.abort}
        self._open: list[RequestResponseCycle] = []

    def on_headers_complete(self) -> None:
        """Keeps the requests that are not answered yet; with pipelining there are several."""
        super().on_headers_complete()
        self._open = [cycle for cycle in (*self._open, self.cycle) if cycle and not cycle.response_complete]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells each of them; uvicorn tells the last one, and the one before would stream on to nobody."""
        for cycle in self._open:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """Asked to stop, it first lets the runs end: uvicorn's own way would cut the streams without a last event."""

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
        """Open the port, and say where."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            host, port = self._settings.server.host, self.servers[0].sockets[0].getsockname()[1]
            base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            log.info("serving", address=base, docs=f"{base}/docs", version=__version__)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: let the runs end, then exit. Second: end them now. Third: exit at once."""
        self._signals += 1
        if self._signals > 2:
            # As hard as kill -9, which the next start knows how to mend.
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
        """Clients get a moment to take what they were sent; uvicorn would wait for those who take nothing."""
        before = self._untaken()
        for _ in range(round(_TAKE_SECONDS / 0.05)):
            if not self._untaken():
                return
            await asyncio.sleep(0.05)
        for transport, size in self._untaken().items():
            if size >= before.get(transport, size + 1):
                transport.abort()

    def _untaken(self) -> dict[asyncio.Transport, int]:
        """Bytes that clients have not taken yet."""
        transports = [cast(_Protocol, c).transport for c in self.server_state.connections]
        return {t: size for t in transports if not t.is_closing() and (size := t.get_write_buffer_size())}
