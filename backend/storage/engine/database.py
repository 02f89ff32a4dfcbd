"""The only access to the database: functions that get a `Tx`, run by the writer or by a reader."""

import sqlite3
from pathlib import Path

from backend.storage.engine.reader import Reader
from backend.storage.engine.writer import Writer, connect
from backend.storage.migrations import SCHEMA, upgrade

SCHEMA_VERSION = "0005"


class Database:
    """The open database, for `await database.write(fn)` and `await database.read(fn)`. Opening updates the schema."""

    def __init__(self, path: Path) -> None:
        self.path = path
        update_schema(path)
        self._writer = Writer(path)
        self._reader = Reader(path)
        self.write = self._writer.run
        """Runs a function that gets a `Tx`, and commits. See `Writer.run`."""
        self.read = self._reader.run
        """Runs a function that gets a `Tx` and only reads. See `Reader.run`."""

    async def close(self) -> None:
        """Finish pending writes and close every connection."""
        self._writer.close()
        self._reader.close()


def update_schema(path: Path) -> None:
    """Create or update the schema. Alembic takes a quarter of a second, so it runs only if the schema is old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    conn = connect(path)
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
        upgrade(path)
