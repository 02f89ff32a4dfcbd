"""A response whose body is a stream of ready bytes, sent by one task.

sse-starlette's own way starts a task group of four tasks a response and a cancel scope a chunk: two thirds of the
CPU of a short answer. Its constructor and headers stay; what watches the connection here is one timer and one task.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

import structlog
from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

log = structlog.get_logger(__name__)

Cut = Literal["left", "frozen"]


class EventStream(EventSourceResponse):
    """Sends `stream` as it comes and closes it, whoever ends first: the stream, or the client.

    A client that has gone, or takes nothing for `send_timeout` seconds, ends the response quietly. `heartbeat` (the bytes,
    the seconds of silence before them) keeps proxies from closing a quiet connection; None sends none.
    """

    def __init__(
        self,
        stream: AsyncGenerator[bytes],
        *,
        media_type: str,
        headers: dict[str, str],
        send_timeout: float,
        heartbeat: tuple[bytes, float] | None,
    ) -> None:
        super().__init__(stream, media_type=media_type, headers=headers, ping=0)
        self._stream = stream
        self._limit = send_timeout
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One response."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await self._stream.aclose()
        else:
            async with aclosing(self._stream) as chunks:
                connection = _Connection(send, self._limit, self._heartbeat)
                leaving = asyncio.create_task(_left(receive, connection), name="watch for leaving")
                try:
                    async for chunk in chunks:
                        await connection.send(chunk)
                except asyncio.CancelledError:
                    if not connection.caught():
                        raise
                    return
                finally:
                    connection.close()
                    leaving.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive, connection: "_Connection") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    connection.cut("left")


class _Connection:
    """One client's connection: sends, keeps it awake, and cancels the task that sends when nobody takes anything."""

    def __init__(self, send: Send, limit: float, heartbeat: tuple[bytes, float] | None) -> None:
        self._send = send
        self._limit = limit
        self._beat, self._pause = heartbeat or (b"", limit)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cut: Cut | None = None
        self._sent_at = self._loop.time()
        self._sending_since: float | None = None
        self._beating: asyncio.Task[None] | None = None
        # Not later than `limit` from now: so a send that begins meanwhile is met in time.
        self._timer = self._loop.call_later(min(self._pause, limit), self._look)

    async def send(self, body: bytes) -> None:
        """Hand the bytes to the server; waits while the client takes nothing."""
        self._sending_since = self._loop.time()
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self._sending_since = None
        self._sent_at = self._loop.time()

    def cut(self, why: Cut) -> None:
        """End the response."""
        if self._cut is None and self._task is not None:
            self._cut = why
            self._task.cancel()

    def caught(self) -> bool:
        """Whether the cancelling that was caught is `cut`'s; it is undone then."""
        if self._cut is None or self._task is None:
            return False
        if self._cut == "frozen":
            log.info("reader_dropped")
        return self._task.uncancel() == 0

    def close(self) -> None:
        """Leave nothing behind."""
        self._task = None
        self._timer.cancel()
        if self._beating is not None:
            self._beating.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if self._sending_since is not None:
            due = self._sending_since + self._limit
            if now >= due:
                self.cut("frozen")
                return
        else:
            due = self._sent_at + self._pause
            if now >= due:
                if self._beat:
                    # A task, since the server may wait; it writes in its first step.
                    self._beating = asyncio.create_task(self.send(self._beat), name="heartbeat")
                due = now + self._pause
        self._timer = self._loop.call_at(min(due, now + self._limit), self._look)
