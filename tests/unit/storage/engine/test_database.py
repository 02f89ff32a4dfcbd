"""Storage: the schema, the writer's group commit, pages of sessions."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, insert

from backend.errors import NotFound, StorageFull, StreamForgeError, Unavailable
from backend.kit.ids import new_id
from backend.storage import tables
from backend.storage.conversations.sessions import Sessions
from backend.storage.engine.database import SCHEMA_VERSION, Database
from backend.storage.engine.lock import DataDirInUse, DataDirLock
from backend.storage.engine.writer import Writer, connect, storage_error
from backend.storage.library.chunks import Chunks
from backend.storage.library.collections import Collections
from backend.storage.library.documents import Documents
from backend.storage.library.jobs import Jobs
from backend.storage.library.transfers import Transfers
from backend.storage.library.versions import Versions
from backend.storage.migrations import SCHEMA, upgrade
from backend.storage.migrations.dump import dump_migrated
from tests.support.storing import MODEL, ingested


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    opened = Database(tmp_path / "a.db")
    yield opened
    await opened.close()


# --- the schema


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


async def test_a_database_of_a_newer_version_is_not_touched(database: Database, tmp_path: Path) -> None:
    await database.close()
    conn = sqlite3.connect(tmp_path / "a.db")
    conn.execute("UPDATE alembic_version SET version_num = '9999'")
    conn.commit()
    conn.close()
    with pytest.raises(Exception, match="9999"):
        Database(tmp_path / "a.db")


async def test_deleting_a_session_takes_its_rows_along(database: Database) -> None:
    await database.writer.run(
        lambda conn: (
            conn.executescript(
                """BEGIN; INSERT INTO sessions VALUES ('ses_1', 'a', 't', NULL, '{}', 1, 1);
            INSERT INTO messages (id, owner, session_id, role, status, parts, created_at)
              VALUES ('msg_1', 'a', 'ses_1', 'user', 'complete', '[]', 1);
            INSERT INTO runs (id, owner, session_id, user_message_id, message_id, model, status, instance_id,
              lease_until, started_at) VALUES ('run_1', 'a', 'ses_1', 'msg_1', 'msg_2', 'm', 'completed', 'i', 0, 1);
            INSERT INTO run_events VALUES ('run_1', 1, 1, 1, x'00'); SAVEPOINT op;"""
            )
            and None
        )
    )
    await Sessions(database).delete("a", "ses_1")
    async with database.read() as conn:
        for table in ("messages", "runs", "run_events"):
            assert (await conn.exec_driver_sql(f"SELECT count(*) FROM {table}")).scalar() == 0


# --- the writer


def put(value: str) -> "object":
    return lambda conn: conn.execute("INSERT INTO t VALUES (?)", (value,)) and value


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncGenerator[Writer]:
    conn = connect(tmp_path / "w.db")
    conn.execute("CREATE TABLE t (v TEXT PRIMARY KEY)")
    conn.close()
    opened = Writer(tmp_path / "w.db")
    yield opened
    await asyncio.to_thread(opened.close)


def values(path: Path) -> list[str]:
    conn = sqlite3.connect(path / "w.db")
    try:
        return [row[0] for row in conn.execute("SELECT v FROM t ORDER BY v")]
    finally:
        conn.close()


FAILURES = [
    NotFound("gone"),
    ValueError("bad"),
    KeyError("k"),
    OverflowError("too large"),
    RuntimeError("a fault of ours"),
    sqlite3.IntegrityError("unique"),
    sqlite3.OperationalError("no such table: x"),
    sqlite3.ProgrammingError("wrong number of bindings"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda e: type(e).__name__)
async def test_a_failing_operation_does_not_harm_its_neighbours(
    writer: Writer, tmp_path: Path, error: Exception
) -> None:
    """They are in one commit: the first holds the writer until all are queued."""
    import threading

    queued = threading.Event()

    def slow(conn: sqlite3.Connection) -> None:
        queued.wait(5)

    def failing(conn: sqlite3.Connection) -> None:
        conn.execute("INSERT INTO t VALUES ('half')")
        raise error

    first = asyncio.create_task(writer.run(slow))
    others = [asyncio.create_task(writer.run(op)) for op in (put("a"), failing, put("b"))]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    queued.set()
    await first
    results = await asyncio.gather(*others, return_exceptions=True)
    assert (results[0], results[2]) == ("a", "b")
    assert results[1] is error
    assert values(tmp_path) == ["a", "b"], "the failing one is undone, the others are stored"


async def test_many_operations_at_once_are_all_stored_in_order(writer: Writer, tmp_path: Path) -> None:
    names = [f"{n:04}" for n in range(1000)]
    assert await asyncio.gather(*(writer.run(put(n)) for n in names)) == names  # type: ignore[arg-type]
    assert values(tmp_path) == names


async def test_a_caller_that_leaves_does_not_undo_its_operation(writer: Writer, tmp_path: Path) -> None:
    task = asyncio.create_task(writer.run(put("kept")))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await writer.run(put("next"))  # type: ignore[arg-type]
    assert values(tmp_path) == ["kept", "next"]


async def test_after_closing_an_operation_is_refused_not_left_waiting(writer: Writer) -> None:
    await asyncio.to_thread(writer.close)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(writer.run(put("late")), 5)  # type: ignore[arg-type]


async def test_closing_stores_what_is_queued(tmp_path: Path, writer: Writer) -> None:
    tasks = [asyncio.create_task(writer.run(put(str(n)))) for n in range(9)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await asyncio.to_thread(writer.close)
    await asyncio.gather(*tasks)
    assert len(values(tmp_path)) == 9


async def test_a_database_that_is_gone_is_503_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "w.db").mkdir()
    writer = Writer(tmp_path / "w.db")
    with pytest.raises(Unavailable) as caught:
        await writer.run(lambda conn: None)
    assert caught.value.code == "storage_busy"
    (tmp_path / "w.db").rmdir()
    await writer.run(lambda conn: conn.execute("CREATE TABLE t (v TEXT)") and None)
    await asyncio.to_thread(writer.close)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("database is locked", Unavailable),
        ("database or disk is full", StorageFull),
        ("disk I/O error", StorageFull),
        ("unable to open database file", Unavailable),
        ("attempt to write a readonly database", Unavailable),
        ("no such table: x", None),
        ("UNIQUE constraint failed: t.v", None),
    ],
)
def test_what_a_database_error_means_to_a_caller(said: str, expected: type[StreamForgeError] | None) -> None:
    found = storage_error(sqlite3.OperationalError(said))
    assert type(found) is (expected or type(None))
    assert found is None or said not in found.message


# --- sessions and documents


async def add_sessions(database: Database, *sessions: tuple[str, str, int], owner: str = "a") -> None:
    async with database.write() as conn:
        for id_, title, updated in sessions:
            row = {"id": id_, "owner": owner, "title": title, "settings": {}}
            await conn.execute(insert(tables.sessions).values(**row, created_at=updated, updated_at=updated))


async def test_pages_of_sessions_are_stable_with_equal_times(database: Database) -> None:
    await add_sessions(database, *((f"ses_{n:02}", "t", 5) for n in range(7)), ("ses_99", "t", 4), ("ses_00b", "t", 6))
    storage = Sessions(database)
    seen: list[str] = []
    before: tuple[int, str] | None = None
    while rows := await storage.page("a", 2, before, None):
        assert len(rows) <= 2
        seen += [row.id for row in rows]
        before = (rows[-1].updated_at, rows[-1].id)
    assert seen == ["ses_00b", *(f"ses_{n:02}" for n in range(6, -1, -1)), "ses_99"]


async def test_a_session_that_is_added_meanwhile_does_not_shift_the_pages(database: Database) -> None:
    await add_sessions(database, *((f"ses_{n}", "t", n) for n in range(4)))
    storage = Sessions(database)
    first = await storage.page("a", 2, None, None)
    await add_sessions(database, ("ses_new", "t", 99))
    second = await storage.page("a", 2, (first[-1].updated_at, first[-1].id), None)
    assert [row.id for row in [*first, *second]] == ["ses_3", "ses_2", "ses_1", "ses_0"]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("100%", {"ses_1"}),
        ("%", {"ses_1"}),
        ("_", {"ses_2"}),
        ("/", {"ses_3"}),
        ("\\", {"ses_4"}),
        ("CONTRACT", {"ses_2"}),
        ("'", set()),
        ("été", {"ses_5"}),
    ],
)
async def test_a_title_search_takes_every_character_literally(database: Database, search: str, found: set[str]) -> None:
    titles = ["100% sure", "contract_v2", "and/or", "back\\slash", "été"]
    await add_sessions(database, *((f"ses_{n}", t, n) for n, t in enumerate(titles, 1)))
    assert {row.id for row in await Sessions(database).page("a", 50, None, search)} == found


async def test_nobody_sees_somebody_elses_sessions(database: Database) -> None:
    await add_sessions(database, ("ses_1", "t", 1))
    storage = Sessions(database)
    assert await storage.page("b", 50, None, None) == []
    for call in (storage.get("b", "ses_1"), storage.change("b", "ses_1", "x", {}), storage.delete("b", "ses_1")):
        with pytest.raises(NotFound):
            await call
    assert (await storage.get("a", "ses_1")).title == "t"


async def test_an_owners_default_collection_is_made_once(database: Database) -> None:
    collections = Collections(database)
    made = await asyncio.gather(*(collections.default("a") for _ in range(10)))
    assert len({c.id for c in made}) == 1
    assert (await collections.default("b")).id != made[0].id


async def test_nobody_reads_somebody_elses_document(database: Database) -> None:
    """What takes an owner filters by it, whatever the caller has checked before."""
    collection, document, version, n = await ingested(database, "a")
    storage, chunks, changes = Documents(database), Chunks(database), Versions(database)
    assert [c.n for c in await chunks.candidates("a", collection, [collection], MODEL, [n])] == [n]
    assert [r.first for r in await chunks.ranges("a", [document])] == [n]
    assert await storage.any_ready("a")
    assert await chunks.candidates("b", collection, [collection], MODEL, [n]) == []
    assert await chunks.ranges("b", [document]) == []
    assert await storage.missing("b", [document]) == [document]
    assert await storage.page("b", 5) == []
    assert not await storage.any_ready("b")
    assert await Collections(database).missing("b", [collection]) == [collection]
    for call in (
        storage.get("b", document),
        storage.text("b", document, None, 0, None),
        storage.versions("b", document),
        changes.rename("b", document, "x"),
        changes.replace("b", document, "ver_b", "other", 5),
        changes.cancel("b", document),
        changes.retry("b", document),
        changes.add("b", collection, "ver_b", "x", "other", 5),
        Collections(database).get("b", collection),
        Collections(database).rename("b", collection, "x"),
        Transfers(database).movable("b", document),
        Transfers(database).begin_embed("b", collection, "m/n"),
    ):
        with pytest.raises(NotFound):
            await call
    assert not await Collections(database).remove("b", collection)
    row = await storage.get("a", document)
    assert (row.status, row.version, row.name) == ("ready", version, "a.txt")


async def test_numbers_of_chunks_are_never_used_twice(database: Database) -> None:
    _, document, version, n = await ingested(database, "a")
    changes, chunks = Versions(database), Chunks(database)
    assert await chunks.reserve(version, 1) == n, "asked again, the same"
    (gone,) = await changes.begin_delete([document])
    assert (gone.id, gone.first, gone.chunks) == (version, n, 1)
    assert await chunks.remove(gone.collection_id, [version]) == 1
    await changes.end_delete([document])
    assert (await ingested(database, "a"))[3] > n
    assert await chunks.reserve("ver_unknown", 1) is None


# --- the queue


async def test_owners_take_turns_in_the_queue(database: Database) -> None:
    changes, collections, jobs = Versions(database), Collections(database), Jobs(database)
    for owner, count in (("a", 3), ("b", 1), ("c", 2)):
        collection = await collections.default(owner)
        for n in range(count):
            await changes.add(owner, collection.id, f"ver_{owner}{n}", "x", f"{owner}{n}", 1)
    taken: list[str] = []
    while job := await jobs.claim("me", 60_000, taken[-1][4] if taken else ""):
        taken.append(job.version_id)
    assert taken == ["ver_a0", "ver_b0", "ver_c0", "ver_a1", "ver_c1", "ver_a2"]


async def test_a_job_that_gives_way_goes_behind_the_others(database: Database) -> None:
    changes, jobs = Versions(database), Jobs(database)
    collection = await Collections(database).default("a")
    for n in range(2):
        await changes.add("a", collection.id, f"ver_{n}", "x", str(n), 1)
    first = await jobs.claim("me", 60_000, "")
    assert first is not None
    await asyncio.sleep(0.002)
    await jobs.give_way(first)
    order = [await jobs.claim("me", 60_000, "") for _ in range(3)]
    assert [job and job.version_id for job in order] == ["ver_1", "ver_0", None]


async def test_a_lease_that_is_not_renewed_runs_out_and_one_that_is_does_not(database: Database) -> None:
    collection, jobs = await Collections(database).default("a"), Jobs(database)
    await Versions(database).add("a", collection.id, "ver_1", "x", "1", 1)
    assert await jobs.claim("me", 0, "") is not None
    assert await jobs.claim("other", 60_000, "") is not None, "it ran out at once"
    await jobs.renew("me", 0)
    assert await jobs.claim("me", 60_000, "") is None, "somebody else's is not ours to renew"
    await jobs.release("other", busy=[])
    assert await jobs.claim("me", 60_000, "") is not None


async def test_a_failing_unit_of_work_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.write() as conn:
            row = {"id": "ses_1", "owner": "a", "title": "t", "settings": {}, "created_at": 1, "updated_at": 1}
            await conn.execute(insert(tables.sessions).values(**row))
            raise RuntimeError
    assert await Sessions(database).page("a", 5, None, None) == []


# --- ids and the lock


def test_ids_are_unique_sorted_by_creation_and_without_colon() -> None:
    ids = [new_id("run") for _ in range(1000)]
    assert len(set(ids)) == 1000 and ids == sorted(ids)
    assert all(i.startswith("run_") and ":" not in i for i in ids)


def test_a_data_dir_is_one_processs_at_a_time(tmp_path: Path) -> None:
    first = DataDirLock(tmp_path / "data")
    with pytest.raises(DataDirInUse, match="DATA_DIR"):
        DataDirLock(tmp_path / "data")
    first.release()
    DataDirLock(tmp_path / "data").release()
