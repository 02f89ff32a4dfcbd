"""The one way into the database: functions of a `Tx`, run by the writer or by a reader."""

import sqlite3
from pathlib import Path

from backend.storage.engine.reader import Reader
from backend.storage.engine.writer import Writer, connect
from backend.storage.migrations import SCHEMA, upgrade

SCHEMA_VERSION = "0004"


class Database:
    """Brings the schema up to date when it is opened; then `await database.write(fn)` and `await database.read(fn)`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._upgrade()
        self._writer = Writer(path)
        self._reader = Reader(path)
        self.write = self._writer.run
        """Runs a function of a `Tx` in a commit. See `Writer.run`."""
        self.read = self._reader.run
        """Runs a function of a `Tx` that only reads. See `Reader.run`."""

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

    async def close(self) -> None:
        """Finish pending writes and close every connection."""
        self._writer.close()
        self._reader.close()
