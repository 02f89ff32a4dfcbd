"""The schema: migrations, a new database, upgrades."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from backend.storage import tables
from backend.storage.engine.database import SCHEMA_VERSION, Database
from backend.storage.migrations import SCHEMA, upgrade
from backend.storage.migrations.dump import dump_migrated


@pytest.mark.parametrize("by", ["migrations", "schema.sql"])
async def test_the_migrations_make_what_tables_py_says(database: Database, by: str, tmp_path: Path) -> None:
    if by == "migrations":
        upgrade(tmp_path / "migrated.db")
    engine = create_engine(f"sqlite:///{database.path if by == 'schema.sql' else tmp_path / 'migrated.db'}")
    with engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == SCHEMA_VERSION
    engine.dispose()


def test_a_new_database_is_what_the_migrations_make_of_an_empty_one() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == dump_migrated(), "run python -m backend.storage.migrations.dump"


async def test_an_empty_file_becomes_a_whole_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    await Database(tmp_path / "a.db").close()
    with closing(sqlite3.connect(tmp_path / "a.db")) as conn:
        assert "\n".join(conn.iterdump()) + "\n" == SCHEMA.read_text(encoding="utf-8")


async def test_every_table_of_a_principal_has_an_owner() -> None:
    """Chunks, their vectors and events are reached only through a version or a run, which have one; counters are
    nobody's.
    """
    without = {t.name for t in tables.metadata.sorted_tables if "owner" not in t.c}
    assert without == {"chunks", "chunk_vectors", "run_events", "counters"}


async def test_an_old_database_is_opened_without_running_migrations(database: Database, tmp_path: Path) -> None:
    await database.close()
    before = (tmp_path / "a.db").read_bytes()
    again = Database(tmp_path / "a.db")
    await again.close()
    assert (tmp_path / "a.db").read_bytes() == before


async def test_opening_an_up_to_date_database_imports_no_sqlalchemy(database: Database, tmp_path: Path) -> None:
    """A quarter of a second of each start, and only migrations need it."""
    await database.close()
    code = (
        "import sys; from pathlib import Path; from backend.storage.engine.database import Database; "
        f"Database(Path({str(tmp_path / 'a.db')!r})); import backend.wiring; "
        "print([m for m in ('sqlalchemy', 'alembic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stdout + done.stderr


async def test_what_a_run_had_reserved_before_the_upgrade_is_still_reserved(tmp_path: Path) -> None:
    upgrade(tmp_path / "old.db", "0003")
    conn = sqlite3.connect(tmp_path / "old.db")
    conn.execute("INSERT INTO reservations (run_id, owner, amount, created_at) VALUES ('run_1', 'a', 7, 1)")
    conn.commit()
    conn.close()
    database = Database(tmp_path / "old.db")
    assert await database.read(lambda tx: tx.rows("SELECT id, owner, amount FROM reservations")) == [("run_1", "a", 7)]
    await database.close()


async def test_a_database_of_a_newer_version_is_not_touched(database: Database, tmp_path: Path) -> None:
    await database.close()
    conn = sqlite3.connect(tmp_path / "a.db")
    conn.execute("UPDATE alembic_version SET version_num = '9999'")
    conn.commit()
    conn.close()
    with pytest.raises(Exception, match="9999"):
        Database(tmp_path / "a.db")
