"""Servers of the API's tests. They live in the session's event loop, so its tests share the loop too."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.api.helpers import KEYS
from tests.support.harness import ALL_ON, Running, serving


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """One server for all tests that don't mind what others uploaded."""
    folder = tmp_path_factory.mktemp("api")
    async with serving(folder / "data", **ALL_ON) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def keyed(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """One server with two principals, alice and bob."""
    folder = tmp_path_factory.mktemp("keyed")
    async with serving(folder / "data", api_keys=KEYS, **ALL_ON) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def fresh(tmp_path: Path) -> AsyncGenerator[Running]:
    """A server of one's own, nothing uploaded."""
    async with serving(tmp_path / "data") as running:
        yield running
