"""A response whose body is a stream of ready bytes, sent by one task.

sse-starlette's own way starts a task group of four tasks a response and a cancel scope a chunk: two thirds of the
CPU of a short answer. What watches the connection here is one timer, and one task for a stream that lasts.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress

import structlog
from sse_starlette import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

log = structlog.get_logger(__name__)

HANG_UP = "streamforge.hang_up"
"""Where a server that can drop a connection at once says so: `scope["state"][HANG_UP]()`."""
BODY_SEND = "streamforge.body_send"
"""The shortest way for parts of a body, if somebody put it into the scope: five wrappers less for each of them."""
_FIRST_LOOK = 0.25
"""Seconds before a stream is watched: most short answers end sooner, and need no task for it."""


class EventStream(EventSourceResponse):
    """Sends `stream` as it comes and closes it, whoever ends first: the stream, or the client.

    A client that has gone, or takes nothing for `send_timeout` seconds, ends the response quietly. `heartbeat` (the
    bytes, the seconds of silence before them) keeps proxies from closing a quiet connection; None sends none.
    """

    def __init__(
        self,
        stream: AsyncGenerator[bytes],
        *,
        media_type: str,
        headers: Mapping[str, str],
        send_timeout: float,
        heartbeat: tuple[bytes, float] | None,
    ) -> None:
        # Not EventSourceResponse's: it makes locks and events that only its own sending needs.
        self.status_code = 200
        self.background = None
        self.media_type = media_type
        self.body_iterator = stream
        self.init_headers({**headers, "X-Accel-Buffering": "no"})
        self._stream = stream
        self._limit = send_timeout
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One response."""
        async with aclosing(self._stream) as chunks:
            connection = _Connection(scope, receive, send, self._limit, self._heartbeat)
            try:
                await connection.send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                async for chunk in chunks:
                    await connection.send(_body(chunk))
                # Watched as well: it waits until the client has taken what is before it.
                await connection.send(_body(b"", more=False))
            except asyncio.CancelledError:
                if not connection.caught():
                    raise
            except OSError:
                # The client has gone, says a server that says so.
                pass
            finally:
                connection.close()


async def gone(receive: Receive) -> None:
    """Returns when the client has left. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _body(body: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


class _Connection:
    """One client's connection: sends, keeps it awake, and cancels the task that sends when nobody takes anything."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limit: float, heartbeat: tuple[bytes, float] | None
    ) -> None:
        self._receive = receive
        self._send_head, self._send_body = send, scope.get(BODY_SEND, send)
        self._hang_up: Callable[[], None] = scope.get("state", {}).get(HANG_UP, self._cut)
        self._limit = limit
        self._beat, self._pause = heartbeat or (b"", limit)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._was_cut = False
        self._sent_at = self._loop.time()
        self._sending_since: float | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(min(_FIRST_LOOK, self._pause, limit), self._look)

    async def send(self, message: Message) -> None:
        """Hand it to the server; waits while the client takes nothing."""
        if self._sending_since is None:
            self._sending_since = self._loop.time()
        await (self._send_head if message["type"] == "http.response.start" else self._send_body)(message)
        self._sending_since = None
        self._sent_at = self._loop.time()

    def caught(self) -> bool:
        """Whether the cancelling that was caught is our own; it is undone then."""
        return self._was_cut and self._task is not None and self._task.uncancel() == 0

    def close(self) -> None:
        """Leave nothing behind."""
        self._task = None
        self._timer.cancel()
        for task in (self._leaving, self._beating):
            if task is not None:
                task.cancel()

    async def _heartbeat(self) -> None:
        # A server may say so when the client has gone; the response finds out by itself.
        with suppress(OSError):
            await self.send(_body(self._beat))

    def _cut(self) -> None:
        if not self._was_cut and self._task is not None:
            self._was_cut = True
            self._task.cancel()

    async def _left(self) -> None:
        await gone(self._receive)
        self._cut()

    def _look(self) -> None:
        now = self._loop.time()
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._left(), name="watch for leaving")
        if self._sending_since is not None:
            due = self._sending_since + self._limit
            if now >= due:
                log.info("reader_dropped")
                self._hang_up()
                return
        else:
            due = self._sent_at + self._pause
            if now >= due:
                if self._beat:
                    # A task, since the server may wait; it writes in its first step.
                    self._beating = asyncio.create_task(self._heartbeat(), name="heartbeat")
                due = now + self._pause
        # Not later than `limit` from now, so that a send that begins meanwhile is met in time.
        self._timer = self._loop.call_at(min(due, now + self._limit), self._look)
