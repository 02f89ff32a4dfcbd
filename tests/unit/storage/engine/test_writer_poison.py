"""One operation that breaks the whole commit costs the others nothing."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from sqlite3 import OperationalError

import pytest

from backend.errors import StorageFull, Unavailable
from backend.storage.engine.tx import Tx
from backend.storage.engine.writer import Writer, connect


class Panic(BaseException):
    """What an extension module may raise: no Exception."""


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncGenerator[Writer]:
    conn = connect(tmp_path / "w.db")
    conn.execute("CREATE TABLE t (v TEXT)")
    conn.close()
    opened = Writer(tmp_path / "w.db")
    yield opened
    await asyncio.to_thread(opened.close)


def put(value: str) -> Callable[[Tx], None]:
    return lambda tx: tx.execute("INSERT INTO t VALUES (:value)", value=value)


def failing(error: BaseException) -> Callable[[Tx], None]:
    def fail(tx: Tx) -> None:
        tx.execute("INSERT INTO t VALUES ('of the failing one')")
        raise error

    return fail


def undoing(tx: Tx) -> None:
    """Ends the transaction under the others, as SQLite does after some errors (no memory, no space)."""
    tx.connection.execute("ROLLBACK")
    raise MemoryError


async def together(writer: Writer, *operations: Callable[[Tx], object]) -> list[object]:
    """The results or errors of operations that share a commit."""
    queued = threading.Event()
    first = asyncio.create_task(writer.run(lambda tx: queued.wait(5)))
    await asyncio.sleep(0.05)
    tasks = [asyncio.create_task(writer.run(op)) for op in operations]
    await asyncio.sleep(0)
    queued.set()
    await first
    async with asyncio.timeout(5):
        return list(await asyncio.gather(*tasks, return_exceptions=True))


async def stored(writer: Writer) -> list[str]:
    return [v for (v,) in await writer.run(lambda tx: tx.rows("SELECT v FROM t ORDER BY v"))]


@pytest.mark.parametrize(
    ("poison", "expected"),
    [
        (failing(Panic()), RuntimeError),
        (failing(SystemExit(1)), RuntimeError),
        (failing(StopIteration()), RuntimeError),
        (failing(OperationalError("database or disk is full")), StorageFull),
        (undoing, MemoryError),
    ],
    ids=["panic", "exit", "stop", "full", "rollback"],
)
async def test_an_operation_that_breaks_the_commit_fails_alone(
    writer: Writer, poison: Callable[[Tx], None], expected: type[Exception]
) -> None:
    before, failed, after = await together(writer, put("a"), poison, put("b"))
    assert (before, after) == (None, None)
    assert isinstance(failed, expected)
    assert await stored(writer) == ["a", "b"]
    await writer.run(put("c"))
    assert await stored(writer) == ["a", "b", "c"]


async def test_alone_it_harms_nobody_either(writer: Writer) -> None:
    for error in (Panic(), StopIteration()):
        async with asyncio.timeout(5):
            with pytest.raises(RuntimeError, match=type(error).__name__):
                await writer.run(failing(error))
    await writer.run(put("a"))
    assert await stored(writer) == ["a"]


async def test_what_concerns_all_is_not_tried_one_by_one(writer: Writer) -> None:
    """A locked database is waited for once, not once for each operation."""
    calls = 0

    def count(tx: Tx) -> None:
        nonlocal calls
        calls += 1
        raise OperationalError("database is locked")

    results = await together(writer, *[count] * 20)
    assert all(isinstance(result, Unavailable) for result in results)
    assert calls == 1
