"""Bookings of calls outside of runs: late ones are caught up, and one that can't be stored holds up nobody."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from backend.errors import Unavailable
from backend.services.usage import bookings
from backend.services.usage.bookings import Booking, Bookings
from backend.storage.engine.database import Database
from backend.storage.usage.ledger import Ledger, NewCall
from tests.support.logs import LogRecorder

BIG = 2**70


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    opened = Database(tmp_path / "a.db")
    yield opened
    await opened.close()


def booking(tokens: int, reservation_id: str | None = None) -> Booking:
    return Booking("alice", None, [NewCall("title", "m", "completed", tokens, 0)], reservation_id)


async def booked(database: Database) -> list[int]:
    return [n for (n,) in await database.read(lambda tx: tx.rows("SELECT input_tokens FROM calls ORDER BY 1"))]


async def test_a_booking_that_cant_be_stored_is_set_aside_and_its_reservation_ends(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookings, "log", log := LogRecorder())
    sql = "INSERT INTO reservations (id, owner, amount, created_at) VALUES ('res_1', 'alice', 7, 1)"
    await database.write(lambda tx: tx.execute(sql))
    ours = Bookings(Ledger(database))
    await ours.book(booking(BIG, "res_1"))
    await ours.book(booking(5))
    await ours.close()
    assert await booked(database) == [5]
    assert await database.read(lambda tx: tx.value("SELECT count(*) FROM reservations")) == 0
    assert log.events == ["usage_set_aside"]
    assert str(BIG) in str(log.lines)


async def test_late_bookings_pass_one_that_cant_be_stored(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookings, "_PAUSE", 0.01)
    settle, left = Ledger.settle, 3

    async def busy(ledger: Ledger, *arguments: object) -> None:
        nonlocal left
        if left > 0:
            left -= 1
            raise Unavailable("The database is busy.", code="storage_busy")
        await settle(ledger, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "settle", busy)
    ours = Bookings(Ledger(database))
    for tokens in (1, BIG, 3):
        await ours.book(booking(tokens))
    assert await booked(database) == []
    await ours.close()
    assert await booked(database) == [1, 3]


async def test_no_more_are_late_than_fit_into_memory(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookings, "_MAX_LATE", 2)

    async def busy(*_: object) -> None:
        raise Unavailable("The database is busy.", code="storage_busy")

    monkeypatch.setattr(Ledger, "settle", busy)
    ours = Bookings(Ledger(database))
    for _ in range(5):
        await ours.book(booking(1))
    assert len(ours._late) == 2
    await ours.close()
