"""Servers that the tests of a module share. They live in the module's event loop, so its tests share the loop too."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.protocols import PROTOCOLS
from tests.scenarios.support import ask
from tests.support.harness import Running, serving
from tests.support.provider_server import ProviderServer


class SharedServers:
    """One server for each set of settings, started when a test first needs it."""

    def __init__(self, stack: AsyncExitStack, folders: pytest.TempPathFactory) -> None:
        self._stack = stack
        self._folders = folders
        self._running: dict[str, Running] = {}

    async def with_settings(self, **overrides: Any) -> Running:
        """The module's server with these settings. Earlier tests may have left sessions in it."""
        key = repr(sorted(overrides.items()))
        if key not in self._running:
            data = self._folders.mktemp("shared") / "data"
            self._running[key] = await self._stack.enter_async_context(serving(data, **overrides))
        return self._running[key]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[SharedServers]:
    """The servers of this module."""
    async with AsyncExitStack() as stack:
        yield SharedServers(stack, tmp_path_factory)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_provider() -> AsyncGenerator[ProviderServer]:
    """The scripted provider of this module: the addresses of its servers' settings stay the same."""
    async with ProviderServer() as scripted:
        yield scripted


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def used_protocols(shared: SharedServers, shared_provider: ProviderServer) -> None:
    """Each protocol has answered once: the first call of a process builds classes for longer than a test's timeouts."""
    for protocol in PROTOCOLS:
        server = await shared.with_settings(**protocol.settings(shared_provider))
        await server.events(ask())


@pytest_asyncio.fixture(loop_scope="module")
async def provider(shared_provider: ProviderServer) -> ProviderServer:
    """The module's scripted provider, with no calls and no scripts of earlier tests."""
    shared_provider.reset()
    return shared_provider


@pytest_asyncio.fixture(loop_scope="module")
async def server(tmp_path: Path) -> AsyncGenerator[Running]:
    """A server of one's own, with no key, nothing uploaded."""
    async with serving(tmp_path / "data") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def with_provider(shared: SharedServers, provider: ProviderServer) -> Running:
    """A server whose openai provider is `provider`."""
    return await shared.with_settings(
        openai_api_key="sk-test-0123456789", openai_base_url=provider.base_url, llm_model="openai/test-model"
    )
