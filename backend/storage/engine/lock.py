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
        self.path = data_dir / "streamforge.lock"
        self._lost: list[FileLock] = []
        self._lock = self._take()

    def is_in_place(self) -> bool:
        """Whether the locked file is still at its path. If not, another process may have locked the one that is."""
        return _inode(self.path) == self._inode

    def take_again(self) -> None:
        """Lock the file that is at the path now. Raises DataDirInUse if another process holds it."""
        # The lost lock is kept: releasing it could remove the new file.
        lock = self._take()
        self._lost.append(self._lock)
        self._lock = lock

    def _take(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise DataDirInUse(
                f"DATA_DIR {self.path.parent} is in use by another StreamForge process. Stop that one, or set DATA_DIR "
                "(and PORT) to run a second server."
            ) from None
        self._inode = _inode(self.path)
        return lock

    def release(self) -> None:
        """Release the lock, so that another process can take it."""
        self._lock.release()


def _inode(path: Path) -> tuple[int, int] | None:
    """What identifies the file at a path; None if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
