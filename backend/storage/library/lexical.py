"""The lexical index: one FTS5 table per collection, so that a search never sees the words of another owner.

`terms` are normalised words from `chains/retrieval` (stems, bigrams, parts of identifiers). FTS5 only splits them at
blanks and scores them. The rowid is the number of the chunk. Rows of versions that are not active may match;
`Chunks.rows` leaves them out.

Every function is a part of its caller's commit.
"""

from collections.abc import Iterable, Sequence

from backend.storage.engine.tx import Tx

# Two columns, so that a word in a title or heading can have another weight than a word in the text.
_CREATE = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS {} USING fts5("
    "about, body, tokenize=\"unicode61 remove_diacritics 0 categories 'L* N* Co M*'\")"
)


def table(collection_id: str) -> str:
    """The name of a collection's index. Raises ValueError for other text than an id, because the name goes into SQL."""
    if not collection_id.replace("_", "").isalnum():
        raise ValueError("not the id of a collection")
    return f"lexical_{collection_id}"


def exists(tx: Tx, collection_id: str) -> bool:
    """Whether the collection has an index. It has none before its first chunk."""
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name"
    return tx.one(sql, name=table(collection_id)) is not None


def drop(tx: Tx, collection_id: str) -> None:
    """Remove a collection's index."""
    tx.execute(f"DROP TABLE IF EXISTS {table(collection_id)}")


def put(tx: Tx, collection_id: str, rows: Iterable[tuple[int, str, str]]) -> None:
    """Store terms as (n, terms of title and headings, terms of the text). Existing rows are replaced."""
    tx.execute(_CREATE.format(table(collection_id)))
    tx.execute_many(
        f"INSERT OR REPLACE INTO {table(collection_id)} (rowid, about, body) VALUES (:n, :about, :body)",
        [{"n": n, "about": about, "body": body} for n, about, body in rows],
    )


def copy(tx: Tx, numbers: Sequence[int], source: str, target: str) -> None:
    """Copy the terms of these chunks into the index of another collection."""
    tx.execute(_CREATE.format(table(target)))
    tx.execute(
        f"INSERT OR REPLACE INTO {table(target)} (rowid, about, body) "
        f"SELECT rowid, about, body FROM {table(source)} WHERE rowid IN :numbers",
        numbers=numbers,
    )


def set_about(tx: Tx, collection_id: str, terms: Iterable[tuple[int, str]]) -> None:
    """Replace the terms of the chunks' titles and headings, given as (n, terms)."""
    sql = f"UPDATE {table(collection_id)} SET about = :about WHERE rowid = :n"
    tx.execute_many(sql, [{"n": n, "about": about} for n, about in terms])


def remove(tx: Tx, collection_id: str, numbers: Sequence[int]) -> None:
    """Remove the terms of these chunks."""
    if numbers and exists(tx, collection_id):
        tx.execute(f"DELETE FROM {table(collection_id)} WHERE rowid IN :numbers", numbers=numbers)


def match(
    tx: Tx,
    collection_id: str,
    terms: Sequence[str],
    limit: int,
    ranges: Sequence[tuple[int, int]] | None,
    about_weight: float,
) -> list[tuple[int, float]]:
    """The chunks with any of the terms, as (n, BM25 score), best (highest) first."""
    if not terms or limit < 1 or not exists(tx, collection_id):
        return []
    name = table(collection_id)
    query = " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)
    sql = (
        f"SELECT rowid, -bm25({name}, :weight, 1.0) AS score FROM {name} WHERE {name} MATCH :query "
        "AND rowid BETWEEN :first AND :last ORDER BY score DESC LIMIT :limit"
    )
    hits: list[tuple[int, float]] = []
    for first, last in ranges if ranges is not None else [(0, 2**62)]:
        rows = tx.rows(sql, weight=about_weight, query=query, first=first, last=last, limit=limit)
        hits += [(n, score) for n, score in rows]
    return hits if ranges is None else sorted(hits, key=lambda hit: -hit[1])[:limit]
