"""The lock that allows only one process per DATA_DIR."""

from pathlib import Path

from filelock import FileLock, Timeout


class DataDirInUse(RuntimeError):
    """Another process has this DATA_DIR open."""


class DataDirLock:
    """Allows only one process per DATA_DIR: several processes could share SQLite, but not the embedded Chroma.

    Raises DataDirInUse if another process holds the lock.
    """

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(data_dir / "streamforge.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise DataDirInUse(
                f"DATA_DIR {data_dir} is in use by another StreamForge process. Stop that one, or set DATA_DIR "
                "(and PORT) to run a second server."
            ) from None

    def release(self) -> None:
        """Release the lock, so that another process can take it."""
        self._lock.release()
