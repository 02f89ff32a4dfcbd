"""The writer: group commit, failures, closing."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from backend.errors import NotFound, StorageFull, StreamForgeError, Unavailable
from backend.storage.engine.tx import Tx
from backend.storage.engine.writer import Writer, connect, storage_error


def put(value: str) -> Callable[[Tx], str]:
    def insert(tx: Tx) -> str:
        tx.execute("INSERT INTO t VALUES (:value)", value=value)
        return value

    return insert


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncGenerator[Writer]:
    conn = connect(tmp_path / "w.db")
    conn.execute("CREATE TABLE t (v TEXT PRIMARY KEY)")
    conn.close()
    opened = Writer(tmp_path / "w.db")
    yield opened
    await asyncio.to_thread(opened.close)


def values(path: Path) -> list[str]:
    conn = sqlite3.connect(path / "w.db")
    try:
        return [row[0] for row in conn.execute("SELECT v FROM t ORDER BY v")]
    finally:
        conn.close()


FAILURES = [
    NotFound("gone"),
    ValueError("bad"),
    KeyError("k"),
    OverflowError("too large"),
    RuntimeError("a fault of ours"),
    sqlite3.IntegrityError("unique"),
    sqlite3.OperationalError("no such table: x"),
    sqlite3.ProgrammingError("wrong number of bindings"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda e: type(e).__name__)
async def test_a_failing_operation_does_not_harm_its_neighbours(
    writer: Writer, tmp_path: Path, error: Exception
) -> None:
    """They are in one commit: the first holds the writer until all are queued."""
    import threading

    queued = threading.Event()

    def slow(tx: Tx) -> None:
        queued.wait(5)

    def failing(tx: Tx) -> None:
        tx.execute("INSERT INTO t VALUES ('half')")
        raise error

    first = asyncio.create_task(writer.run(slow))
    others = [asyncio.create_task(writer.run(op)) for op in (put("a"), failing, put("b"))]
    await asyncio.sleep(0)
    queued.set()
    await first
    results = await asyncio.gather(*others, return_exceptions=True)
    assert (results[0], results[2]) == ("a", "b")
    assert results[1] is error
    assert values(tmp_path) == ["a", "b"], "the failing one is undone, the others are stored"


async def test_many_operations_at_once_are_all_stored_in_order(writer: Writer, tmp_path: Path) -> None:
    names = [f"{n:04}" for n in range(1000)]
    assert await asyncio.gather(*(writer.run(put(n)) for n in names)) == names
    assert values(tmp_path) == names


async def test_a_caller_that_leaves_does_not_undo_its_operation(writer: Writer, tmp_path: Path) -> None:
    task = asyncio.create_task(writer.run(put("kept")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await writer.run(put("next"))
    assert values(tmp_path) == ["kept", "next"]


async def test_after_closing_an_operation_is_refused_not_left_waiting(writer: Writer) -> None:
    await asyncio.to_thread(writer.close)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(writer.run(put("late")), 5)


async def test_closing_stores_what_is_queued(tmp_path: Path, writer: Writer) -> None:
    tasks = [asyncio.create_task(writer.run(put(str(n)))) for n in range(9)]
    await asyncio.sleep(0)
    await asyncio.to_thread(writer.close)
    await asyncio.gather(*tasks)
    assert len(values(tmp_path)) == 9


async def test_a_database_that_is_gone_is_503_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "w.db").mkdir()
    writer = Writer(tmp_path / "w.db")
    with pytest.raises(Unavailable) as caught:
        await writer.run(lambda tx: None)
    assert caught.value.code == "storage_busy"
    (tmp_path / "w.db").rmdir()
    await writer.run(lambda tx: tx.execute("CREATE TABLE t (v TEXT)"))
    await asyncio.to_thread(writer.close)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("database is locked", Unavailable),
        ("database or disk is full", StorageFull),
        ("disk I/O error", StorageFull),
        ("unable to open database file", Unavailable),
        ("attempt to write a readonly database", Unavailable),
        ("no such table: x", None),
        ("UNIQUE constraint failed: t.v", None),
    ],
)
def test_what_a_database_error_means_to_a_caller(said: str, expected: type[StreamForgeError] | None) -> None:
    found = storage_error(sqlite3.OperationalError(said))
    assert type(found) is (expected or type(None))
    assert found is None or said not in found.message
