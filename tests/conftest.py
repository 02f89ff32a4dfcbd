"""Fixtures that every test may use."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness import Running, serving
from tests.provider_server import ProviderServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    """A server with no key, nothing uploaded."""
    async with serving(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def provider() -> AsyncIterator[ProviderServer]:
    """A scripted provider that speaks OpenAI's and Ollama's wire."""
    async with ProviderServer() as scripted:
        yield scripted


@pytest.fixture
async def with_provider(tmp_path: Path, provider: ProviderServer) -> AsyncIterator[Running]:
    """A server whose openai provider is `provider`."""
    async with serving(
        tmp_path / "data",
        openai_api_key="sk-test-0123456789",
        openai_base_url=provider.base_url,
        llm_model="openai/test-model",
    ) as running:
        yield running
