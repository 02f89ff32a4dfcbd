"""Books calls outside of runs in the ledger, each exactly once. If the database is busy, they are booked later."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from backend.errors import StreamForgeError
from backend.storage.usage.ledger import Ledger, NewCall

log = structlog.get_logger(__name__)

_MAX_LATE = 10_000
"""Late bookings that are kept in memory. More are only logged."""
_PAUSE = 1.0
"""Seconds before a late booking is tried again."""


@dataclass(frozen=True, slots=True)
class Booking:
    """Calls of an owner in a session, and the reservation that ends with the booking."""

    owner: str
    session_id: str | None
    calls: Sequence[NewCall]
    reservation_id: str | None


class Bookings:
    """The bookings that are being written, and those that are late. Late bookings are in memory: a crash loses them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._under_way: set[asyncio.Task[None]] = set()
        self._late: list[Booking] = []
        self._catching_up: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def book(self, booking: Booking) -> None:
        """Write the booking now, or later if the database is busy. It is written even if the caller is cancelled."""
        task = asyncio.create_task(self._book(booking))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Write the late bookings, if the database allows it now."""
        self._closing.set()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._catching_up is not None:
            await self._catching_up
        if self._late:
            log.error("usage_not_saved", calls=sum(len(booking.calls) for booking in self._late))

    async def _book(self, booking: Booking) -> None:
        try:
            await self._settle(booking)
        except StreamForgeError as error:
            log.warning("usage_late", code=error.code, calls=len(booking.calls))
            if len(self._late) >= _MAX_LATE:
                _log_lost(booking)
                return
            self._late.append(booking)
            if self._catching_up is None or self._catching_up.done():
                self._catching_up = asyncio.create_task(self._catch_up(), name="bookings")

    async def _settle(self, booking: Booking) -> None:
        """Write the booking. If it can't be stored, whenever it is tried, only its reservation is ended."""
        owner, session_id, reservation_id = booking.owner, booking.session_id, booking.reservation_id
        try:
            await self._ledger.settle(owner, session_id, booking.calls, reservation_id)
        except StreamForgeError:
            raise
        except Exception:
            _log_lost(booking, exc_info=True)
            await self._ledger.settle(owner, session_id, (), reservation_id)

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
                continue
            except Exception:
                log.exception("reservation_not_ended")
            self._late.pop(0)


def _log_lost(booking: Booking, *, exc_info: bool = False) -> None:
    """Tell the operator what the ledger lacks."""
    calls = [(call.model[:100], call.input_tokens, call.output_tokens, call.cost) for call in booking.calls[:10]]
    log.error("usage_set_aside", owner=booking.owner, calls=calls, exc_info=exc_info)
