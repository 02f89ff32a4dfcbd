"""The only access to the database: functions that get a `Tx`, run by the writer or by a reader."""

import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from backend.errors import StorageFull, StreamForgeError
from backend.storage.engine.reader import Reader
from backend.storage.engine.tx import Tx
from backend.storage.engine.writer import Writer, connect, connect_alone, connect_existing, storage_error
from backend.storage.migrations import SCHEMA, upgrade

log = structlog.get_logger(__name__)

SCHEMA_VERSION = "0005"
_MAX_REWRITE_BYTES = 200_000_000

T = TypeVar("T")


class RunOperation(Protocol):
    """Runs a function that gets a `Tx`."""

    def __call__(self, fn: Callable[[Tx], T], /) -> Awaitable[T]:
        """The result of `fn`."""
        ...


class Database:
    """The open database, for `await database.write(fn)` and `await database.read(fn)`. Opening updates the schema.

    If the disk is so full that SQLite can't open the database as usual, one connection reads it until there is room.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write: RunOperation
        """Runs a function that gets a `Tx`, and commits. See `Writer.run`."""
        self.read: RunOperation
        """Runs a function that gets a `Tx` and only reads. See `Reader.run`."""
        self._reader: Reader | None = None
        self._inode: tuple[int, int] | None = None
        try:
            update_schema(path)
            self._open()
        except sqlite3.Error as error:
            if not isinstance(storage_error(error), StorageFull) and not _is_full(path):
                raise
            self._open_alone()

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be stored, because the disk is full."""
        return self._reader is None or self._writer.is_full

    @property
    def is_in_place(self) -> bool:
        """Whether the open file is still the one at the path."""
        return _inode(self.path) == self._inode

    async def try_write(self) -> bool:
        """Whether something can be stored again. Opens the database as usual if that was not possible before."""
        if self._reader is None and not await self._reopen():
            return False
        try:
            await self._writer.run(_write_something)
        except StreamForgeError:
            return False
        self._writer.is_full = False
        return True

    async def put_back(self) -> None:
        """Write the database to its path again, after its file was removed: the open file still has everything."""
        reader = self._reader
        if reader is None:
            return
        copy = self.path.with_name(f"{self.path.name}.restored")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer.close()
        try:
            await reader.run(lambda tx: _back_up(tx.connection, copy))
            for leftover in ("-wal", "-shm"):
                self.path.with_name(self.path.name + leftover).unlink(missing_ok=True)
            copy.rename(self.path)
        except Exception:
            # The writes that come now fail, and the next look tries again.
            self._writer = Writer(self.path, connect_existing)
            self.write = self._writer.run
            raise
        reader.close()
        self._open()

    async def free_pages(self) -> int:
        """The number of pages that hold nothing and can be given back; 0 for a database that can't give them back."""

        def count(tx: Tx) -> int:
            return tx.value("PRAGMA freelist_count") if tx.value("PRAGMA auto_vacuum") == 2 else 0

        return await self.read(count)

    async def give_back(self, pages: int) -> None:
        """Give this number of free pages back to the disk. Other writes wait meanwhile: a few hundred take
        milliseconds."""
        await self.write(lambda tx: tx.connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall())

    async def close(self) -> None:
        """Finish pending writes and close every connection."""
        self._writer.close()
        if self._reader is not None:
            self._reader.close()

    async def _reopen(self) -> bool:
        self._writer.close()
        try:
            connect(self.path).close()
        except sqlite3.Error:
            self._open_alone()
            return False
        self._open()
        return True

    def _open(self) -> None:
        self._writer, self._reader = Writer(self.path, connect_existing), Reader(self.path)
        self.write, self.read = self._writer.run, self._reader.run
        self._inode = _inode(self.path)

    def _open_alone(self) -> None:
        with closing(connect_alone(self.path)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            if row is None or row[0] != SCHEMA_VERSION:
                raise sqlite3.OperationalError("the disk is full, and this version must change the database first")
        self._writer, self._reader = Writer(self.path, connect_alone), None
        self.write = self.read = self._writer.run
        self._inode = _inode(self.path)


def update_schema(path: Path) -> None:
    """Create or update the schema. Alembic takes a quarter of a second, so it runs only if the schema is old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or not path.stat().st_size:
        with closing(sqlite3.connect(path)) as new:
            # Only a file without pages can change this without being rewritten.
            new.execute("PRAGMA auto_vacuum=INCREMENTAL")
            new.execute("VACUUM")
    conn = connect(path)
    try:
        row = conn.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if storage_error(error) is not None:
            raise
        row = None
        if conn.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            conn.executescript(SCHEMA.read_text(encoding="utf-8"))
            return
    finally:
        conn.close()
    _allow_giving_back(path)
    if row is None or row[0] != SCHEMA_VERSION:
        upgrade(path)


def _allow_giving_back(path: Path) -> None:
    """Rewrite a database of 0.3 or earlier once, so that it can give free pages back, if that takes only a moment."""
    with closing(sqlite3.connect(path)) as connection:
        if connection.execute("PRAGMA auto_vacuum").fetchone() != (0,):
            return
        size = path.stat().st_size
        if size > _MAX_REWRITE_BYTES or shutil.disk_usage(path.parent).free < 3 * size:
            log.info("database_keeps_free_space", bytes=size)
            return
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("VACUUM")


def _back_up(source: sqlite3.Connection, copy: Path) -> None:
    copy.unlink(missing_ok=True)
    with closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def _write_something(tx: Tx) -> None:
    """Write a page whose content stays the same."""
    tx.execute("PRAGMA user_version = 1")
    tx.execute("PRAGMA user_version = 0")


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < 100_000
    except OSError:
        return False


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
