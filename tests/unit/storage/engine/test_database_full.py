"""A disk that is so full that SQLite can't open the database as usual; and databases that give space back."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.errors import StorageFull
from backend.storage.engine import database as module
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx
from backend.storage.engine.writer import connect, connect_alone


async def names(database: Database) -> list[str]:
    return [name for (name,) in await database.read(lambda tx: tx.rows("SELECT name FROM counters ORDER BY name"))]


def put(name: str, size: int = 1) -> Callable[[Tx], None]:
    return lambda tx: tx.execute("INSERT INTO counters VALUES (:name, 1)", name=name * size)


@pytest.mark.parametrize("error", ["disk I/O error", "database or disk is full"])
async def test_a_full_disk_is_read_and_noticed_when_it_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    await Database(tmp_path / "a.db").close()

    def no_room(path: Path) -> sqlite3.Connection:
        raise sqlite3.OperationalError(error)

    def tight(path: Path) -> sqlite3.Connection:
        connection = connect_alone(path)
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(module, "connect", no_room)
    monkeypatch.setattr(module, "connect_alone", tight)
    database = Database(tmp_path / "a.db")
    assert database.is_read_only
    assert await names(database) == ["chunks"]
    assert await database.write(lambda tx: tx.value("SELECT count(*) FROM runs")) == 0
    with pytest.raises(StorageFull):
        await database.write(put("x", 50_000))
    assert not await database.try_write()
    assert await names(database) == ["chunks"]
    monkeypatch.setattr(module, "connect", connect)
    assert await database.try_write()
    assert not database.is_read_only
    await database.write(put("later"))
    assert await names(database) == ["chunks", "later"]
    await database.close()


async def test_a_commit_that_finds_no_room_is_remembered_until_one_succeeds(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")

    def full(tx: Tx) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(StorageFull):
        await database.write(full)
    assert database.is_read_only
    assert await database.try_write()
    assert not database.is_read_only
    assert await names(database) == ["chunks"], "the probe leaves nothing behind"
    await database.close()


async def test_an_older_database_learns_to_give_space_back(tmp_path: Path) -> None:
    await Database(tmp_path / "a.db").close()
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("PRAGMA auto_vacuum=NONE")
    connection.execute("VACUUM")
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    connection.close()
    database = Database(tmp_path / "a.db")
    assert await database.read(lambda tx: tx.value("PRAGMA auto_vacuum")) == 2
    assert await names(database) == ["chunks"]
    await database.close()
