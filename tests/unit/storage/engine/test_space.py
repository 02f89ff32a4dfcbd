"""The space of deleted rows goes back to the disk."""

import sqlite3
from pathlib import Path

import pytest

from backend.storage.engine import space


def wasteful(path: Path, kept: int, waste: int) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE kept (b)")
        connection.execute("CREATE TABLE waste (b)")
        connection.execute("INSERT INTO kept VALUES (randomblob(?))", (kept,))
        connection.execute("INSERT INTO waste VALUES (randomblob(?))", (waste,))
    with connection:
        connection.execute("DROP TABLE waste")
    connection.close()


@pytest.mark.parametrize(("kept", "waste", "shrinks"), [(1_000, 500_000, True), (1_000, 50_000, False)])
def test_a_file_that_is_mostly_free_is_made_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, waste: int, shrinks: bool
) -> None:
    monkeypatch.setattr(space, "WASTE_BYTES", 100_000)
    path = tmp_path / "a.db"
    wasteful(path, kept, waste)
    before = path.stat().st_size
    assert space.shrink(path) is shrinks
    assert (path.stat().st_size < before) is shrinks
    assert space.shrink(path) is False


def test_what_is_no_database_is_left_alone(tmp_path: Path) -> None:
    assert space.shrink(tmp_path / "none.db") is False
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "b.db").write_bytes(b"no database" * 1_000)
    assert space.shrink(tmp_path / "b.db") is False
