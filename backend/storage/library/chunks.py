"""Chunks and the lexical index: an FTS5 table a collection, so that a search never meets another owner's words.

`terms` are words that `chains/retrieval` has made comparable already (stems, bigrams, parts of identifiers); FTS5
splits them at blanks and scores them, no more. A row's number is the chunk's. Rows of versions that are not active
may match: `rows` leaves them out.
"""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from backend.storage.engine.database import Database

# Two columns, so that a word in a title may count otherwise than one in the text.
_CREATE = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS {} USING fts5("
    "about, body, tokenize=\"unicode61 remove_diacritics 0 categories 'L* N* Co M*'\")"
)
# Rows of one commit, about 10 ms: a longer one would hold up the answers.
_ROWS = 100


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A chunk to be stored: `text` is `[start:end]` of the version's text, `after` the white space up to the next chunk
    (None: there is none), `spans` and `vectors` as in `tables.py`, the terms are for the lexical index.
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
    """What ranking looks at in a chunk of an active version: terms (a line a sentence) and vectors."""

    n: int
    document_id: str
    about: str
    body: str
    vectors: bytes


@dataclass(frozen=True, slots=True)
class ChunkRange:
    """The chunks of a document's active version: numbers first..last."""

    collection_id: str
    document_id: str
    version_id: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as it is embedded: `text` below `title`, `heading` and `context`."""

    n: int
    title: str | None
    heading: str | None
    context: str | None
    text: str
    spans: bytes


class Chunks:
    """Chunks of all owners; what reads them takes the owner or collections that were checked before."""

    def __init__(self, database: Database) -> None:
        self._writer = database.writer
        self._reader = database.reader

    async def reserve(self, version_id: str, count: int) -> int | None:
        """Numbers for a version's `count` chunks: the first one. Again: the same. None when the version is gone."""
        return await self._writer.run(lambda conn: reserve_numbers(conn, version_id, count))

    async def add(self, collection_id: str, embedding: str, version_id: str, rows: Sequence[NewChunk]) -> bool:
        """Store chunks, their vectors by that embedding and their terms in one commit; those that are there are
        replaced. False: the version is gone.
        """
        return await self._writer.run(lambda conn: add_chunks(conn, collection_id, embedding, version_id, rows))

    async def add_vectors(self, embedding: str, rows: Sequence[tuple[int, bytes]]) -> None:
        """Vectors by another embedding: (n, vectors). Those of chunks that are gone are left out."""
        sql = "INSERT OR REPLACE INTO chunk_vectors (n, embedding, vectors) SELECT n, ?, ? FROM chunks WHERE n = ?"
        values = [(embedding, vectors, n) for n, vectors in rows]
        await self._writer.run(lambda conn: conn.executemany(sql, values) and None)

    async def remove_vectors(self, embedding: str, numbers: Sequence[int]) -> None:
        """Remove the vectors of these chunks by an embedding that nothing uses any more, a few a commit."""
        sql = "DELETE FROM chunk_vectors WHERE embedding = ? AND n IN (SELECT value FROM json_each(?))"
        for at in range(0, len(numbers), _ROWS):
            some = json.dumps(list(numbers[at : at + _ROWS]))
            await self._writer.run(lambda conn, some=some: conn.execute(sql, (embedding, some)) and None)

    async def stored(self, version_id: str) -> set[tuple[int, int, int]]:
        """Number, start and end of a version's stored chunks."""
        sql = 'SELECT n, start, "end" FROM chunks WHERE version_id = ?'
        return await self._reader.run(lambda conn: set(conn.execute(sql, (version_id,)).fetchall()))

    async def texts(self, version_id: str, after: int, limit: int) -> list[StoredChunk]:
        """A version's chunks with numbers above `after`, in order: what embedding them anew needs."""
        sql = (
            "SELECT c.n, v.title, c.heading, c.context, c.text, c.spans FROM chunks c JOIN document_versions v "
            "ON v.id = c.version_id WHERE c.version_id = ? AND c.n > ? ORDER BY c.n LIMIT ?"
        )
        found = await self._reader.run(lambda conn: conn.execute(sql, (version_id, after, limit)).fetchall())
        return [StoredChunk(*row) for row in found]

    async def remove(self, collection_id: str, version_ids: Sequence[str]) -> int:
        """Remove versions' chunks with their terms, a few a commit; how many there were."""
        removed = 0
        while count := await self._writer.run(lambda conn: _remove(conn, collection_id, version_ids)):
            removed += count
        return removed

    async def copy_terms(self, version_id: str, source: str, target: str) -> None:
        """Bring a version's terms into another collection's index too; nothing finds them there yet."""
        after: int | None = 0
        while after is not None:
            after = await self._writer.run(lambda conn, n=after: _copy_terms(conn, version_id, source, target, n))

    async def remove_terms(self, collection_id: str, numbers: Sequence[int]) -> None:
        """Remove the terms of these chunks from a collection's index, a few a commit."""
        for at in range(0, len(numbers), _ROWS):
            some = list(numbers[at : at + _ROWS])
            await self._writer.run(lambda conn, some=some: _remove_terms(conn, collection_id, some))

    async def set_about(self, collection_id: str, terms: Sequence[tuple[int, str]]) -> None:
        """Other terms of what stands above these chunks, a few a commit."""
        sql = f"UPDATE {_table(collection_id)} SET about = ? WHERE rowid = ?"
        for at in range(0, len(terms), _ROWS):
            some = [(about, n) for n, about in terms[at : at + _ROWS]]
            await self._writer.run(lambda conn, some=some: conn.executemany(sql, some) and None)

    async def match(
        self,
        collection_id: str,
        terms: Sequence[str],
        limit: int,
        ranges: Sequence[tuple[int, int]] | None = None,
        about_weight: float = 1.0,
    ) -> list[tuple[int, float]]:
        """Chunks of a collection with any of the terms: (n, BM25 score, higher is better), best first.

        `ranges` (first, last) restricts the chunks' numbers.
        """
        return await self._reader.run(lambda conn: _match(conn, collection_id, terms, limit, ranges, about_weight))

    async def candidates(
        self, owner: str, collection_id: str, within: Sequence[str], embedding: str, numbers: Sequence[int]
    ) -> list[CandidateRow]:
        """Those of a collection's chunks that are of an active version, in the owner's collections `within`:
        a document that moves among them during a search is found.
        """
        return await self._reader.run(lambda conn: _candidates(conn, owner, collection_id, within, embedding, numbers))

    async def vectors(self, embedding: str, first: int, last: int) -> list[tuple[int, bytes]]:
        """The vectors of the chunks first..last: (n, vectors)."""
        sql = "SELECT n, vectors FROM chunk_vectors WHERE n BETWEEN ? AND ? AND embedding = ?"
        return await self._reader.run(lambda conn: conn.execute(sql, (first, last, embedding)).fetchall())

    async def rows(self, numbers: Sequence[int]) -> dict[int, ChunkRow]:
        """Those of the chunks that are of an active version, by number. Whose they are, the caller has checked."""
        return await self._reader.run(lambda conn: _rows(conn, numbers))

    async def languages(self, collection_id: str) -> list[str | None]:
        """The languages of a collection's searchable documents."""
        sql = (
            "SELECT DISTINCT v.language FROM documents d JOIN document_versions v ON v.id = d.active_version "
            "WHERE d.collection_id = ?"
        )
        return await self._reader.run(lambda conn: [row[0] for row in conn.execute(sql, (collection_id,))])

    async def ranges(self, owner: str, document_ids: Sequence[str]) -> list[ChunkRange]:
        """Where the chunks of these documents are; none for a document that can't be searched yet."""
        return await self._reader.run(lambda conn: _ranges(conn, owner, document_ids))


def drop_terms(conn: sqlite3.Connection, collection_id: str) -> None:
    """Remove a collection's lexical index. For use inside the writer's operations."""
    conn.execute(f"DROP TABLE IF EXISTS {_table(collection_id)}")


def _table(collection_id: str) -> str:
    """The name of a collection's index; ids are ours, still nothing else may come into SQL."""
    if not collection_id.replace("_", "").isalnum():
        raise ValueError("not the id of a collection")
    return f"lexical_{collection_id}"


def _exists(conn: sqlite3.Connection, collection_id: str) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return conn.execute(sql, (_table(collection_id),)).fetchone() is not None


def reserve_numbers(conn: sqlite3.Connection, version_id: str, count: int) -> int | None:
    """See `Chunks.reserve`. For use inside the writer's operations."""
    row = conn.execute("SELECT first_chunk, chunks FROM document_versions WHERE id = ?", (version_id,)).fetchone()
    if row is None:
        return None
    if row[0] is not None and row[1] == count:
        return row[0]
    (after,) = conn.execute(
        "INSERT INTO counters (name, value) VALUES ('chunks', ? + 1) "
        "ON CONFLICT (name) DO UPDATE SET value = value + ? RETURNING value",
        (count, count),
    ).fetchone()
    change = "UPDATE document_versions SET first_chunk = ?, chunks = ? WHERE id = ?"
    conn.execute(change, (after - count, count, version_id))
    return after - count


def add_chunks(
    conn: sqlite3.Connection, collection_id: str, embedding: str, version_id: str, rows: Sequence[NewChunk]
) -> bool:
    """See `Chunks.add`. For use inside the writer's operations."""
    if conn.execute("SELECT 1 FROM document_versions WHERE id = ?", (version_id,)).fetchone() is None:
        return False
    table = _table(collection_id)
    conn.execute(_CREATE.format(table))
    conn.executemany(
        "INSERT OR REPLACE INTO chunks "
        '(n, version_id, ordinal, start, "end", page, heading, context, text, after, spans) '
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (r.n, version_id, r.ordinal, r.start, r.end, r.page, r.heading, r.context, r.text, r.after, r.spans)
            for r in rows
        ],
    )
    conn.executemany(
        "INSERT OR REPLACE INTO chunk_vectors (n, embedding, vectors) VALUES (?, ?, ?)",
        [(r.n, embedding, r.vectors) for r in rows],
    )
    conn.executemany(
        f"INSERT OR REPLACE INTO {table} (rowid, about, body) VALUES (?, ?, ?)",
        [(r.n, r.about_terms, r.body_terms) for r in rows],
    )
    return True


def _remove(conn: sqlite3.Connection, collection_id: str, version_ids: Sequence[str]) -> int:
    sql = "SELECT n FROM chunks WHERE version_id IN (SELECT value FROM json_each(?)) LIMIT ?"
    numbers = [n for (n,) in conn.execute(sql, (json.dumps(list(version_ids)), _ROWS))]
    _remove_terms(conn, collection_id, numbers)
    conn.execute("DELETE FROM chunks WHERE n IN (SELECT value FROM json_each(?))", (json.dumps(numbers),))
    return len(numbers)


def _remove_terms(conn: sqlite3.Connection, collection_id: str, numbers: list[int]) -> None:
    if numbers and _exists(conn, collection_id):
        sql = f"DELETE FROM {_table(collection_id)} WHERE rowid IN (SELECT value FROM json_each(?))"
        conn.execute(sql, (json.dumps(numbers),))


def _copy_terms(conn: sqlite3.Connection, version_id: str, source: str, target: str, after: int) -> int | None:
    """Copy some; the number of the last, or None when there were none left."""
    sql = "SELECT n FROM chunks WHERE version_id = ? AND n > ? ORDER BY n LIMIT ?"
    numbers = [n for (n,) in conn.execute(sql, (version_id, after, _ROWS))]
    if not numbers or not _exists(conn, source):
        return None
    conn.execute(_CREATE.format(_table(target)))
    conn.execute(
        f"INSERT OR REPLACE INTO {_table(target)} (rowid, about, body) "
        f"SELECT rowid, about, body FROM {_table(source)} WHERE rowid IN (SELECT value FROM json_each(?))",
        (json.dumps(numbers),),
    )
    return numbers[-1]


def _match(
    conn: sqlite3.Connection,
    collection_id: str,
    terms: Sequence[str],
    limit: int,
    ranges: Sequence[tuple[int, int]] | None,
    about_weight: float,
) -> list[tuple[int, float]]:
    if not terms or limit < 1 or not _exists(conn, collection_id):
        return []
    table = _table(collection_id)
    query = " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)
    found: list[tuple[int, float]] = []
    for first, last in ranges if ranges is not None else [(0, 2**62)]:
        sql = (
            f"SELECT rowid, -bm25({table}, ?, 1.0) AS score FROM {table} WHERE {table} MATCH ? "
            "AND rowid BETWEEN ? AND ? ORDER BY score DESC LIMIT ?"
        )
        found += conn.execute(sql, (about_weight, query, first, last, limit)).fetchall()
    return found if ranges is None else sorted(found, key=lambda hit: -hit[1])[:limit]


def _candidates(
    conn: sqlite3.Connection,
    owner: str,
    collection_id: str,
    within: Sequence[str],
    embedding: str,
    numbers: Sequence[int],
) -> list[CandidateRow]:
    if not numbers or not _exists(conn, collection_id):
        return []
    sql = (
        # CROSS JOIN: in this order, or SQLite begins with every chunk of the collection.
        "SELECT c.n, d.id, t.about, t.body, e.vectors FROM json_each(?) AS wanted "
        "CROSS JOIN chunks c ON c.n = wanted.value "
        "CROSS JOIN document_versions v ON v.id = c.version_id CROSS JOIN documents d ON d.id = v.document_id "
        f"CROSS JOIN {_table(collection_id)} t ON t.rowid = c.n "
        "CROSS JOIN chunk_vectors e ON e.n = c.n AND e.embedding = ? "
        "WHERE d.active_version = v.id AND d.owner = ? AND d.collection_id IN (SELECT value FROM json_each(?))"
    )
    params = (json.dumps(list(numbers)), embedding, owner, json.dumps(list(within)))
    return [CandidateRow(*row) for row in conn.execute(sql, params)]


def _rows(conn: sqlite3.Connection, numbers: Sequence[int]) -> dict[int, ChunkRow]:
    sql = (
        "SELECT c.n, c.ordinal, d.collection_id, d.id, v.id, d.name, v.title, "
        'c.start, c."end", c.page, c.heading, c.context, c.text, c.after, c.spans '
        "FROM json_each(?) AS wanted CROSS JOIN chunks c ON c.n = wanted.value "
        "CROSS JOIN document_versions v ON v.id = c.version_id CROSS JOIN documents d ON d.id = v.document_id "
        "WHERE d.active_version = v.id"
    )
    return {row[0]: ChunkRow(*row) for row in conn.execute(sql, (json.dumps(list(numbers)),))}


def _ranges(conn: sqlite3.Connection, owner: str, document_ids: Sequence[str]) -> list[ChunkRange]:
    sql = (
        "SELECT d.collection_id, d.id, v.id, v.first_chunk, v.first_chunk + v.chunks - 1 FROM json_each(?) AS wanted "
        "CROSS JOIN documents d ON d.id = wanted.value CROSS JOIN document_versions v ON v.id = d.active_version "
        "WHERE d.owner = ? AND v.chunks > 0"
    )
    return [ChunkRange(*row) for row in conn.execute(sql, (json.dumps(list(document_ids)), owner))]
