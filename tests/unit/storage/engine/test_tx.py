"""SQL with named parameters, and the one way into the database."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.errors import Unavailable
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx
from backend.storage.engine.writer import connect


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[Tx]:
    opened = Tx(connect(tmp_path / "a.db"))
    opened.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, word TEXT)")
    opened.execute_many("INSERT INTO t VALUES (:n, :word)", [{"n": n, "word": f"w{n}"} for n in range(1, 6)])
    yield opened
    opened.connection.close()


def test_parameters_are_found_by_their_names(tx: Tx) -> None:
    assert tx.one("SELECT word FROM t WHERE n = :n AND word = :word", word="w2", n=2) == ("w2",)
    assert tx.rows("SELECT n FROM t WHERE n < :n OR n > 9 - :n ORDER BY n", n=3) == [(1,), (2,)], "one name twice"
    assert tx.value("SELECT word FROM t WHERE n = :n", n=4, unused=1) == "w4"
    with pytest.raises(KeyError):
        tx.rows("SELECT 1 FROM t WHERE n = :n", m=1)


def test_without_a_row_there_is_none(tx: Tx) -> None:
    sql = "SELECT n FROM t WHERE n = :n"
    assert (tx.one(sql, n=9), tx.value(sql, n=9), tx.rows(sql, n=9)) == (None, None, [])
    assert tx.one("SELECT NULL") == (None,)


def test_rows_that_changed_are_counted(tx: Tx) -> None:
    assert tx.count_changes("UPDATE t SET word = :word WHERE n < :n", word="x", n=3) == 2
    assert tx.count_changes("DELETE FROM t WHERE n = :n", n=9) == 0
    assert tx.one("DELETE FROM t WHERE n = :n RETURNING word", n=1) == ("x",)


@pytest.mark.parametrize(
    ("values", "found"),
    [([1, 3], [1, 3]), ((5,), [5]), ({2, 9}, [2]), (range(2, 4), [2, 3]), ([], []), (None, []), ([3, 3], [3])],
)
def test_a_list_of_any_length_and_kind_is_one_parameter(tx: Tx, values: Any, found: list[int]) -> None:
    assert [n for (n,) in tx.rows("SELECT n FROM t WHERE n IN :ids ORDER BY n", ids=values)] == found
    assert len(tx.rows("SELECT n FROM t WHERE n NOT IN :ids AND n < :most", ids=values, most=99)) == 5 - len(found)


def test_texts_in_a_list_are_taken_as_they_are(tx: Tx) -> None:
    words = ["a'b", 'a"b', "été", "東京", "\\", "", "w1"]
    tx.execute_many("INSERT INTO t (word) VALUES (:word)", [{"word": word} for word in words])
    found = {word for (word,) in tx.rows("SELECT word FROM t WHERE word IN :words", words=words)}
    assert found == set(words)


def test_a_list_is_changed_for_the_statement_alone(tx: Tx) -> None:
    ids = [1, 2]
    tx.rows("SELECT n FROM t WHERE n IN :ids", ids=ids)
    assert ids == [1, 2]


def test_a_colon_in_quoted_text_is_no_parameter(tx: Tx) -> None:
    assert tx.one("""SELECT ':n', 'it''s :n', n AS "a :n" FROM t WHERE n = :n""", n=1) == (":n", "it's :n", 1)


async def test_what_was_written_is_read(database: Database) -> None:
    await database.write(lambda tx: tx.execute("INSERT INTO counters VALUES (:name, :value)", name="x", value=7))
    assert await database.read(lambda tx: tx.value("SELECT value FROM counters WHERE name = 'x'")) == 7


async def test_a_reader_can_not_write(database: Database) -> None:
    """It has no transaction: half of it would stay if the rest failed."""
    with pytest.raises(Unavailable) as caught:
        await database.read(lambda tx: tx.execute("INSERT INTO counters VALUES ('x', 7)"))
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert await database.read(lambda tx: tx.value("SELECT value FROM counters WHERE name = 'x'")) is None


async def test_after_closing_both_ways_are_refused(database: Database) -> None:
    await database.close()
    for way in (database.read, database.write):
        with pytest.raises(Unavailable) as caught:
            await way(lambda tx: tx.value("SELECT 1"))
        assert caught.value.code == "shutdown"
