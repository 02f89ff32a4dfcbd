"""The contract of every provider that is a row of a table, or a protocol without more to say."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from backend.chains.models import plugins
from tests.contract import test_local, test_providers
from tests.contract.conftest import SharedServers
from tests.contract.promises import ProviderContract, RowContract
from tests.contract.protocols import KEY
from tests.scenarios.support import ask, only_terminal
from tests.support.harness import serving
from tests.support.provider_protocol import Status
from tests.support.provider_server import ProviderServer
from tests.support.provider_vendors import google_error


class TestAzure(RowContract):
    name = "azure"

    async def test_without_an_address_it_says_what_to_set(self, tmp_path: Path) -> None:
        async with serving(tmp_path / "data", azure_api_key=KEY) as server:
            listed = (await server.client.get("/models")).json()["providers"]
            mine = next(p for p in listed if p["provider"] == "azure")
            assert (mine["available"], mine["reason"]) == (False, "set AZURE_BASE_URL")


class TestOpenRouter(RowContract):
    name = "openrouter"


class TestGroq(RowContract):
    name = "groq"


class TestDeepSeek(RowContract):
    name = "deepseek"


class TestMistral(RowContract):
    name = "mistral"


class TestXai(RowContract):
    name = "xai"


class TestTogether(RowContract):
    name = "together"

    async def test_its_list_is_an_array(self, provider: ProviderServer, tmp_path: Path) -> None:
        provider.script([Status(200, {}, b'[{"id":"a/b"},{"id":"c/d"}]')], path="/v1/models")
        async with serving(tmp_path / "data", **self.settings(provider)) as server:
            listed = (await server.client.get("/models")).json()["providers"]
            assert next(p for p in listed if p["provider"] == "together")["models"] == ["together/a/b", "together/c/d"]


class TestFireworks(RowContract):
    name = "fireworks"


class TestCerebras(RowContract):
    name = "cerebras"


class TestNvidia(RowContract):
    name = "nvidia"


class TestVllm(RowContract):
    name = "vllm"

    async def test_it_needs_no_key_but_a_server(self, tmp_path: Path) -> None:
        async with serving(tmp_path / "data", vllm_base_url="http://127.0.0.1:9/v1") as server:
            listed = (await server.client.get("/models")).json()["providers"]
            mine = next(p for p in listed if p["provider"] == "vllm")
            assert "can't be reached" in mine["reason"]
            assert "VLLM_BASE_URL" in mine["reason"]


class TestLlamaCpp(RowContract):
    name = "llamacpp"


class TestLmStudio(RowContract):
    name = "lmstudio"


class TestAnthropic(RowContract):
    name = "anthropic"
    root = True


class TestGoogle(RowContract):
    name = "google"
    root = True

    def limited(self, events: Sequence[dict[str, Any]], provider: ProviderServer) -> None:
        assert provider.calls[-1].json["generationConfig"]["maxOutputTokens"] == 3

    async def test_a_wrong_key_says_so(self, provider: ProviderServer, shared: SharedServers) -> None:
        """Google says it with a 400."""
        provider.script(google_error(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT"))
        server = await shared.with_settings(**self.settings(provider))
        fault = only_terminal(await server.events(ask(model=self.model)))["error"]
        assert "GOOGLE_API_KEY" in fault["message"]


class TestCohere(RowContract):
    name = "cohere"
    root = True


def test_every_provider_has_its_contract() -> None:
    for module in (test_providers, test_local):
        assert module.ProviderContract is ProviderContract

    def contracts(cls: type[ProviderContract]) -> Iterator[str]:
        for each in cls.__subclasses__():
            yield from [each.name] if "name" in vars(each) else contracts(each)

    assert sorted(contracts(ProviderContract)) == sorted(kind.name for each in plugins() for kind in each.kinds)
