"""A server on a full disk: it starts, says so, shows what is stored, and goes on when there is room."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from backend.routers.edge.services import Services
from backend.services import lifecycle
from backend.services.upkeep import open as upkeep
from backend.storage.engine import database
from backend.storage.engine.writer import connect
from tests.scenarios.support import ask, messages, only_terminal, rows, watch
from tests.support import harness
from tests.support.harness import serving

SIMULATED = ask(model="simulated/words", max_tokens=5)


def no_room(path: Path) -> sqlite3.Connection:
    """What SQLite says if not even its shared index has room."""
    raise sqlite3.OperationalError("disk I/O error")


class Full(sqlite3.Connection):
    """A connection on a disk without room: it only reads."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql.lstrip().startswith(("INSERT", "UPDATE", "DELETE", "PRAGMA user_version")):
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *parameters)


async def until_open(services: Services) -> None:
    """The port is open; nothing else is waited for."""


def reading_alone(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Full)


async def test_a_server_on_a_full_disk_reads_and_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(lifecycle, "_RETRY_SECONDS", 0.1)
    async with serving(tmp_path / "data") as server:
        events = await server.events(SIMULATED)
    # A run that a crash left unfinished: its end can't be stored yet.
    connection = sqlite3.connect(tmp_path / "data" / "streamforge.db")
    with connection:
        sql = "UPDATE runs SET status = 'running', finished_at = NULL, usage = NULL, instance_id = 'ins_before'"
        connection.execute(sql)
        connection.execute("DELETE FROM messages WHERE role = 'assistant'")
    connection.close()
    monkeypatch.setattr(database, "connect", no_room)
    monkeypatch.setattr(database, "connect_alone", reading_alone)
    monkeypatch.setattr(harness, "until_ready", until_open)
    async with serving(tmp_path / "data") as server:
        ready = await server.client.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "read_only")
        assert "full" in ready.json()["problem"]
        assert len(await messages(server, events[0]["session_id"], branches="true")) == 1
        async with watch(server.client, f"/runs/{events[0]['run_id']}/events") as again:
            assert await again.all() == events
        assert rows(server, "SELECT status FROM runs") == [("running",)]
        refused = await server.client.post("/chat", json=SIMULATED)
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        assert "Free some space" in refused.json()["detail"]
        monkeypatch.setattr(database, "connect", connect)
        async with asyncio.timeout(15):
            while (await server.client.get("/ready")).json()["status"] != "ready":
                await asyncio.sleep(0.05)
        assert only_terminal(await server.events(SIMULATED))["type"] == "run.completed"
        async with asyncio.timeout(15):
            while rows(server, "SELECT count(*) FROM runs WHERE status = 'running'") != [(0,)]:
                await asyncio.sleep(0.05)
