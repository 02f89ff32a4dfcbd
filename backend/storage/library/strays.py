"""Queries for the sweep: what should be in the indexes, and strays, the entries that belong to nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx
from backend.storage.library import chunks, lexical

_ROWS = 200


@dataclass(frozen=True, slots=True)
class Range:
    """The chunks of an active or pending version. If it is active, all of its chunks should have vectors."""

    version_id: str
    first: int
    chunks: int
    active: bool

    @property
    def numbers(self) -> range:
        """The numbers of the version's chunks."""
        return range(self.first, self.first + self.chunks)


class Strays:
    """Finds the differences that a crash may leave between the database and its indexes."""

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
        """The numbers of a collection's chunks and of its rows in the lexical index. They differ only after a crash."""
        return await self._db.read(lambda tx: _counts(tx, collection_id))

    async def stray_terms(self, collection_id: str) -> list[int]:
        """The rows of a collection's lexical index without a chunk in the collection."""
        return await self._db.read(lambda tx: _stray_terms(tx, collection_id))

    async def without_terms(self, collection_id: str) -> list[str]:
        """The active versions of a collection with chunks that are missing in the lexical index or in the database."""
        return await self._db.read(lambda tx: _without_terms(tx, collection_id))

    async def remove_chunks(self, version_ids: Sequence[str]) -> None:
        """Remove the chunks of these versions, so that their texts are split and indexed again."""
        for version_id in version_ids:
            while await self._db.write(lambda tx, v=version_id: chunks.remove_some(tx, v, _ROWS)):
                pass

    async def versions_with_file(self) -> set[str]:
        """The ids of the versions that have a file."""
        sql = "SELECT id FROM document_versions WHERE status != 'superseded'"
        return {i for (i,) in await self._db.read(lambda tx: tx.rows(sql))}

    async def orphan_indexes(self) -> list[str]:
        """The ids of collections that are gone but still have a lexical index."""
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
