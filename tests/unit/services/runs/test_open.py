"""Runs open themselves, and the server's end is theirs."""

from pathlib import Path

import pytest

from backend.config.settings import Settings
from backend.errors import Unavailable
from backend.services.foundation import Core
from backend.services.lifecycle import Draining, Readiness
from backend.services.runs.open import opened
from backend.services.telemetry.telemetry import SILENT
from backend.storage.engine.database import Database


async def test_no_run_starts_once_the_server_drains(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    core = Core(database, tmp_path, SILENT, Draining(), Readiness())
    settings = Settings.load(env_file=None, data_dir=tmp_path)
    async with opened(settings.runs, settings.storage, core, lambda usage: None) as runs:
        runs.hub.reserve()
        runs.hub.release()
        await core.draining.drain(0)
        with pytest.raises(Unavailable) as refused:
            runs.hub.reserve()
    assert refused.value.code == "shutdown"
    await database.close()
