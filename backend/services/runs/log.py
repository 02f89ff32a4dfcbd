"""The log of one live run: its stored events, its newest events in memory, and their way to the watchers.

An event is encoded once. Appending never awaits. A watcher has a cursor (the last seq that it was sent) and a dialect.
It waits on a future only if it has all events; then it is sent all newer events, joined. Watchers of one dialect at the
same cursor share the bytes. A process that wakes few watchers wakes them for text at once; a process that wakes many
delays text by at most one window (`send_window_ms`). The first text and all other events wake watchers at once.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from backend import events as ev
from backend.services.runs.archive import MAX_CHUNK_BYTES, ReadStored, apply_row, stored_pieces
from backend.services.runs.dialect import Dialect, Encoder, SharedPieces, Watcher
from backend.services.runs.fold import RunFold
from backend.storage.runs.events import EventLines

MAX_UNSTORED = 997
"""The most unstored events that watchers are sent, besides the end of a run that could not be stored. So the snapshot
of a recovered run (last stored seq + 1,001) is ahead of every cursor."""

_MAX_CHUNK_EVENTS = 500


class LogFull(Exception):
    """The log's memory is full and can't be stored, so the run must end."""


_WAKES_PER_SECOND = 1000
"""How many watchers a process may wake a second before text is held back: one wake costs 50 to 80 µs of CPU."""


class SendPace:
    """When watchers may be woken for text. All runs of a process share one pace.

    The process may wake `per_second` watchers a second, evenly spaced. A run that must wait holds its text back, but
    never longer than `window` seconds after it last woke its watchers. So an idle process delays no text, and a busy
    process sends the text of one window together.
    """

    def __init__(self, window: float, per_second: float = _WAKES_PER_SECOND) -> None:
        self._window = window
        self._spacing = 1 / per_second
        self._free_at = 0.0

    def due(self, woken_at: float) -> float:
        """The time from which a run may wake its watchers for text, if it last woke them at `woken_at`."""
        return min(woken_at + self._window, self._free_at)

    def count(self, woken: int, now: float) -> None:
        """Count the watchers that are woken now."""
        # At most one window: a run that wakes 200 watchers must not delay other runs longer than that.
        self._free_at = min(max(self._free_at, now) + woken * self._spacing, now + self._window)


class RunLog(Protocol):
    """The append-only events of one live run. One process appends. A log that other processes can read would be another
    class with these methods."""

    @property
    def head(self) -> int:
        """The seq of the last event."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether the log has its terminal event."""
        ...

    @property
    def unstored_count(self) -> int:
        """How many events are in memory only."""
        ...

    @property
    def is_half_full(self) -> bool:
        """Whether so many bytes are in memory only that a checkpoint is due."""
        ...

    def append(self, event: ev.AnyEvent) -> None:
        """Give the event the next seq and show it to the watchers. Raises LogFull."""
        ...

    def encode_next(self, events: list[ev.AnyEvent]) -> list[EventLines]:
        """The unstored events, followed by `events` with their future seqs, for the run's last commit."""
        ...

    def finish(self, events: list[ev.AnyEvent], *, stored: bool) -> None:
        """Append the last events, the terminal one at the end, and end the log."""
        ...

    def drop_hidden(self) -> list[ev.AnyEvent] | None:
        """Drop the events that no watcher was sent. Returns the event that ends the part that is open then, or an empty
        list; None if nothing was dropped."""
        ...

    def unstored_lines(self) -> EventLines | None:
        """The events to checkpoint, or None."""
        ...

    def mark_stored(self, seq: int) -> None:
        """Note that the events up to `seq` are in the database."""
        ...

    def follow(self, cursor: int, dialect: Dialect, read_stored: ReadStored) -> AsyncGenerator[bytes]:
        """The bytes of all events after `cursor` as they are appended; it ends after the terminal event."""
        ...

    async def wait_for_end(self) -> None:
        """Wait for the end of the log."""
        ...


class MemoryLog:
    """The log of a run in this process. Not thread-safe: it lives on the event loop."""

    def __init__(self, run_id: str, *, pace: SendPace, max_events: int, max_bytes: int) -> None:
        self.run_id = run_id
        self.head = 0
        self.stored = 0
        self._first = 1
        self._tail: list[bytes] = []
        self._bytes = 0
        self._max_events, self._max_bytes = max_events, max_bytes
        self._shared: dict[Dialect, SharedPieces] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._ended = asyncio.Event()
        self._pace = pace
        self._woken_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def is_done(self) -> bool:
        """Whether the log has its terminal event."""
        return self._ended.is_set()

    @property
    def unstored_count(self) -> int:
        """How many events are in memory only."""
        return self.head - self.stored

    @property
    def is_half_full(self) -> bool:
        """Whether so many bytes are in memory only that a checkpoint is due."""
        return self._bytes > self._max_bytes // 2

    def append(self, event: ev.AnyEvent) -> None:
        """Give the event the next seq and show it to the watchers. Raises LogFull."""
        if self.unstored_count >= self._max_events or self._bytes >= self._max_bytes:
            self.trim()
            if self.unstored_count >= self._max_events or self._bytes >= self._max_bytes:
                raise LogFull
        self._push(event)
        self._announce(isinstance(event, ev.TextDelta | ev.ReasoningDelta))

    def encode_next(self, events: list[ev.AnyEvent]) -> list[EventLines]:
        """The unstored events, followed by `events` with their future seqs, for the run's last commit."""
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
        self._ended.set()
        self._announce(False)

    def drop_hidden(self) -> list[ev.AnyEvent] | None:
        """Drop the events that no watcher was sent, since they will never be stored. Returns the event that ends the
        part that is open then, or an empty list; None if nothing was dropped."""
        upto = self._visible_head()
        if upto == self.head:
            return None
        del self._tail[upto + 1 - self._first :]
        self.head = upto
        borders = (b'{"type":"text.start', b'{"type":"reasoning.start', b'{"type":"text.end', b'{"type":"reasoning.end')
        return _closing_events(next((line for line in reversed(self._tail) if line.startswith(borders)), b""))

    def unstored_lines(self) -> EventLines | None:
        """The events to checkpoint, or None."""
        if not self.unstored_count:
            return None
        lines = self._tail[self.stored + 1 - self._first :]
        return EventLines(self.run_id, self.stored + 1, self.head, b"\n".join(lines))

    def mark_stored(self, seq: int) -> None:
        """Note that the events up to `seq` are in the database."""
        was_hiding = self.unstored_count > MAX_UNSTORED
        self.stored = max(self.stored, seq)
        if len(self._tail) > self._max_events // 2 or self._bytes > self._max_bytes // 2:
            self.trim()
        if was_hiding:
            self._wake()

    def trim(self) -> None:
        """Drop stored events from memory. Watchers that still need them read them from the database."""
        drop = self.stored + 1 - self._first
        if drop > 0:
            self._bytes -= sum(map(len, self._tail[:drop]))
            del self._tail[:drop]
            self._first += drop

    async def follow(self, cursor: int, dialect: Dialect, read_stored: ReadStored) -> AsyncGenerator[bytes]:
        """The bytes of all events after `cursor` as they are appended; it ends after the terminal event."""
        # Let a run that begins now take its first step, so that its first events are sent with run.started.
        await asyncio.sleep(0)
        watcher = Watcher(self.run_id, cursor, dialect)
        while True:
            if watcher.cursor < self._first - 1:
                before = watcher.cursor
                async for chunk in self._stored_chunks(watcher, read_stored):
                    yield chunk
                if watcher.cursor == before:
                    # The session was deleted, and the stored events with it.
                    return
            elif watcher.cursor < self._visible_head():
                chunk = self._chunk(watcher)
                if chunk is None:
                    watcher.encoder = await self._encoder_at(watcher.cursor, dialect, read_stored)
                    continue
                if chunk:
                    yield chunk
                if watcher.cursor < self._visible_head():
                    # A long replay must not block the event loop.
                    await asyncio.sleep(0)
            elif self.is_done:
                return
            else:
                await self._wait_for_change()

    async def wait_for_end(self) -> None:
        """Wait for the end of the log."""
        await self._ended.wait()

    def _visible_head(self) -> int:
        return self.head if self.is_done else min(self.head, self.stored + MAX_UNSTORED)

    def _push(self, event: ev.AnyEvent) -> None:
        event.seq = self.head + 1
        line = ev.encode(event)
        self._tail.append(line)
        self._bytes += len(line)
        self.head += 1

    async def _stored_chunks(self, watcher: Watcher, read_stored: ReadStored) -> AsyncGenerator[bytes]:
        """The bytes of the next few stored rows."""
        if watcher.encoder is None:
            watcher.encoder = await self._encoder_at(watcher.cursor, watcher.dialect, read_stored)
        pieces = stored_pieces(self.run_id, watcher.cursor, watcher.encoder, read_stored)
        async with aclosing(pieces):
            async for upto, chunk in pieces:
                watcher.cursor = upto
                if chunk:
                    yield chunk

    async def _encoder_at(self, cursor: int, dialect: Dialect, read_stored: ReadStored) -> Encoder:
        """An encoder for the events after `cursor`, made from the log's events up to `cursor`."""
        fold, at = RunFold(), 0
        while at < cursor and not dialect.is_stateless:
            if at >= self._first - 1:
                at += 1
                fold.apply_line(self._tail[at - self._first])
                continue
            before = at
            for row in await read_stored(self.run_id, at):
                at = apply_row(fold, row, at, cursor)
            if at == before:
                break
        return dialect.encoder(self.run_id, fold)

    def _chunk(self, watcher: Watcher) -> bytes | None:
        """The watcher's next bytes from memory; its cursor moves on. None if the watcher needs an encoder first."""
        shared, cursor = self._shared.setdefault(watcher.dialect, SharedPieces()), watcher.cursor
        upto = min(self._visible_head(), cursor + _MAX_CHUNK_EVENTS)
        key = (cursor, upto) if watcher.dialect.is_stateless else cursor
        piece, encoder = shared.by_cursor.get(key), None
        if piece is None:
            encoder = shared.encoder if shared.seq == cursor else watcher.encoder
            if encoder is None:
                return None
            lines = self._tail[cursor + 1 - self._first : upto + 1 - self._first]
            lines = lines[: _count_fitting(lines, MAX_CHUNK_BYTES)]
            event = encoder.event
            piece = (cursor + len(lines), b"".join([event(seq, line) for seq, line in enumerate(lines, cursor + 1)]))
            shared.put(key, piece, encoder)
        watcher.cursor = piece[0]
        if not watcher.dialect.is_stateless and (encoder is not watcher.encoder or encoder is shared.encoder):
            # Another encoder made the piece, or the watcher's encoder is shared from now on.
            watcher.encoder = None
        return piece[1]

    def _announce(self, is_delta: bool) -> None:
        if not self._waiters:
            return
        if is_delta:
            if self._timer is not None:
                return
            due = self._pace.due(self._woken_at)
            if self._loop.time() < due:
                self._timer = self._loop.call_at(due, self._wake)
                return
        self._wake()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._woken_at = self._loop.time()
        waiters, self._waiters = self._waiters, []
        self._pace.count(len(waiters), self._woken_at)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait_for_change(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # Without this, the waiters of watchers that left a quiet run would pile up.
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise


def _count_fitting(lines: list[bytes], limit: int) -> int:
    """How many of the lines fit into `limit` bytes; at least one."""
    size = 0
    for count, line in enumerate(lines):
        size += len(line)
        if count and size > limit:
            return count
    return len(lines)


def _closing_events(border: bytes) -> list[ev.AnyEvent]:
    """The event that ends the part that is open after `border`, the last event that began or ended a part."""
    match ev.decode(border) if border else None:
        case ev.TextStart(part_id=part_id):
            return [ev.TextEnd(part_id=part_id)]
        case ev.ReasoningStart(part_id=part_id):
            return [ev.ReasoningEnd(part_id=part_id)]
        case _:
            return []
