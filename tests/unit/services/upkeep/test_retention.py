"""What is older than the settings say is deleted, and its space goes back to the disk."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.config.budgets import Budget
from backend.kit.times import now_ms
from backend.services.upkeep import retention
from backend.services.upkeep.retention import Retention
from backend.storage.engine.database import Database
from backend.storage.usage.ledger import CallFilter, Ledger, NewCall

DAY = 86_400_000


@pytest.fixture
async def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(retention, "_PAUSE_SECONDS", 0.0)
    opened = Database(tmp_path / "a.db")
    yield opened
    await opened.close()


async def session(database: Database, name: str, days_ago: float, run_status: str) -> None:
    moment = now_ms() - int(days_ago * DAY)
    values = {"id": name, "moment": moment, "status": run_status}
    await database.write(
        lambda tx: tx.execute(
            "INSERT INTO sessions (id, owner, title, settings, created_at, updated_at) "
            "VALUES (:id, 'alice', 't', '{}', :moment, :moment)",
            **values,
        )
    )
    await database.write(
        lambda tx: tx.execute(
            "INSERT INTO runs (id, owner, session_id, user_message_id, message_id, model, status, instance_id, "
            "lease_until, started_at) VALUES (:id, 'alice', :id, 'm', 'n', 'x', :status, 'i', 0, :moment)",
            **values,
        )
    )


async def ids(database: Database, table: str) -> list[str]:
    return [i for (i,) in await database.read(lambda tx: tx.rows(f"SELECT id FROM {table} ORDER BY id"))]


async def test_idle_sessions_are_deleted_with_their_runs(database: Database) -> None:
    for n in range(45):
        await session(database, f"old{n:02}", 31, "completed")
    await session(database, "live", 31, "running")
    await session(database, "new", 29, "completed")
    await session(database, "pinned", 31, "completed")
    await database.write(lambda tx: tx.execute("UPDATE sessions SET pinned = 1 WHERE id = 'pinned'"))
    await Retention(database, 30, None).clean()
    assert await ids(database, "sessions") == await ids(database, "runs") == ["live", "new", "pinned"]


async def test_without_a_setting_everything_is_kept(database: Database) -> None:
    await session(database, "old", 5_000, "completed")
    await Ledger(database).settle("alice", None, [NewCall("answer", "m", "completed", 1, 1, cost=5)], None)
    await database.write(lambda tx: tx.execute("UPDATE calls SET created_at = 0"))
    await Retention(database, None, None).clean()
    assert await ids(database, "sessions") == ["old"]
    assert len(await ids(database, "calls")) == 1


async def test_old_calls_are_forgotten_and_budgets_stay(database: Database) -> None:
    ledger = Ledger(database)
    await ledger.settle("alice", None, [NewCall("answer", "m", "completed", 1, 1, cost=5) for _ in range(1_200)], None)
    old = now_ms() - 60 * DAY
    await database.write(lambda tx: tx.execute("UPDATE calls SET created_at = :old", old=old))
    await database.write(lambda tx: tx.execute("INSERT INTO spendings VALUES ('alice', :day, 9)", day=old // DAY))
    await ledger.settle("alice", None, [NewCall("answer", "m", "completed", 1, 1, cost=7)], None)
    await Retention(database, None, 40).clean()
    assert (await ledger.total(CallFilter(None, 0, 2**62))).calls == 1
    assert await database.read(lambda tx: tx.value("SELECT count(*) FROM spendings")) == 1
    assert (await ledger.spent_and_reserved("alice", Budget(1, "day")))[0] == 1_200 * 5 + 7


async def test_free_pages_go_back_to_the_disk(database: Database, tmp_path: Path) -> None:
    await database.write(lambda tx: tx.execute("CREATE TABLE waste AS SELECT randomblob(12000000) AS b"))
    await database.write(lambda tx: tx.execute("DROP TABLE waste"))
    before = await database.free_pages()
    assert before > 2_500
    await Retention(database, None, None).clean()
    assert await database.free_pages() <= 1_000
    await database.close()
    assert (tmp_path / "a.db").stat().st_size < 6_000_000
