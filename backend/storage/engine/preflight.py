"""What is checked before the server starts: whether DATA_DIR and the database can be used."""

import sqlite3
from pathlib import Path

from backend.storage.engine.database import SCHEMA_VERSION
from backend.storage.engine.writer import connect


class StorageRefused(RuntimeError):
    """The data can't be used by this version or this process. The message is one line."""


def check_storage(data_dir: Path, database: Path) -> None:
    """Check folders and database; a database that doesn't exist yet is fine. Raises StorageRefused."""
    try:
        for folder in (data_dir / "files", data_dir / "vectors", database.parent):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageRefused(f"DATA_DIR: {error.filename} can't be made or written ({error.strerror})") from None
    if not database.exists():
        return
    try:
        version = _version_of(database)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return  # Reading still works.
        raise StorageRefused(
            f"the database {database} can't be opened ({error}). Restore it from a backup, or set DATA_DIR."
        ) from None
    if version is not None and version > SCHEMA_VERSION:
        raise StorageRefused(
            f"the database {database} is of a newer version of StreamForge (schema {version}; this version knows "
            f"{SCHEMA_VERSION}). Start the newer version, or restore a backup."
        )


def _version_of(path: Path) -> str | None:
    """The version of the database's schema; None if it has none."""
    conn = connect(path)
    try:
        if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        row = conn.execute("SELECT version_num FROM alembic_version").fetchone()
        return row[0] if row else None
    finally:
        conn.close()
