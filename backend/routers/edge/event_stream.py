"""A response whose body is a stream of ready bytes, sent by one task.

sse-starlette itself starts a task group of four tasks per response and a cancel scope per chunk: two thirds of the CPU
of a short answer. Here, one timer watches the connection, and one task if the stream lasts longer than a moment.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress

import structlog
from sse_starlette import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

log = structlog.get_logger(__name__)

HANG_UP = "streamforge.hang_up"
"""Name of the function in `scope["state"]` that drops the connection at once, if the server has one."""
RESPONDING = "streamforge.responding"
"""Name of the function in `scope["state"]` to call before the head of a response is sent, if the server has one."""
BODY_SEND = "streamforge.body_send"
"""Name of the function in the scope that sends parts of a body past the middleware: five wrappers less per part."""
_FIRST_LOOK_SECONDS = 0.25
"""Seconds before a stream is watched. Most short answers end sooner, and need no task for it."""


class EventStream(EventSourceResponse):
    """Sends the parts of `stream` at once, and closes it at its end or when the client disconnects.

    If the client disconnects or reads nothing for `send_timeout` seconds, the response ends without an error.
    `heartbeat` (its bytes, and the seconds of silence before it) keeps proxies from closing a quiet connection; None:
    no heartbeat.
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
        # EventSourceResponse.__init__ isn't called: it makes locks and events that only its own sending needs.
        self.status_code = 200
        self.background = None
        self.media_type = media_type
        self.body_iterator = stream
        self.init_headers({**headers, "X-Accel-Buffering": "no"})
        self._stream = stream
        self._limit = send_timeout
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with aclosing(self._stream) as chunks:
            connection = _Connection(scope, receive, send, self._limit, self._heartbeat)
            try:
                await connection.send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                async for chunk in chunks:
                    await connection.send(_body(chunk))
                # This call is watched too: it waits until the client has read everything before it.
                await connection.send(_body(b"", more=False))
            except asyncio.CancelledError:
                if not connection.is_own_cancellation():
                    raise
            except OSError:
                # Some servers report in this way that the client has disconnected.
                pass
            finally:
                connection.close()


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _body(body: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


class _Connection:
    """The connection of one client. Sends messages and heartbeats; cancels the sending task if the client is gone."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limit: float, heartbeat: tuple[bytes, float] | None
    ) -> None:
        self._receive = receive
        self._send_head, self._send_body = send, scope.get(BODY_SEND, send)
        self._hang_up: Callable[[], None] = scope.get("state", {}).get(HANG_UP, self._cancel_sending)
        self._limit = limit
        self._beat, self._pause = heartbeat or (b"", limit)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._is_cancelled = False
        self._sent_at = self._loop.time()
        self._sending_since: float | None = None
        self._disconnect_task: asyncio.Task[None] | None = None
        self._heartbeat_task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(min(_FIRST_LOOK_SECONDS, self._pause, limit), self._look)

    async def send(self, message: Message) -> None:
        """Give the message to the server. Waits while the client reads nothing."""
        if self._sending_since is None:
            self._sending_since = self._loop.time()
        await (self._send_head if message["type"] == "http.response.start" else self._send_body)(message)
        self._sending_since = None
        self._sent_at = self._loop.time()

    def is_own_cancellation(self) -> bool:
        """Whether the CancelledError that was caught is our own. If so, the cancellation is undone."""
        return self._is_cancelled and self._task is not None and self._task.uncancel() == 0

    def close(self) -> None:
        """Stop the timer and the tasks."""
        self._task = None
        self._timer.cancel()
        for task in (self._disconnect_task, self._heartbeat_task):
            if task is not None:
                task.cancel()

    async def _send_heartbeat(self) -> None:
        # Some servers raise if the client has disconnected; the response notices that in another way.
        with suppress(OSError):
            await self.send(_body(self._beat))

    def _cancel_sending(self) -> None:
        if not self._is_cancelled and self._task is not None:
            self._is_cancelled = True
            self._task.cancel()

    async def _cancel_at_disconnect(self) -> None:
        await wait_for_disconnect(self._receive)
        self._cancel_sending()

    def _look(self) -> None:
        now = self._loop.time()
        if self._disconnect_task is None:
            self._disconnect_task = asyncio.create_task(self._cancel_at_disconnect(), name="watch for leaving")
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
                    # A task, because sending may wait. The task writes in its first step.
                    self._heartbeat_task = asyncio.create_task(self._send_heartbeat(), name="heartbeat")
                due = now + self._pause
        # At most `limit` from now, so that a send that begins meanwhile is checked in time.
        self._timer = self._loop.call_at(min(due, now + self._limit), self._look)
