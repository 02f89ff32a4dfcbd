"""The one way into the database: functions of a `Tx`, run by the writer or by a reader."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from backend.storage.engine.reader import Reader
from backend.storage.engine.tx import Tx
from backend.storage.engine.writer import Writer, connect
from backend.storage.migrations import SCHEMA, upgrade

SCHEMA_VERSION = "0004"

T = TypeVar("T")


class Database:
    """Brings the schema up to date when it is made, then runs functions of a `Tx`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._upgrade()
        self._writer = Writer(path)
        self._reader = Reader(path)

    def _upgrade(self) -> None:
        """Bring the schema up to date. Alembic takes a quarter of a second, so it runs only if a schema is behind."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        conn = connect(self.path)
        try:
            row = conn.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            row = None
            if conn.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                conn.executescript(SCHEMA.read_text(encoding="utf-8"))
                return
        finally:
            conn.close()
        if row is None or row[0] != SCHEMA_VERSION:
            upgrade(self.path)

    async def write(self, fn: Callable[[Tx], T]) -> T:
        """The result of `fn`, after its commit; an exception of `fn` undoes what it wrote.

        Functions run one after the other, in the order of the calls. So `write` is also for reading what must see
        everything that was written before. Raises what `fn` raises, Unavailable or StorageFull.
        """
        return await self._writer.run(fn)

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """The result of `fn`, which only reads. It doesn't wait for the writer.

        Raises what `fn` raises; Unavailable when the database is gone.
        """
        return await self._reader.run(fn)

    async def close(self) -> None:
        """Finish pending writes and close every connection."""
        self._writer.close()
        self._reader.close()
