"""The sockets that the server listens on. They accept a few connections at a time, so that descriptors never run out.

The loop's own server accepts everything that waits before any connection is counted. With few descriptors left, uvloop
would then drop the rest, and asyncio would stop accepting for a second.
"""

import asyncio
import os
import socket
from collections.abc import Callable

import structlog

log = structlog.get_logger("streamforge")

_BACKLOG = 2048
"""Connections that may wait to be accepted."""
_RETRY_SECONDS = 0.05
"""Seconds until the next try if no connection could be accepted."""


def bound_sockets(host: str, port: int) -> list[socket.socket]:
    """Sockets that hold the addresses of the host, but don't accept connections yet. Raises OSError."""
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            bound = socket.socket(family, kind, protocol)
            sockets.append(bound)
            bound.setblocking(False)
            if os.name == "posix":
                # Ignore connections that a stopped server left behind.
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(address)
    except OSError:
        for bound in sockets:
            bound.close()
        raise
    return sockets


class Listener:
    """Accepts the connections of one socket, `batch` at a time. uvicorn takes it for a server of asyncio.

    `make_room` is called if the operating system refuses another connection.
    """

    def __init__(
        self,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        make_room: Callable[[], None],
        batch: int,
    ) -> None:
        self.sockets = (listening,)
        self._socket = listening
        self._make_protocol = make_protocol
        self._make_room = make_room
        self._batch = batch
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._retry: asyncio.TimerHandle | None = None
        listening.listen(_BACKLOG)
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accept no more connections."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    async def wait_closed(self) -> None:
        """Return at once: open connections are not waited for."""

    def _accept(self) -> None:
        for _ in range(self._batch):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptor or no memory is left. The connection waits in the queue of the operating system.
                log.debug("accept_failed", reason=error.strerror)
                self._make_room()
                self._loop.remove_reader(self._socket)
                self._retry = self._loop.call_later(_RETRY_SECONDS, self._resume)
                return
            accepted.setblocking(False)
            opening = self._loop.create_task(self._loop.connect_accepted_socket(self._make_protocol, accepted))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    def _resume(self) -> None:
        self._loop.add_reader(self._socket, self._accept)
