"""What the sweep compares: what should be in the indexes, and what lies there that nothing leads to."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from backend.storage.engine.database import Database

_ROWS = 200


@dataclass(frozen=True, slots=True)
class Range:
    """Chunks of a version that is wanted. `active`: all of them should have vectors; else some may."""

    version_id: str
    first: int
    chunks: int
    active: bool

    @property
    def numbers(self) -> range:
        """The numbers of its chunks."""
        return range(self.first, self.first + self.chunks)


class Remains:
    """Reads and clears what a crash may leave between the database and its indexes."""

    def __init__(self, database: Database) -> None:
        self._writer = database.writer
        self._reader = database.reader

    async def ranges(self, collection_id: str) -> list[Range]:
        """The chunks of a collection's active and pending versions, in order of their numbers."""
        sql = (
            "SELECT v.id, v.first_chunk, v.chunks, v.id = d.active_version FROM documents d JOIN document_versions v "
            "ON v.id IN (d.active_version, d.pending_version) WHERE d.collection_id = ? AND v.first_chunk IS NOT NULL "
            "ORDER BY v.first_chunk"
        )
        found = await self._reader.run(lambda conn: conn.execute(sql, (collection_id,)).fetchall())
        return [Range(v, first, chunks, bool(active)) for v, first, chunks, active in found]

    async def counts(self, collection_id: str) -> tuple[int, int]:
        """Chunks of a collection, and rows of its lexical index: the same number, unless something went wrong."""
        return await self._reader.run(lambda conn: _counts(conn, collection_id))

    async def stray_terms(self, collection_id: str) -> list[int]:
        """Rows of a collection's lexical index that are no chunks of it."""
        return await self._reader.run(lambda conn: _stray_terms(conn, collection_id))

    async def without_terms(self, collection_id: str) -> list[str]:
        """Active versions of a collection some of whose chunks are in no lexical index, or aren't stored at all."""
        return await self._reader.run(lambda conn: _without_terms(conn, collection_id))

    async def forget_chunks(self, version_ids: Sequence[str]) -> None:
        """Let these versions be cut and indexed anew from their text."""
        sql = "DELETE FROM chunks WHERE n IN (SELECT n FROM chunks WHERE version_id = ? LIMIT ?)"
        for version_id in version_ids:
            while await self._writer.run(lambda conn, v=version_id: conn.execute(sql, (v, _ROWS)).rowcount):
                pass

    async def wanted_files(self) -> set[str]:
        """The versions that have a file."""
        sql = "SELECT id FROM document_versions WHERE status != 'superseded'"
        return await self._reader.run(lambda conn: {i for (i,) in conn.execute(sql)})

    async def orphan_indexes(self) -> list[str]:
        """Lexical indexes of collections that are gone: their collections' ids."""
        sql = (
            "SELECT substr(name, 9) AS collection FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL%' "
            "AND name LIKE 'lexical!_%' ESCAPE '!' AND collection NOT IN (SELECT id FROM collections)"
        )
        return await self._reader.run(lambda conn: [i for (i,) in conn.execute(sql)])


def _counts(conn: sqlite3.Connection, collection_id: str) -> tuple[int, int]:
    sql = (
        "SELECT count(*) FROM documents d JOIN document_versions v ON v.id IN (d.active_version, d.pending_version) "
        "JOIN chunks c ON c.version_id = v.id WHERE d.collection_id = ?"
    )
    (chunks,) = conn.execute(sql, (collection_id,)).fetchone()
    terms = 0
    if _indexed(conn, collection_id):
        (terms,) = conn.execute(f"SELECT count(*) FROM lexical_{collection_id}_docsize").fetchone()
    return chunks, terms


def _stray_terms(conn: sqlite3.Connection, collection_id: str) -> list[int]:
    if not _indexed(conn, collection_id):
        return []
    sql = (
        f"SELECT t.id FROM lexical_{collection_id}_docsize t LEFT JOIN chunks c ON c.n = t.id "
        "LEFT JOIN document_versions v ON v.id = c.version_id AND v.collection_id = ? AND v.status != 'superseded' "
        "WHERE v.id IS NULL"
    )
    return [n for (n,) in conn.execute(sql, (collection_id,))]


def _without_terms(conn: sqlite3.Connection, collection_id: str) -> list[str]:
    join = terms = ""
    if _indexed(conn, collection_id):
        join = f"LEFT JOIN lexical_{collection_id}_docsize t ON t.id = c.n "
        terms = "t.id"
    sql = (
        f"SELECT v.id FROM documents d JOIN document_versions v ON v.id = d.active_version "
        f"LEFT JOIN chunks c ON c.version_id = v.id {join}WHERE d.collection_id = ? "
        f"GROUP BY v.id HAVING count({terms or 'NULL'}) < coalesce(v.chunks, 1)"
    )
    return [v for (v,) in conn.execute(sql, (collection_id,))]


def _indexed(conn: sqlite3.Connection, collection_id: str) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE name = ?"
    return conn.execute(sql, (f"lexical_{collection_id}",)).fetchone() is not None
