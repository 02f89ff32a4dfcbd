"""What storage's tests share: an empty database."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from backend.storage.engine.database import Database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    opened = Database(tmp_path / "a.db")
    yield opened
    await opened.close()
