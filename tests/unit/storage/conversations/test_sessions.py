"""Sessions in the database: pages, search, whose they are."""

import pytest

from backend.errors import NotFound
from backend.storage.conversations.sessions import Sessions
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx


async def test_deleting_a_session_takes_its_rows_along(database: Database) -> None:
    def fill(tx: Tx) -> None:
        tx.execute(INSERT_SESSION, id="ses_1", owner="a", title="t", at=1)
        tx.execute(
            """INSERT INTO messages (id, owner, session_id, role, status, parts, created_at)
              VALUES ('msg_1', 'a', 'ses_1', 'user', 'complete', '[]', 1)"""
        )
        tx.execute(
            """INSERT INTO runs (id, owner, session_id, user_message_id, message_id, model, status, instance_id,
              lease_until, started_at) VALUES ('run_1', 'a', 'ses_1', 'msg_1', 'msg_2', 'm', 'completed', 'i', 0, 1)"""
        )
        tx.execute("INSERT INTO run_events VALUES ('run_1', 1, 1, 1, x'00')")

    await database.write(fill)
    await Sessions(database).delete("a", "ses_1")
    for table in ("messages", "runs", "run_events"):
        assert await database.read(lambda tx, t=table: tx.value(f"SELECT count(*) FROM {t}")) == 0


INSERT_SESSION = (
    "INSERT INTO sessions (id, owner, title, settings, created_at, updated_at) "
    "VALUES (:id, :owner, :title, '{}', :at, :at)"
)


async def add_sessions(database: Database, *sessions: tuple[str, str, int], owner: str = "a") -> None:
    rows = [{"id": id_, "owner": owner, "title": title, "at": updated} for id_, title, updated in sessions]
    await database.write(lambda tx: tx.execute_many(INSERT_SESSION, rows))


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


async def test_a_failing_unit_of_work_leaves_nothing(database: Database) -> None:
    def failing(tx: Tx) -> None:
        tx.execute(INSERT_SESSION, id="ses_1", owner="a", title="t", at=1)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await database.write(failing)
    assert await Sessions(database).page("a", 5, None, None) == []
