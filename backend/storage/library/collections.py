"""Collections: named sets of documents, each with one embedding."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from backend.errors import Conflict, NotFound
from backend.kit.ids import new_id
from backend.kit.times import now_ms
from backend.storage.engine.database import Database
from backend.storage.library.chunks import drop_terms

DEFAULT_COLLECTION = "default"
_COLUMNS = "id, owner, name, fingerprint, generation, created_at"


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """A collection; `fingerprint` is the embedding that filled it, None while it holds nothing. Times in ms."""

    id: str
    owner: str
    name: str
    fingerprint: str | None
    generation: int
    created_at: int


@dataclass(frozen=True, slots=True)
class CollectionCounts:
    """What a collection holds: documents, and the chunks of those that can be searched."""

    documents: int
    chunks: int


class Collections:
    """Collections of an owner. Somebody else's raise NotFound."""

    def __init__(self, database: Database) -> None:
        self._writer = database.writer
        self._reader = database.reader

    async def default(self, owner: str) -> CollectionRow:
        """The owner's collection for what names none; made when it isn't there."""
        sql = f"SELECT {_COLUMNS} FROM collections WHERE owner = ? AND name = ?"
        found = await self._reader.run(lambda conn: conn.execute(sql, (owner, DEFAULT_COLLECTION)).fetchone())
        return CollectionRow(*found) if found else await self._writer.run(lambda conn: _default(conn, owner))

    async def get(self, owner: str, collection_id: str) -> CollectionRow:
        """One collection. Raises NotFound."""
        sql = f"SELECT {_COLUMNS} FROM collections WHERE id = ? AND owner = ?"
        found = await self._reader.run(lambda conn: conn.execute(sql, (collection_id, owner)).fetchone())
        if found is None:
            raise NotFound("No such collection. GET /collections lists yours.")
        return CollectionRow(*found)

    async def by_owner(self, owner: str) -> list[CollectionRow]:
        """All of an owner's, by name."""
        sql = f"SELECT {_COLUMNS} FROM collections WHERE owner = ? ORDER BY name, id"
        found = await self._reader.run(lambda conn: conn.execute(sql, (owner,)).fetchall())
        return [CollectionRow(*row) for row in found]

    async def every(self) -> list[CollectionRow]:
        """All of all owners, for the sweep."""
        sql = f"SELECT {_COLUMNS} FROM collections"
        return [CollectionRow(*row) for row in await self._reader.run(lambda conn: conn.execute(sql).fetchall())]

    async def known(self, collection_id: str) -> CollectionRow | None:
        """A collection of whoever's, or None."""
        sql = f"SELECT {_COLUMNS} FROM collections WHERE id = ?"
        found = await self._reader.run(lambda conn: conn.execute(sql, (collection_id,)).fetchone())
        return CollectionRow(*found) if found else None

    async def missing(self, owner: str, ids: Sequence[str]) -> list[str]:
        """Those of the ids that are no collections of the owner's."""
        known = {row.id for row in await self.by_owner(owner)}
        return [i for i in ids if i not in known]

    async def counts(self, ids: Sequence[str]) -> list[CollectionCounts]:
        """What each of these collections holds."""
        sql = (
            "SELECT count(*), coalesce(sum(v.chunks), 0) FROM documents d "
            "LEFT JOIN document_versions v ON v.id = d.active_version WHERE d.collection_id = ? "
            "AND coalesce(d.active_version, d.pending_version) IS NOT NULL"
        )
        found = await self._reader.run(lambda conn: [conn.execute(sql, (i,)).fetchone() for i in ids])
        return [CollectionCounts(*row) for row in found]

    async def create(self, owner: str, name: str) -> CollectionRow:
        """A new, empty collection. Raises Conflict (`collection_exists`)."""
        return await self._writer.run(lambda conn: _create(conn, owner, name))

    async def rename(self, owner: str, collection_id: str, name: str) -> None:
        """Another name. Raises NotFound, Conflict (`collection_exists`)."""
        await self._writer.run(lambda conn: _rename(conn, owner, collection_id, name))

    async def remove(self, owner: str, collection_id: str) -> bool:
        """Remove a collection that holds no documents, with its lexical index. False: it does hold some."""
        return await self._writer.run(lambda conn: _remove(conn, owner, collection_id))

    async def drop_terms(self, collection_id: str) -> None:
        """Remove the lexical index of a collection that is gone."""
        await self._writer.run(lambda conn: drop_terms(conn, collection_id))


def _default(conn: sqlite3.Connection, owner: str) -> CollectionRow:
    sql = f"SELECT {_COLUMNS} FROM collections WHERE owner = ? AND name = ?"
    found = conn.execute(sql, (owner, DEFAULT_COLLECTION)).fetchone()
    return CollectionRow(*found) if found else _create(conn, owner, DEFAULT_COLLECTION)


def _create(conn: sqlite3.Connection, owner: str, name: str) -> CollectionRow:
    _check_free(conn, owner, name, None)
    made = CollectionRow(new_id("col"), owner, name, None, 1, now_ms())
    values = (made.id, owner, name, made.fingerprint, made.generation, made.created_at)
    conn.execute(f"INSERT INTO collections ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", values)
    return made


def _rename(conn: sqlite3.Connection, owner: str, collection_id: str, name: str) -> None:
    _check_free(conn, owner, name, collection_id)
    change = "UPDATE collections SET name = ? WHERE id = ? AND owner = ?"
    if conn.execute(change, (name, collection_id, owner)).rowcount == 0:
        raise NotFound("No such collection. GET /collections lists yours.")


def _check_free(conn: sqlite3.Connection, owner: str, name: str, but: str | None) -> None:
    sql = "SELECT id FROM collections WHERE owner = ? AND name = ? AND id IS NOT ?"
    if (found := conn.execute(sql, (owner, name, but)).fetchone()) is not None:
        raise Conflict(
            f"You have a collection of this name already: {found[0]}. Choose another name.",
            code="collection_exists",
            collection_id=found[0],
        )


def _remove(conn: sqlite3.Connection, owner: str, collection_id: str) -> bool:
    if conn.execute("SELECT 1 FROM documents WHERE collection_id = ?", (collection_id,)).fetchone() is not None:
        return False
    conn.execute("DELETE FROM collections WHERE id = ? AND owner = ?", (collection_id, owner))
    drop_terms(conn, collection_id)
    return True
