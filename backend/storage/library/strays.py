"""What the sweep compares: what should be in the indexes, and what lies there that nothing leads to."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx
from backend.storage.library import chunks, lexical

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
        self._db = database

    async def ranges(self, collection_id: str) -> list[Range]:
        """The chunks of a collection's active and pending versions, in order of their numbers."""
        sql = (
            "SELECT v.id, v.first_chunk, v.chunks, v.id = d.active_version FROM documents d JOIN document_versions v "
            "ON v.id IN (d.active_version, d.pending_version) WHERE d.collection_id = :id "
            "AND v.first_chunk IS NOT NULL ORDER BY v.first_chunk"
        )
        rows = await self._db.read(lambda tx: tx.rows(sql, id=collection_id))
        return [Range(v, first, count, bool(active)) for v, first, count, active in rows]

    async def counts(self, collection_id: str) -> tuple[int, int]:
        """Chunks of a collection, and rows of its lexical index: the same number, unless something went wrong."""
        return await self._db.read(lambda tx: _counts(tx, collection_id))

    async def stray_terms(self, collection_id: str) -> list[int]:
        """Rows of a collection's lexical index that are no chunks of it."""
        return await self._db.read(lambda tx: _stray_terms(tx, collection_id))

    async def without_terms(self, collection_id: str) -> list[str]:
        """Active versions of a collection some of whose chunks are in no lexical index, or aren't stored at all."""
        return await self._db.read(lambda tx: _without_terms(tx, collection_id))

    async def forget_chunks(self, version_ids: Sequence[str]) -> None:
        """Let these versions be cut and indexed anew from their text."""
        for version_id in version_ids:
            while await self._db.write(lambda tx, v=version_id: chunks.remove_some(tx, v, _ROWS)):
                pass

    async def wanted_files(self) -> set[str]:
        """The versions that have a file."""
        sql = "SELECT id FROM document_versions WHERE status != 'superseded'"
        return {i for (i,) in await self._db.read(lambda tx: tx.rows(sql))}

    async def orphan_indexes(self) -> list[str]:
        """Lexical indexes of collections that are gone: their collections' ids."""
        sql = (
            "SELECT substr(name, 9) AS collection FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL%' "
            "AND name LIKE 'lexical!_%' ESCAPE '!' AND collection NOT IN (SELECT id FROM collections)"
        )
        return [i for (i,) in await self._db.read(lambda tx: tx.rows(sql))]


def _counts(tx: Tx, collection_id: str) -> tuple[int, int]:
    sql = (
        "SELECT count(*) FROM documents d JOIN document_versions v ON v.id IN (d.active_version, d.pending_version) "
        "JOIN chunks c ON c.version_id = v.id WHERE d.collection_id = :id"
    )
    stored: int = tx.value(sql, id=collection_id)
    terms = 0
    if lexical.exists(tx, collection_id):
        terms = tx.value(f"SELECT count(*) FROM {lexical.table(collection_id)}_docsize")
    return stored, terms


def _stray_terms(tx: Tx, collection_id: str) -> list[int]:
    if not lexical.exists(tx, collection_id):
        return []
    sql = (
        f"SELECT t.id FROM {lexical.table(collection_id)}_docsize t LEFT JOIN chunks c ON c.n = t.id "
        "LEFT JOIN document_versions v ON v.id = c.version_id AND v.collection_id = :id AND v.status != 'superseded' "
        "WHERE v.id IS NULL"
    )
    return [n for (n,) in tx.rows(sql, id=collection_id)]


def _without_terms(tx: Tx, collection_id: str) -> list[str]:
    join, terms = "", "NULL"
    if lexical.exists(tx, collection_id):
        join, terms = f"LEFT JOIN {lexical.table(collection_id)}_docsize t ON t.id = c.n ", "t.id"
    sql = (
        f"SELECT v.id FROM documents d JOIN document_versions v ON v.id = d.active_version "
        f"LEFT JOIN chunks c ON c.version_id = v.id {join}WHERE d.collection_id = :id "
        f"GROUP BY v.id HAVING count({terms}) < coalesce(v.chunks, 1)"
    )
    return [v for (v,) in tx.rows(sql, id=collection_id)]
