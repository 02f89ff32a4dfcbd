"""Fixtures that every test may use."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.harness import Running, serving
from tests.support.provider_server import ProviderServer
from tests.support.shared import share_in_process

# How long an example takes is up to what else runs on the machine.
settings.register_profile("beside others", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("beside others")
# For `make check`, by --hypothesis-profile.
settings.register_profile("quick", settings.get_profile("beside others"), max_examples=15)
DAY_SECONDS, LONGEST_TEST_SECONDS = 86_400, 90


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of nginx come first: one of them waits for 90 seconds, and the others run beside it."""
    items.sort(key=lambda item: item.path.name != "test_nginx.py")


@pytest.fixture(scope="session", autouse=True)
def made_once() -> Iterator[None]:
    """The servers of this process share what costs much to load."""
    with pytest.MonkeyPatch.context() as patch:
        share_in_process(patch)
        yield


@pytest.fixture
def within_a_day() -> None:
    """Budgets and days of usage begin anew at midnight (UTC): a test that compares them starts after it, not before."""
    left = DAY_SECONDS - time.time() % DAY_SECONDS
    if left < LONGEST_TEST_SECONDS:
        time.sleep(left + 1)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    """A server with no key, nothing uploaded."""
    async with serving(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def provider() -> AsyncIterator[ProviderServer]:
    """A scripted provider that speaks OpenAI's and Ollama's protocol."""
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
