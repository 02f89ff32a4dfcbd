"""Calls that are no part of a run, on their way into the ledger: each once, also when the database is busy."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from backend.errors import StreamForgeError
from backend.storage.usage.ledger import Ledger, NewCall

log = structlog.get_logger(__name__)

_PAUSE = 1.0
"""Seconds between tries."""


@dataclass(frozen=True, slots=True)
class Booking:
    """Calls of an owner, in a session, and what was `held` for them until now."""

    owner: str
    session_id: str | None
    calls: Sequence[NewCall]
    held: str | None


class Bookings:
    """What is booked late lives in memory: a crash until then loses it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._under_way: set[asyncio.Task[None]] = set()
        self._late: list[Booking] = []
        self._catching_up: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def book(self, booking: Booking) -> None:
        """Book it, now or as soon as that can be done. Who is cancelled meanwhile doesn't undo it."""
        task = asyncio.create_task(self._book(booking))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Book what is left, if that can be done now."""
        self._closing.set()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._catching_up is not None:
            await self._catching_up
        if self._late:
            log.error("usage_not_saved", calls=sum(len(each.calls) for each in self._late))

    async def _book(self, booking: Booking) -> None:
        try:
            await self._settle(booking)
        except StreamForgeError as error:
            log.warning("usage_late", code=error.code, calls=len(booking.calls))
            self._late.append(booking)
            if self._catching_up is None or self._catching_up.done():
                self._catching_up = asyncio.create_task(self._catch_up(), name="bookings")

    async def _settle(self, booking: Booking) -> None:
        await self._ledger.settle(booking.owner, booking.session_id, booking.calls, booking.held)

    async def _catch_up(self) -> None:
        while self._late:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE):
                    await self._closing.wait()
            booking = self._late[0]
            try:
                await self._settle(booking)
            except StreamForgeError:
                if self._closing.is_set():
                    return
            else:
                self._late.pop(0)
