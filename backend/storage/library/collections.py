"""Collections: named sets of documents, each with one embedding. Only this module writes the table collections."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.errors import Conflict, NotFound
from backend.kit.ids import new_id
from backend.kit.times import now_ms
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx
from backend.storage.library import lexical

DEFAULT_COLLECTION = "default"
_COLUMNS = "id, owner, name, fingerprint, generation, created_at"


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """A collection. `fingerprint` names the embedding of its vectors; None while it is empty. Times in ms."""

    id: str
    owner: str
    name: str
    fingerprint: str | None
    generation: int
    created_at: int


@dataclass(frozen=True, slots=True)
class CollectionCounts:
    """Numbers of a collection: its documents, and the chunks that can be searched."""

    documents: int
    chunks: int


class Collections:
    """Collections of an owner. Those of another owner raise NotFound."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def default(self, owner: str) -> CollectionRow:
        """The owner's collection for uploads that name none. It is created if it doesn't exist."""
        collection = await self._db.read(lambda tx: _by_name(tx, owner, DEFAULT_COLLECTION))
        return collection or await self._db.write(lambda tx: _default(tx, owner))

    async def get(self, owner: str, reference: str) -> CollectionRow:
        """The collection with this id or name; an id wins. Raises NotFound."""
        sql = (
            f"SELECT {_COLUMNS} FROM collections WHERE owner = :owner AND (id = :reference OR name = :reference) "
            "ORDER BY id = :reference DESC LIMIT 1"
        )
        row = await self._db.read(lambda tx: tx.one(sql, reference=reference, owner=owner))
        if row is None:
            raise NotFound("No such collection. GET /collections lists yours.")
        return CollectionRow(*row)

    async def by_owner(self, owner: str) -> list[CollectionRow]:
        """All collections of an owner, sorted by name."""
        sql = f"SELECT {_COLUMNS} FROM collections WHERE owner = :owner ORDER BY name, id"
        return await self._db.read(lambda tx: [CollectionRow(*row) for row in tx.rows(sql, owner=owner)])

    async def all_owners(self) -> list[CollectionRow]:
        """The collections of all owners."""
        sql = f"SELECT {_COLUMNS} FROM collections"
        return [CollectionRow(*row) for row in await self._db.read(lambda tx: tx.rows(sql))]

    async def find(self, collection_id: str) -> CollectionRow | None:
        """A collection of any owner; None if there is none with this id."""
        sql = f"SELECT {_COLUMNS} FROM collections WHERE id = :id"
        row = await self._db.read(lambda tx: tx.one(sql, id=collection_id))
        return CollectionRow(*row) if row else None

    async def ids(self, owner: str) -> dict[str, str]:
        """The ids of the owner's collections, by id and by name; an id wins over the same name."""
        rows = await self.by_owner(owner)
        return {row.name: row.id for row in rows} | {row.id: row.id for row in rows}

    async def counts(self, ids: Sequence[str]) -> list[CollectionCounts]:
        """The numbers of these collections, in the same order."""
        sql = (
            "SELECT count(*), coalesce(sum(v.chunks), 0) FROM documents d "
            "LEFT JOIN document_versions v ON v.id = d.active_version WHERE d.collection_id = :id "
            "AND coalesce(d.active_version, d.pending_version) IS NOT NULL"
        )
        rows = await self._db.read(lambda tx: [tx.rows(sql, id=i)[0] for i in ids])
        return [CollectionCounts(*row) for row in rows]

    async def create(self, owner: str, name: str) -> CollectionRow:
        """A new, empty collection. Raises Conflict (`collection_exists`)."""
        return await self._db.write(lambda tx: _create(tx, owner, name))

    async def rename(self, owner: str, collection_id: str, name: str) -> None:
        """Change the name. Raises NotFound, Conflict (`collection_exists`)."""
        await self._db.write(lambda tx: _rename(tx, owner, collection_id, name))

    async def remove(self, owner: str, collection_id: str) -> bool:
        """Remove an empty collection with its lexical index. False: the collection has documents."""
        return await self._db.write(lambda tx: _remove(tx, owner, collection_id))

    async def drop_terms(self, collection_id: str) -> None:
        """Remove the lexical index of a collection that is gone."""
        await self._db.write(lambda tx: lexical.drop(tx, collection_id))


def _by_name(tx: Tx, owner: str, name: str) -> CollectionRow | None:
    sql = f"SELECT {_COLUMNS} FROM collections WHERE owner = :owner AND name = :name"
    row = tx.one(sql, owner=owner, name=name)
    return CollectionRow(*row) if row else None


def _default(tx: Tx, owner: str) -> CollectionRow:
    return _by_name(tx, owner, DEFAULT_COLLECTION) or _create(tx, owner, DEFAULT_COLLECTION)


def _create(tx: Tx, owner: str, name: str) -> CollectionRow:
    _check_name_is_free(tx, owner, name, None)
    collection = CollectionRow(new_id("col"), owner, name, None, 1, now_ms())
    tx.execute(
        f"INSERT INTO collections ({_COLUMNS}) VALUES (:id, :owner, :name, :fingerprint, :generation, :created_at)",
        id=collection.id,
        owner=owner,
        name=name,
        fingerprint=collection.fingerprint,
        generation=collection.generation,
        created_at=collection.created_at,
    )
    return collection


def _rename(tx: Tx, owner: str, collection_id: str, name: str) -> None:
    _check_name_is_free(tx, owner, name, collection_id)
    sql = "UPDATE collections SET name = :name WHERE id = :id AND owner = :owner"
    if tx.count_changes(sql, name=name, id=collection_id, owner=owner) == 0:
        raise NotFound("No such collection. GET /collections lists yours.")


def _check_name_is_free(tx: Tx, owner: str, name: str, own_id: str | None) -> None:
    sql = "SELECT id FROM collections WHERE owner = :owner AND name = :name AND id IS NOT :own_id"
    if (other := tx.value(sql, owner=owner, name=name, own_id=own_id)) is not None:
        raise Conflict(
            f"You have a collection of this name already: {other}. Choose another name.",
            code="collection_exists",
            collection_id=other,
        )


def _remove(tx: Tx, owner: str, collection_id: str) -> bool:
    if tx.one("SELECT 1 FROM documents WHERE collection_id = :id", id=collection_id) is not None:
        return False
    tx.execute("DELETE FROM collections WHERE id = :id AND owner = :owner", id=collection_id, owner=owner)
    lexical.drop(tx, collection_id)
    return True


# Parts of a caller's commit.


def set_first_fingerprint(tx: Tx, collection_id: str, fingerprint: str) -> None:
    """Store the embedding of the collection, unless it has one already."""
    sql = "UPDATE collections SET fingerprint = :fingerprint WHERE id = :id AND fingerprint IS NULL"
    tx.execute(sql, fingerprint=fingerprint, id=collection_id)


def set_generation(tx: Tx, collection_id: str, generation: int, fingerprint: str) -> None:
    """Make searches use another generation of the collection's embedding."""
    sql = "UPDATE collections SET generation = :generation, fingerprint = :fingerprint WHERE id = :id"
    tx.execute(sql, generation=generation, fingerprint=fingerprint, id=collection_id)
