"""What other programs do to DATA_DIR while the server runs: it is noticed, said, and mended where that is safe."""

import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backend.services.upkeep.watch import DataWatch
from backend.storage.engine.database import Database
from backend.storage.engine.lock import DataDirInUse, DataDirLock
from tests.support.logs import LogRecorder


@dataclass
class Watched:
    """A DATA_DIR with its watch; `repairs` and `stops` have what it did."""

    folder: Path
    database: Database
    lock: DataDirLock
    watch: DataWatch
    repairs: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    log: LogRecorder = field(default_factory=LogRecorder)


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    folder = tmp_path / "data"
    lock = DataDirLock(folder)
    for name in ("files", "vectors"):
        (folder / name).mkdir()
    database = Database(folder / "streamforge.db")
    repairs, stops = list[str](), list[str]()
    watch = DataWatch(database, lock, folder, lambda: True, repairs.append, lambda: stops.append("stop"))
    monkeypatch.setattr("backend.services.upkeep.watch.log", log := LogRecorder())
    await watch.look()
    yield Watched(folder, database, lock, watch, repairs, stops, log)
    await database.close()
    lock.release()


async def put(database: Database, name: str) -> None:
    await database.write(lambda tx: tx.execute("INSERT INTO counters VALUES (:name, 1)", name=name))


def stored(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [name for (name,) in connection.execute("SELECT name FROM counters ORDER BY name")]
    finally:
        connection.close()


async def test_an_untouched_folder_needs_nothing(watched: Watched) -> None:
    await watched.watch.look()
    assert (watched.log.events, watched.repairs, watched.stops) == ([], [], [])


async def test_a_lock_that_was_removed_is_taken_again(watched: Watched) -> None:
    watched.lock.path.unlink()
    await watched.watch.look()
    assert "lock_removed" in watched.log.events
    with pytest.raises(DataDirInUse):
        DataDirLock(watched.folder)
    await watched.watch.look()
    assert watched.log.events == ["lock_removed"]
    watched.lock.release()
    DataDirLock(watched.folder).release()


async def test_a_second_server_on_the_same_data_makes_the_first_one_stop(watched: Watched) -> None:
    watched.lock.path.unlink()
    second = DataDirLock(watched.folder)
    await watched.watch.look()
    await watched.watch.look()
    assert watched.stops == ["stop"]
    assert "data_dir_shared" in watched.log.events
    second.release()


async def test_a_database_that_was_removed_is_written_again(watched: Watched) -> None:
    await put(watched.database, "before")
    for file in watched.folder.glob("streamforge.db*"):
        file.unlink()
    await put(watched.database, "between")
    await watched.watch.look()
    assert "database_removed" in watched.log.events
    await put(watched.database, "after")
    assert await watched.database.read(lambda tx: tx.value("SELECT count(*) FROM counters WHERE name = 'after'")) == 1
    assert {"before", "between", "after"} <= set(stored(watched.database.path))
    assert watched.stops == []


async def test_a_whole_folder_that_was_removed_is_made_again(watched: Watched) -> None:
    await put(watched.database, "before")
    shutil.rmtree(watched.folder)
    await watched.watch.look()
    assert "before" in stored(watched.database.path)
    assert (watched.folder / "files").is_dir()
    assert watched.repairs == ["their folder was removed"]
    assert watched.lock.is_in_place()


async def test_a_database_that_was_replaced_is_not_written_over(watched: Watched) -> None:
    copy = watched.folder / "copy.db"
    connection = sqlite3.connect(copy)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    os.replace(copy, watched.database.path)
    await watched.watch.look()
    assert watched.stops == ["stop"]
    connection = sqlite3.connect(watched.database.path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    connection.close()


async def test_folders_that_were_removed_are_made_again(watched: Watched) -> None:
    shutil.rmtree(watched.folder / "files")
    shutil.rmtree(watched.folder / "vectors")
    await watched.watch.look()
    assert (watched.folder / "files").is_dir()
    assert "files_removed" in watched.log.events
    assert watched.repairs == ["their folder was removed"]
