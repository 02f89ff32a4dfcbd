"""`Tx`: SQL statements with named parameters, on the connection of one thread.

Queries use only this class and no driver, so another database needs another `Tx`, but no other queries.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any

Row = tuple[Any, ...]

_TOKENS = re.compile(r"""'[^']*'|"[^"]*"|(\bIN )?:(\w+)""")
"""Matches quoted text (in which a colon begins no parameter) and parameters."""


class Tx:
    """Runs SQL inside the transaction of its caller. Parameters are named: `tx.rows("... WHERE id = :id", id=...)`.

    `IN :ids` takes a list, a tuple or a set as the parameter `ids`; None stands for the empty list.
    """

    __slots__ = ("_execute", "connection")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        """The connection, for the engine, which begins and ends transactions."""
        self._execute = connection.execute

    def execute(self, sql: str, /, **parameters: Any) -> None:
        """Run a statement without a result."""
        statement, values_of = _compile(sql)
        self._execute(statement, values_of(parameters))

    def execute_many(self, sql: str, rows: Iterable[Mapping[str, Any]], /) -> None:
        """Run a statement once for each row. A row has the parameters by name."""
        statement, values_of = _compile(sql)
        self.connection.executemany(statement, map(values_of, rows))

    def rows(self, sql: str, /, **parameters: Any) -> list[Row]:
        """All rows of the result."""
        statement, values_of = _compile(sql)
        return self._execute(statement, values_of(parameters)).fetchall()

    def one(self, sql: str, /, **parameters: Any) -> Row | None:
        """The first row of the result; None if there is none."""
        statement, values_of = _compile(sql)
        return self._execute(statement, values_of(parameters)).fetchone()

    def value(self, sql: str, /, **parameters: Any) -> Any:
        """The first column of the first row; None if there is no row."""
        statement, values_of = _compile(sql)
        row = self._execute(statement, values_of(parameters)).fetchone()
        return None if row is None else row[0]

    def count_changes(self, sql: str, /, **parameters: Any) -> int:
        """The number of rows that the statement inserted, updated or deleted."""
        statement, values_of = _compile(sql)
        return self._execute(statement, values_of(parameters)).rowcount


_Values = Callable[[Mapping[str, Any]], tuple[Any, ...]]


@lru_cache(maxsize=1024)
def _compile(sql: str) -> tuple[str, _Values]:
    """The statement for SQLite, and a function that puts the values of its parameters in order.

    Parameters get numbers, because SQLite's driver needs three times as long to find them by name. A list becomes JSON
    text in one parameter. So the statement is the same for lists of every length, and SQLite compiles it once.
    """
    names: list[str] = []
    lists: set[str] = set()

    def number_parameter(token: re.Match[str]) -> str:
        is_list, name = token.groups()
        if name is None:
            return token.group()
        if name not in names:
            names.append(name)
        number = names.index(name) + 1
        if is_list is None:
            return f"?{number}"
        lists.add(name)
        return f"IN (SELECT value FROM json_each(?{number}))"

    statement = _TOKENS.sub(number_parameter, sql)
    return statement, _values(names, lists)


def _values(names: list[str], lists: set[str]) -> _Values:
    if lists:
        return lambda parameters: tuple(
            _json(parameters[name]) if name in lists else parameters[name] for name in names
        )
    if len(names) > 1:
        return itemgetter(*names)
    if names:
        (name,) = names
        return lambda parameters: (parameters[name],)
    return lambda parameters: ()


def _json(values: Iterable[Any] | None) -> str | None:
    return None if values is None else json.dumps(list(values))
