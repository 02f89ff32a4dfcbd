"""GET /models: what is there, what isn't and what to do, however long a provider takes to say so."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.chains.models import capabilities
from tests.contract.protocols import KEY
from tests.scenarios.support import ask
from tests.support.harness import serving, text_of
from tests.support.provider_protocol import Send, Sleep, Status, Step
from tests.support.provider_server import ProviderServer

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def forgotten_profiles() -> Iterator[None]:
    """What the code remembers of packages is forgotten afterwards: here some look as if they were missing."""
    yield
    capabilities._profiles.cache_clear()


@pytest.mark.usefixtures("forgotten_profiles")
@pytest.mark.parametrize("name", ["anthropic", "google", "cohere"])
async def test_a_package_that_is_missing_is_told_with_its_line(
    name: str, provider: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = {"anthropic": "langchain_anthropic", "google": "langchain_google_genai", "cohere": "langchain_cohere"}
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else find(name))
    gone = {packages[name]}
    line = f"{packages[name]} is not installed: pip install --no-deps -r backend/requirements-providers.txt"
    async with serving(tmp_path / "data", **{f"{name}_api_key": KEY, f"{name}_base_url": provider.root_url}) as server:
        listed = (await server.client.get("/models")).json()
        mine = next(p for p in listed["providers"] if p["provider"] == name)
        assert (mine["available"], mine["reason"], mine["models"]) == (False, line, [])
        assert listed["default"] == "extractive/quotes"
        refused = await server.client.post("/chat", json=ask(model=f"{name}/x"))
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_model")
        assert line in refused.json()["detail"]


async def test_lists_are_kept_for_a_minute_and_asked_anew_on_demand(provider: ProviderServer, tmp_path: Path) -> None:
    async with serving(tmp_path / "data", openai_base_url=provider.base_url) as server:
        provider.models = ["new"]
        before = await server.client.get("/models")
        after = await server.client.get("/models", params={"refresh": "true"})
    assert ("openai/new" in before.text, "openai/new" in after.text) == (False, True)


async def test_a_provider_that_hangs_holds_nobody_up(provider: ProviderServer, tmp_path: Path) -> None:
    head: list[Step] = [Status(200, {"Content-Type": "application/json"}), Send(b"{")]
    trickle: list[Step] = [*head, *[step for _ in range(100) for step in (Sleep(0.5), Send(b" "))]]
    provider.script(*[trickle] * 3, path="/v1/models")
    async with serving(tmp_path / "data", openai_base_url=provider.base_url) as server:
        listed = await server.client.get("/models", params={"refresh": "true"})
        mine = next(p for p in listed.json()["providers"] if p["provider"] == "openai")
        assert "within 5 s" in mine["reason"]
        assert text_of(await server.events(ask(model="openai/test-model"))) == "Hello from the provider."
        for asked in [call for call in provider.requests if call.path == "/v1/models"]:
            await asked.disconnected()
