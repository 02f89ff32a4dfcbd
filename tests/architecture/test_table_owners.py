"""A table is written by one module: whoever looks for what changes it has one file to read."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from backend.storage import tables

STORAGE = Path(__file__).parents[2] / "backend" / "storage"
WRITES = re.compile(r"\b(?:INSERT(?: OR \w+)? INTO|REPLACE INTO|DELETE FROM|UPDATE(?: OR \w+)?) +\"?(\w+)")
LEXICAL = "lexical_"
"""The FTS5 tables, one a collection: their names are put in."""


def sql_of(path: Path) -> Iterator[str]:
    """The string constants of a module. What an f-string puts in is taken for the name of an FTS5 table."""
    parts: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts.update(node.values)
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else LEXICAL for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts:
            yield node.value


def writers() -> dict[str, set[str]]:
    """The modules that write each table."""
    found: dict[str, set[str]] = {}
    for path in sorted(STORAGE.rglob("*.py")):
        module = path.relative_to(STORAGE).with_suffix("").as_posix()
        if not module.startswith("migrations/"):
            for sql in sql_of(path):
                for table in WRITES.findall(sql):
                    # "ON CONFLICT ... DO UPDATE SET" names no table.
                    if table != "SET":
                        found.setdefault(table, set()).add(module)
    return found


def test_a_table_is_written_by_one_module() -> None:
    found = writers()
    assert set(found) == {table.name for table in tables.metadata.sorted_tables} | {LEXICAL, "message_index"}
    assert {table: modules for table, modules in found.items() if len(modules) > 1} == {}


def test_a_second_writer_would_be_found(tmp_path: Path) -> None:
    """Statements in one string, in a joined one and in an f-string."""
    module = tmp_path / "queries.py"
    module.write_text(
        'a = "DELETE FROM jobs WHERE id = :id"\n'
        'b = ("INSERT OR REPLACE INTO chunks "\n     "VALUES (1)")\n'
        'c = f"UPDATE runs SET x = 1 WHERE status IN {LIVE}"\n'
        'd = f"INSERT INTO {table} VALUES (1) ON CONFLICT (n) DO UPDATE SET x = 1"\n'
        'e = "SELECT 1 FROM sessions"\n'
    )
    found = {table for sql in sql_of(module) for table in WRITES.findall(sql)} - {"SET"}
    assert found == {"jobs", "chunks", "runs", LEXICAL}
