"""Watches DATA_DIR: whether its lock, database and folders are still there, and whether its disk has room again."""

import signal
from collections.abc import Callable
from pathlib import Path

import structlog

from backend.storage.engine.database import Database
from backend.storage.engine.lock import DataDirInUse, DataDirLock

log = structlog.get_logger("streamforge")


def stop_server() -> None:
    """Stop this process as if it had got SIGTERM."""
    signal.raise_signal(signal.SIGTERM)


class DataWatch:
    """Looks after what other programs may do to DATA_DIR while the server runs.

    `is_loaded` says whether the vectors were opened, `repair_vectors` rebuilds them, and `stop` stops the server.
    """

    def __init__(
        self,
        database: Database,
        lock: DataDirLock,
        data_dir: Path,
        is_loaded: Callable[[], bool],
        repair_vectors: Callable[[str], None],
        stop: Callable[[], None] = stop_server,
    ) -> None:
        self._database = database
        self._lock = lock
        self._data_dir = data_dir
        self._is_loaded = is_loaded
        self._repair_vectors = repair_vectors
        self._stop = stop
        self._is_stopping = self._was_read_only = False

    async def look(self) -> None:
        """Look once; repair what can be repaired."""
        if self._is_stopping:
            return
        self._check_lock()
        await self._check_database()
        self._check_files()
        self._check_vectors()
        await self._check_room()

    def _check_lock(self) -> None:
        if self._lock.is_in_place():
            return
        try:
            self._lock.take_again()
            log.error("lock_removed", file=str(self._lock.path), action="it was locked again; leave the file alone")
        except DataDirInUse:
            self._give_up("data_dir_shared", "another server uses this DATA_DIR, because the lock file was removed")

    async def _check_database(self) -> None:
        if self._is_stopping or self._database.is_in_place:
            return
        if self._database.path.exists():
            self._give_up("database_replaced", "another file took the database's place while the server was running")
            return
        await self._database.put_back()
        log.error(
            "database_removed",
            file=str(self._database.path),
            action="written again from the open file; stop the server before you delete its data",
        )

    def _check_files(self) -> None:
        folder = self._data_dir / "files"
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            log.error(
                "files_removed",
                folder=str(folder),
                action="uploads work again; originals of earlier documents are lost, their texts are kept",
            )

    def _check_vectors(self) -> None:
        if self._is_loaded() and not (self._data_dir / "vectors").is_dir():
            self._repair_vectors("their folder was removed")

    async def _check_room(self) -> None:
        if self._database.is_read_only and not await self._database.try_write():
            if not self._was_read_only:
                log.error(
                    "read_only",
                    folder=str(self._data_dir),
                    problem="the disk is full: what is stored can be read, nothing can be stored; free some space",
                )
            self._was_read_only = True
        elif self._was_read_only:
            self._was_read_only = False
            log.info("writable", folder=str(self._data_dir))

    def _give_up(self, event: str, problem: str) -> None:
        """Stop the server: what it stores from now on would be lost, or would damage what another one stores."""
        self._is_stopping = True
        log.error(event, problem=problem, action="this server stops")
        self._stop()
