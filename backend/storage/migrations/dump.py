"""`python -m backend.storage.migrations.dump` writes `schema.sql`: the schema that all migrations produce."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from backend.storage.migrations import SCHEMA, upgrade


def dump_migrated() -> str:
    """The SQL that creates the schema which all migrations produce, as one transaction."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        upgrade(path)
        with closing(sqlite3.connect(path)) as conn:
            return "\n".join(conn.iterdump()) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(dump_migrated(), encoding="utf-8")
