"""The log of one live run: a stored prefix and a tail in memory, and the way of its events to whoever watches.

An event is encoded once. Appending never awaits. A watcher is a cursor (the last seq it has) and a frame encoder; it
sleeps on a future only when it has caught up, and is given what has come since, joined. Text that comes within one
window (`send_window_ms`) wakes watchers once; the first text and everything else wakes them at once.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from backend import events as ev
from backend.storage.runs.events import EventLines

FrameEncoder = Callable[[str, int, bytes], bytes]
"""Of a run id, a seq and the event's JSON line: the bytes that go to the client (maybe none)."""

ReadStored = Callable[[str, int], Awaitable[list[EventLines]]]
"""Of a run id and a seq: stored events after it, in order; an empty list when there are none."""

MAX_UNSTORED = 997
"""Watchers are never shown more than this beyond what is stored, and the end of a run that could not be stored: so
recovery's snapshot (last stored seq + 1,001) is ahead of every cursor."""

_MAX_CHUNK_EVENTS = 500
_MAX_CHUNK_BYTES = 262_144
"""A watcher is given no more at once: a slow one holds a piece of the log in its socket, not the log."""


class LogFull(Exception):
    """The tail is full and can't be stored: the run must end."""


class RunLog:
    """Append-only events of one run. Not thread-safe: it lives on the event loop."""

    def __init__(self, run_id: str, *, window: float, max_events: int, max_bytes: int) -> None:
        self.run_id = run_id
        self.head = 0
        self.stored = 0
        self.done = False
        self._first = 1
        self._tail: list[bytes] = []
        self._bytes = 0
        self._max_events, self._max_bytes = max_events, max_bytes
        self._joined: dict[tuple[FrameEncoder, int, int], tuple[int, bytes]] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._window = window
        self._woken_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def unstored(self) -> int:
        """How many events are in memory only."""
        return self.head - self.stored

    @property
    def half_full(self) -> bool:
        """Whether the tail holds so many bytes that it should be stored now."""
        return self._bytes > self._max_bytes // 2

    def append(self, event: ev.AnyEvent) -> None:
        """Give the event the next seq and show it to the watchers. Raises LogFull."""
        if self.unstored >= self._max_events or self._bytes >= self._max_bytes:
            self.trim()
            if self.unstored >= self._max_events or self._bytes >= self._max_bytes:
                raise LogFull
        self._push(event)
        self._announce(isinstance(event, ev.TextDelta | ev.ReasoningDelta))

    def encode_next(self, events: list[ev.AnyEvent]) -> list[EventLines]:
        """What is not stored yet, followed by `events` with the seqs they will have, for the run's last commit."""
        lines = self._tail[self.stored + 1 - self._first :]
        for offset, event in enumerate(events):
            event.seq = self.head + 1 + offset
            lines.append(ev.encode(event))
        if not lines:
            return []
        return [EventLines(self.run_id, self.stored + 1, self.head + len(events), b"\n".join(lines))]

    def finish(self, events: list[ev.AnyEvent], *, stored: bool) -> None:
        """Append the last events, the terminal one at the end, and end the log."""
        for event in events:
            self._push(event)
        if stored:
            self.stored = self.head
        self.done = True
        self._announce(False)

    def drop_hidden(self) -> list[ev.AnyEvent] | None:
        """Forget what no watcher was shown, since it will never be stored. If something was dropped: the end of the
        part that is open then."""
        upto = self._visible()
        if upto == self.head:
            return None
        del self._tail[upto + 1 - self._first :]
        self.head = upto
        borders = (b'{"type":"text.start', b'{"type":"reasoning.start', b'{"type":"text.end', b'{"type":"reasoning.end')
        return _closing(next((line for line in reversed(self._tail) if line.startswith(borders)), b""))

    def unstored_lines(self) -> EventLines | None:
        """The events to checkpoint, or None."""
        if not self.unstored:
            return None
        lines = self._tail[self.stored + 1 - self._first :]
        return EventLines(self.run_id, self.stored + 1, self.head, b"\n".join(lines))

    def mark_stored(self, seq: int) -> None:
        """Events up to `seq` are in the database."""
        was_hiding = self.unstored > MAX_UNSTORED
        self.stored = max(self.stored, seq)
        if len(self._tail) > self._max_events // 2 or self._bytes > self._max_bytes // 2:
            self.trim()
        if was_hiding:
            self._wake()

    def trim(self) -> None:
        """Let go of what is stored: watchers who are that far behind read it from the database."""
        drop = self.stored + 1 - self._first
        if drop > 0:
            self._bytes -= sum(map(len, self._tail[:drop]))
            del self._tail[:drop]
            self._first += drop

    async def follow(self, cursor: int, frame: FrameEncoder, read_stored: ReadStored) -> AsyncGenerator[bytes]:
        """Frames of all events after `cursor`, as they come, joined; ends after the terminal event."""
        # A run that begins now has its first step, and what it says there leaves with run.started.
        await asyncio.sleep(0)
        while True:
            if cursor < self._first - 1:
                before = cursor
                async with aclosing(_stored_pieces(self.run_id, cursor, frame, read_stored)) as pieces:
                    async for upto, chunk in pieces:
                        cursor = upto
                        if chunk:
                            yield chunk
                if cursor == before:
                    # Its session was deleted: there is nothing to go on with.
                    return
            elif cursor < self._visible():
                cursor, chunk = self._chunk(cursor, frame)
                if chunk:
                    yield chunk
                if cursor < self._visible():
                    # A long replay must not keep the loop from others.
                    await asyncio.sleep(0)
            elif self.done:
                return
            else:
                await self._changed()

    async def finished(self) -> None:
        """Wait for the end of the log."""
        while not self.done:
            await self._changed()

    def _visible(self) -> int:
        return self.head if self.done else min(self.head, self.stored + MAX_UNSTORED)

    def _push(self, event: ev.AnyEvent) -> None:
        event.seq = self.head + 1
        line = ev.encode(event)
        self._tail.append(line)
        self._bytes += len(line)
        self.head += 1

    def _chunk(self, cursor: int, frame: FrameEncoder) -> tuple[int, bytes]:
        upto = min(self._visible(), cursor + _MAX_CHUNK_EVENTS)
        key = (frame, cursor, upto)
        piece = self._joined.get(key)
        if piece is None:
            lines = self._tail[cursor + 1 - self._first : upto + 1 - self._first]
            lines = lines[: _fitting(lines, _MAX_CHUNK_BYTES)]
            chunk = b"".join([frame(self.run_id, seq, line) for seq, line in enumerate(lines, cursor + 1)])
            piece = (cursor + len(lines), chunk)
            if len(self._joined) >= 8:
                self._joined.clear()
            self._joined[key] = piece
        return piece

    def _announce(self, is_delta: bool) -> None:
        if not self._waiters:
            return
        if is_delta and self._window:
            if self._timer is not None:
                return
            now = self._loop.time()
            if now < self._woken_at + self._window:
                self._timer = self._loop.call_at(self._woken_at + self._window, self._wake)
                return
        self._wake()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._woken_at = self._loop.time()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _changed(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # A watcher that leaves a quiet run leaves nothing behind.
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise


def _fitting(lines: list[bytes], limit: int) -> int:
    """How many of the lines fit into so many bytes; at least one."""
    size = 0
    for count, line in enumerate(lines):
        size += len(line)
        if count and size > limit:
            return count
    return len(lines)


def _closing(border: bytes) -> list[ev.AnyEvent]:
    """The end of the part that is open after this event, the last one that opened or closed any."""
    match ev.decode(border) if border else None:
        case ev.TextStart(part_id=part_id):
            return [ev.TextEnd(part_id=part_id)]
        case ev.ReasoningStart(part_id=part_id):
            return [ev.ReasoningEnd(part_id=part_id)]
        case _:
            return []


async def _stored_pieces(
    run_id: str, cursor: int, frame: FrameEncoder, read_stored: ReadStored
) -> AsyncGenerator[tuple[int, bytes]]:
    """Frames of the next few stored rows in pieces of bounded size, each with the seq that it leads to."""
    frames: list[bytes] = []
    size = 0
    for row in await read_stored(run_id, cursor):
        for seq, line in enumerate(row.lines.split(b"\n"), row.first_seq):
            if seq <= cursor:
                continue
            cursor = seq
            frames.append(frame(run_id, seq, line))
            size += len(frames[-1])
            if size > _MAX_CHUNK_BYTES:
                yield cursor, b"".join(frames)
                await asyncio.sleep(0)
                frames, size = [], 0
    if frames:
        yield cursor, b"".join(frames)


async def replay(run_id: str, cursor: int, frame: FrameEncoder, read_stored: ReadStored) -> AsyncGenerator[bytes]:
    """Frames of a finished run's stored events after `cursor`."""
    before = -1
    while cursor != before:
        before = cursor
        async with aclosing(_stored_pieces(run_id, cursor, frame, read_stored)) as pieces:
            async for upto, chunk in pieces:
                cursor = upto
                if chunk:
                    yield chunk
