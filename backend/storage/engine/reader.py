"""Threads that read, each with its own connection. They don't wait for the writer: SQLite has a log of writes."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from backend.errors import Unavailable
from backend.storage.engine.tx import Tx
from backend.storage.engine.writer import connect_existing, storage_error

_THREADS = 2

T = TypeVar("T")


class Reader:
    """Runs functions that get a `Tx` and only read. Each thread has a connection."""

    def __init__(self, path: Path) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "storage-reader")
        self._own = threading.local()
        # Opened now: a file that is removed later can still be read, and written again.
        self._connections = [connect_existing(path) for _ in range(_THREADS)]
        self._unused = list(self._connections)
        self._closed = False

    async def run(self, fn: Callable[[Tx], T]) -> T:
        """The result of `fn`. It doesn't wait for the writer.

        Raises the errors of `fn`, and Unavailable if the database is closed or busy.
        """
        if self._closed:
            raise Unavailable("The database is closed: the server is shutting down.", code="shutdown")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, fn)

    def close(self) -> None:
        """Finish running functions and close the connections."""
        self._closed = True
        self._threads.shutdown(wait=True)
        for connection in self._connections:
            connection.close()

    def _call(self, fn: Callable[[Tx], T]) -> T:
        try:
            tx: Tx | None = getattr(self._own, "tx", None)
            if tx is None:
                tx = self._own.tx = self._open()
            return fn(tx)
        except sqlite3.Error as error:
            raise (storage_error(error) or error) from error

    def _open(self) -> Tx:
        connection = self._unused.pop()
        connection.execute("PRAGMA query_only=ON")
        return Tx(connection)
