"""Gives the space of deleted rows back to the disk."""

import sqlite3
from contextlib import closing
from pathlib import Path

WASTE_BYTES = 16_000_000
"""Free pages that a database may keep: it fills them again soon."""


def shrink(path: Path) -> bool:
    """Whether the SQLite file was made smaller, because more than a quarter of it, and some megabytes, were free. Call
    it only while nothing else has the file open. Nothing happens to a file that is damaged, or if the disk is full."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as connection:
            pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _FIGURES)
            if free * size <= WASTE_BYTES or free * 4 <= pages:
                return False
            connection.execute("VACUUM")
            return True
    except sqlite3.Error:
        return False


_FIGURES = ("page_count", "freelist_count", "page_size")
