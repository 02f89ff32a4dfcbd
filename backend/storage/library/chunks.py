"""Chunks with their text, vectors and terms. Only this module writes the tables chunks, chunk_vectors and counters."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx
from backend.storage.library import document_rows, lexical

# Rows of one commit. It takes about 10 ms; a longer commit would delay answers.
_ROWS = 100


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A chunk to store. `text` is `[start:end]` of the version's text; `after` is the white space before the next
    chunk, None for the last chunk. `spans` and `vectors` are as in `tables/library.py`. The terms go into the lexical
    index.
    """

    n: int
    ordinal: int
    start: int
    end: int
    page: int | None
    heading: str | None
    context: str | None
    text: str
    after: str | None
    spans: bytes
    vectors: bytes
    about_terms: str
    body_terms: str


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A chunk of an active version."""

    n: int
    ordinal: int
    collection_id: str
    document_id: str
    version_id: str
    name: str
    title: str | None
    start: int
    end: int
    page: int | None
    heading: str | None
    context: str | None
    text: str
    after: str | None
    spans: bytes


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """The data for ranking a chunk of an active version: terms (one line per sentence) and vectors."""

    n: int
    document_id: str
    about: str
    body: str
    vectors: bytes


@dataclass(frozen=True, slots=True)
class ChunkRange:
    """The chunks of a document's active version: the numbers from `first` to `last`, both included."""

    collection_id: str
    document_id: str
    version_id: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """The data for embedding a chunk: its `text` is embedded together with `title`, `heading` and `context`."""

    n: int
    title: str | None
    heading: str | None
    context: str | None
    text: str
    spans: bytes


class Chunks:
    """Chunks of all owners. Callers pass an owner, or ids that they have checked to belong to the owner."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def reserve(self, version_id: str, count: int) -> int | None:
        """The first of `count` numbers for a version's chunks. A second call returns the same number. None: the
        version is gone.
        """
        return await self._db.write(lambda tx: reserve_numbers(tx, version_id, count))

    async def add(self, collection_id: str, embedding: str, version_id: str, rows: Sequence[NewChunk]) -> bool:
        """Store chunks, their vectors of this embedding, and their terms, in one commit. Existing chunks are replaced.
        False: the version is gone.
        """
        return await self._db.write(lambda tx: add_chunks(tx, collection_id, embedding, version_id, rows))

    async def add_vectors(self, embedding: str, rows: Sequence[tuple[int, bytes]]) -> None:
        """Store vectors of another embedding, as (n, vectors). Vectors of chunks that are gone are left out."""
        sql = (
            "INSERT OR REPLACE INTO chunk_vectors (n, embedding, vectors) "
            "SELECT n, :embedding, :vectors FROM chunks WHERE n = :n"
        )
        values = [{"embedding": embedding, "vectors": vectors, "n": n} for n, vectors in rows]
        await self._db.write(lambda tx: tx.execute_many(sql, values))

    async def remove_vectors(self, embedding: str, numbers: Sequence[int]) -> None:
        """Remove these chunks' vectors of an embedding that is not used any more. Each commit removes a few."""
        sql = "DELETE FROM chunk_vectors WHERE embedding = :embedding AND n IN :numbers"
        for at in range(0, len(numbers), _ROWS):
            batch = numbers[at : at + _ROWS]
            await self._db.write(lambda tx, batch=batch: tx.execute(sql, embedding=embedding, numbers=batch))

    async def stored(self, version_id: str) -> set[tuple[int, int, int]]:
        """Number, start and end of a version's stored chunks."""
        sql = 'SELECT n, start, "end" FROM chunks WHERE version_id = :version_id'
        rows = await self._db.read(lambda tx: tx.rows(sql, version_id=version_id))
        return {(n, start, end) for n, start, end in rows}

    async def texts(self, version_id: str, after: int, limit: int) -> list[StoredChunk]:
        """A version's chunks with numbers above `after`, in order, with the data for embedding them again."""
        sql = (
            "SELECT c.n, v.title, c.heading, c.context, c.text, c.spans FROM chunks c JOIN document_versions v "
            "ON v.id = c.version_id WHERE c.version_id = :version_id AND c.n > :after ORDER BY c.n LIMIT :limit"
        )
        rows = await self._db.read(lambda tx: tx.rows(sql, version_id=version_id, after=after, limit=limit))
        return [StoredChunk(*row) for row in rows]

    async def remove(self, collection_id: str, version_ids: Sequence[str]) -> int:
        """The number of removed chunks. Removes the versions' chunks with their terms; each commit removes a few."""
        removed = 0
        while count := await self._db.write(lambda tx: _remove(tx, collection_id, version_ids)):
            removed += count
        return removed

    async def copy_terms(self, version_id: str, source: str, target: str) -> None:
        """Copy a version's terms into the index of another collection. Searches there don't find the version yet."""
        after: int | None = 0
        while after is not None:
            after = await self._db.write(lambda tx, n=after: _copy_terms(tx, version_id, source, target, n))

    async def remove_terms(self, collection_id: str, numbers: Sequence[int]) -> None:
        """Remove the terms of these chunks from a collection's index. Each commit removes a few."""
        for at in range(0, len(numbers), _ROWS):
            batch = numbers[at : at + _ROWS]
            await self._db.write(lambda tx, batch=batch: lexical.remove(tx, collection_id, batch))

    async def set_about(self, collection_id: str, terms: Sequence[tuple[int, str]]) -> None:
        """Replace the terms of the chunks' titles and headings, given as (n, terms). Each commit replaces a few."""
        for at in range(0, len(terms), _ROWS):
            batch = terms[at : at + _ROWS]
            await self._db.write(lambda tx, batch=batch: lexical.set_about(tx, collection_id, batch))

    async def match(
        self,
        collection_id: str,
        terms: Sequence[str],
        limit: int,
        ranges: Sequence[tuple[int, int]] | None = None,
        about_weight: float = 1.0,
    ) -> list[tuple[int, float]]:
        """The chunks of a collection with any of the terms, as (n, BM25 score), best (highest) first.

        `ranges` limits the chunks to these numbers, as (first, last).
        """
        return await self._db.read(lambda tx: lexical.match(tx, collection_id, terms, limit, ranges, about_weight))

    async def candidates(
        self, owner: str, collection_id: str, within: Sequence[str], embedding: str, numbers: Sequence[int]
    ) -> list[CandidateRow]:
        """The chunks with these numbers, without those of versions that are not active. `collection_id` names the
        lexical index. A document must be in one of the owner's collections `within`, so a document that moves between
        them during a search is found.
        """
        return await self._db.read(lambda tx: _candidates(tx, owner, collection_id, within, embedding, numbers))

    async def vectors(self, embedding: str, first: int, last: int) -> list[tuple[int, bytes]]:
        """The vectors of the chunks from `first` to `last`, as (n, vectors)."""
        sql = "SELECT n, vectors FROM chunk_vectors WHERE n BETWEEN :first AND :last AND embedding = :embedding"
        rows = await self._db.read(lambda tx: tx.rows(sql, first=first, last=last, embedding=embedding))
        return [(n, vectors) for n, vectors in rows]

    async def rows(self, numbers: Sequence[int]) -> dict[int, ChunkRow]:
        """The chunks with these numbers, by number, without those of versions that are not active. The caller has
        checked the owner.
        """
        return await self._db.read(lambda tx: _rows(tx, numbers))

    async def languages(self, collection_id: str) -> list[str | None]:
        """The languages of a collection's searchable documents."""
        sql = (
            "SELECT DISTINCT v.language FROM documents d JOIN document_versions v ON v.id = d.active_version "
            "WHERE d.collection_id = :collection_id"
        )
        return [row[0] for row in await self._db.read(lambda tx: tx.rows(sql, collection_id=collection_id))]

    async def ranges(self, owner: str, document_ids: Sequence[str]) -> list[ChunkRange]:
        """The ranges of these documents' chunks. Documents that can't be searched yet are left out."""
        return await self._db.read(lambda tx: _ranges(tx, owner, document_ids))


# Parts of a caller's commit.


def reserve_numbers(tx: Tx, version_id: str, count: int) -> int | None:
    """The first of `count` numbers for a version's chunks. A second call returns the same number. None: the version is
    gone.
    """
    row = tx.one("SELECT first_chunk, chunks FROM document_versions WHERE id = :id", id=version_id)
    if row is None:
        return None
    if row[0] is not None and row[1] == count:
        return row[0]
    after: int = tx.value(
        "INSERT INTO counters (name, value) VALUES ('chunks', :count + 1) "
        "ON CONFLICT (name) DO UPDATE SET value = value + :count RETURNING value",
        count=count,
    )
    document_rows.set_chunk_numbers(tx, version_id, after - count, count)
    return after - count


def add_chunks(tx: Tx, collection_id: str, embedding: str, version_id: str, rows: Sequence[NewChunk]) -> bool:
    """Store chunks, their vectors of this embedding, and their terms. Existing chunks are replaced. False: the version
    is gone.
    """
    if tx.one("SELECT 1 FROM document_versions WHERE id = :id", id=version_id) is None:
        return False
    tx.execute_many(
        "INSERT OR REPLACE INTO chunks "
        '(n, version_id, ordinal, start, "end", page, heading, context, text, after, spans) '
        "VALUES (:n, :version_id, :ordinal, :start, :end, :page, :heading, :context, :text, :after, :spans)",
        [
            {
                "n": r.n,
                "version_id": version_id,
                "ordinal": r.ordinal,
                "start": r.start,
                "end": r.end,
                "page": r.page,
                "heading": r.heading,
                "context": r.context,
                "text": r.text,
                "after": r.after,
                "spans": r.spans,
            }
            for r in rows
        ],
    )
    tx.execute_many(
        "INSERT OR REPLACE INTO chunk_vectors (n, embedding, vectors) VALUES (:n, :embedding, :vectors)",
        [{"n": r.n, "embedding": embedding, "vectors": r.vectors} for r in rows],
    )
    lexical.put(tx, collection_id, [(r.n, r.about_terms, r.body_terms) for r in rows])
    return True


def remove_some(tx: Tx, version_id: str, limit: int) -> int:
    """The number of removed chunks. Removes at most `limit` chunks of a version, but not their terms."""
    sql = "DELETE FROM chunks WHERE n IN (SELECT n FROM chunks WHERE version_id = :version_id LIMIT :limit)"
    return tx.count_changes(sql, version_id=version_id, limit=limit)


def _remove(tx: Tx, collection_id: str, version_ids: Sequence[str]) -> int:
    sql = "SELECT n FROM chunks WHERE version_id IN :version_ids LIMIT :limit"
    numbers = [n for (n,) in tx.rows(sql, version_ids=version_ids, limit=_ROWS)]
    lexical.remove(tx, collection_id, numbers)
    tx.execute("DELETE FROM chunks WHERE n IN :numbers", numbers=numbers)
    return len(numbers)


def _copy_terms(tx: Tx, version_id: str, source: str, target: str, after: int) -> int | None:
    """The number of the last chunk whose terms were copied; None if none was left."""
    sql = "SELECT n FROM chunks WHERE version_id = :version_id AND n > :after ORDER BY n LIMIT :limit"
    numbers = [n for (n,) in tx.rows(sql, version_id=version_id, after=after, limit=_ROWS)]
    if not numbers or not lexical.exists(tx, source):
        return None
    lexical.copy(tx, numbers, source, target)
    return numbers[-1]


def _candidates(
    tx: Tx, owner: str, collection_id: str, within: Sequence[str], embedding: str, numbers: Sequence[int]
) -> list[CandidateRow]:
    if not numbers or not lexical.exists(tx, collection_id):
        return []
    sql = (
        # CROSS JOIN makes SQLite join in this order; otherwise it begins with every chunk of the collection.
        "SELECT c.n, d.id, t.about, t.body, e.vectors FROM chunks c "
        "CROSS JOIN document_versions v ON v.id = c.version_id CROSS JOIN documents d ON d.id = v.document_id "
        f"CROSS JOIN {lexical.table(collection_id)} t ON t.rowid = c.n "
        "CROSS JOIN chunk_vectors e ON e.n = c.n AND e.embedding = :embedding "
        "WHERE c.n IN :numbers AND d.active_version = v.id AND d.owner = :owner AND d.collection_id IN :within"
    )
    rows = tx.rows(sql, embedding=embedding, numbers=numbers, owner=owner, within=within)
    by_number = {row[0]: CandidateRow(*row) for row in rows}
    return [by_number[n] for n in numbers if n in by_number]


def _rows(tx: Tx, numbers: Sequence[int]) -> dict[int, ChunkRow]:
    sql = (
        "SELECT c.n, c.ordinal, d.collection_id, d.id, v.id, d.name, v.title, "
        'c.start, c."end", c.page, c.heading, c.context, c.text, c.after, c.spans FROM chunks c '
        "CROSS JOIN document_versions v ON v.id = c.version_id CROSS JOIN documents d ON d.id = v.document_id "
        "WHERE c.n IN :numbers AND d.active_version = v.id"
    )
    by_number = {row[0]: ChunkRow(*row) for row in tx.rows(sql, numbers=numbers)}
    return {n: by_number[n] for n in numbers if n in by_number}


def _ranges(tx: Tx, owner: str, document_ids: Sequence[str]) -> list[ChunkRange]:
    sql = (
        "SELECT d.collection_id, d.id, v.id, v.first_chunk, v.first_chunk + v.chunks - 1 FROM documents d "
        "CROSS JOIN document_versions v ON v.id = d.active_version "
        "WHERE d.id IN :ids AND d.owner = :owner AND v.chunks > 0"
    )
    by_id = {row[1]: ChunkRange(*row) for row in tx.rows(sql, ids=document_ids, owner=owner)}
    return [by_id[i] for i in document_ids if i in by_id]
