"""Opening the database: lock, schema, connections for ordinary queries."""

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from backend.storage.engine.reader import Reader
from backend.storage.engine.writer import Writer, apply_pragmas, connect, storage_error
from backend.storage.migrations import SCHEMA, upgrade

SCHEMA_VERSION = "0003"


class Database:
    """`read()` and `write()` give SQLAlchemy connections; `writer` and `reader` are the quick lanes of plain SQL."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._upgrade()
        self.writer = Writer(path)
        self.reader = Reader(path)
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=4, max_overflow=4)
        event.listen(self._engine.sync_engine, "connect", _on_connect)
        event.listen(self._engine.sync_engine, "begin", _on_begin)

    def _upgrade(self) -> None:
        """Bring the schema up to date. Alembic takes a quarter of a second, so it runs only if a schema is behind."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        conn = connect(self.path)
        try:
            found = conn.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            found = None
            if conn.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                conn.executescript(SCHEMA.read_text(encoding="utf-8"))
                return
        finally:
            conn.close()
        if found is None or found[0] != SCHEMA_VERSION:
            upgrade(self.path)

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        """A connection for reading. Raises Unavailable when the database is gone."""
        try:
            async with self._engine.connect() as conn:
                yield conn
        except DBAPIError as error:
            raise (_storage_error(error) or error) from error

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        """A unit of work: commits at the end, rolls back on an exception. Raises Unavailable or StorageFull."""
        try:
            async with self._engine.connect() as conn:
                conn = await conn.execution_options(streamforge_write=True)
                async with conn.begin():
                    yield conn
        except DBAPIError as error:
            raise (_storage_error(error) or error) from error

    async def close(self) -> None:
        """Finish pending writes and close every connection."""
        self.writer.close()
        self.reader.close()
        await self._engine.dispose()


def _storage_error(error: DBAPIError) -> Exception | None:
    return storage_error(error.orig) if isinstance(error.orig, Exception) else None


def _on_connect(dbapi_connection: Any, _record: Any) -> None:
    # Transactions are begun below: the driver's own deferred BEGIN fails with "locked" when a reader turns writer.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    apply_pragmas(cursor)
    cursor.close()


def _on_begin(conn: Any) -> None:
    write = conn.get_execution_options().get("streamforge_write", False)
    conn.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
