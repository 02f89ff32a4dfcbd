"""Hands all data of one owner over to another one, while no server runs."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

_NAMED = ("collections", "prompts")
"""Tables in which an owner has each name once."""


def hand_over(path: Path, giver: str, taker: str) -> Mapping[str, int]:
    """The number of rows that changed their owner, by table, without tables that had none.

    `path` is the database. If both have a collection or a prompt of the same name, the giver's is renamed: `notes`
    becomes `notes-local`. It is one transaction.
    """
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA foreign_keys = ON")
        with conn:
            conn.execute("BEGIN IMMEDIATE")
            _drop_empty_collections(conn, giver, taker)
            for table in _NAMED:
                _rename(conn, table, giver, taker)
            conn.execute(
                "UPDATE runs SET idempotency_key = NULL WHERE owner = ? AND idempotency_key IN "
                "(SELECT idempotency_key FROM runs WHERE owner = ?)",
                (giver, taker),
            )
            _add_spendings(conn, giver, taker)
            counts = {table: _change_owner(conn, table, giver, taker) for table in _tables_of_owners(conn)}
    return {table: count for table, count in counts.items() if count}


def _tables_of_owners(conn: sqlite3.Connection) -> list[str]:
    """The tables that have a column `owner`."""
    names = conn.execute(
        "SELECT m.name FROM sqlite_master m, pragma_table_info(m.name) c "
        "WHERE m.type = 'table' AND c.name = 'owner' ORDER BY m.name"
    )
    return [name for (name,) in names]


def _change_owner(conn: sqlite3.Connection, table: str, giver: str, taker: str) -> int:
    return conn.execute(f'UPDATE "{table}" SET owner = ? WHERE owner = ?', (taker, giver)).rowcount


def _drop_empty_collections(conn: sqlite3.Connection, giver: str, taker: str) -> None:
    """Delete the taker's collections that hold nothing and have a name of the giver's: the first visit makes one."""
    conn.execute(
        "DELETE FROM collections WHERE owner = ? AND name IN (SELECT name FROM collections WHERE owner = ?) "
        "AND id NOT IN (SELECT collection_id FROM documents) AND id NOT IN (SELECT collection_id FROM jobs)",
        (taker, giver),
    )


def _rename(conn: sqlite3.Connection, table: str, giver: str, taker: str) -> None:
    taken = {name for (name,) in conn.execute(f'SELECT name FROM "{table}" WHERE owner IN (?, ?)', (giver, taker))}
    doubles = conn.execute(
        f'SELECT id, name FROM "{table}" WHERE owner = ? AND name IN (SELECT name FROM "{table}" WHERE owner = ?)',
        (giver, taker),
    ).fetchall()
    for row_id, name in doubles:
        candidates = (f"{name}-{giver}", *(f"{name}-{giver}-{number}" for number in range(2, len(taken) + 3)))
        free = next(each for each in candidates if each not in taken)
        taken.add(free)
        conn.execute(f'UPDATE "{table}" SET name = ? WHERE id = ?', (free, row_id))


def _add_spendings(conn: sqlite3.Connection, giver: str, taker: str) -> None:
    """Add what the giver has spent on each day to what the taker has."""
    both = {"giver": giver, "taker": taker}
    conn.execute(
        "UPDATE spendings SET amount = amount + (SELECT g.amount FROM spendings g WHERE g.owner = :giver "
        "AND g.day = spendings.day) WHERE owner = :taker AND day IN (SELECT day FROM spendings WHERE owner = :giver)",
        both,
    )
    conn.execute(
        "DELETE FROM spendings WHERE owner = :giver AND day IN (SELECT day FROM spendings WHERE owner = :taker)", both
    )
