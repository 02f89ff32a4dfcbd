"""Threads that read for the search: plain SQL on connections of their own, beside the writer, never waiting for it.

A search reads some hundred rows by key; through an async ORM that costs more than the search itself.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from backend.errors import Unavailable
from backend.storage.engine.writer import connect, storage_error

_THREADS = 2

T = TypeVar("T")


class Reader:
    """Runs functions of a `sqlite3.Connection` that only read. Connections open with their first use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(_THREADS, "storage-reader")
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False

    async def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `fn`. Raises what `fn` raises; Unavailable when the database is gone."""
        if self._closed:
            raise Unavailable("The database is closed: the server is shutting down.", code="shutdown")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, fn)

    def close(self) -> None:
        """Finish what is under way and close the connections."""
        self._closed = True
        self._threads.shutdown(wait=True)
        for connection in self._connections:
            connection.close()

    def _call(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
            if connection is None:
                connection = self._own.connection = connect(self._path)
                self._connections.append(connection)
            return fn(connection)
        except sqlite3.Error as error:
            raise (storage_error(error) or error) from error
