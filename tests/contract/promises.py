"""What every registered provider promises, whatever stands behind it."""

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from tests.contract.conftest import SharedServers
from tests.contract.protocols import KEY
from tests.scenarios.support import ask, messages, only_terminal, ordered, said
from tests.support.harness import Running, text_of
from tests.support.provider_server import ProviderServer


class ProviderContract:
    """Inherited once for each provider; `model` is one that answers."""

    pytestmark = pytest.mark.asyncio(loop_scope="module")
    name: ClassVar[str]
    model: ClassVar[str]

    def settings(self, provider: ProviderServer) -> dict[str, Any]:
        """Settings with which the provider is there."""
        del provider
        return {}

    async def server(self, shared: SharedServers, provider: ProviderServer) -> Running:
        """A server that has the provider."""
        return await shared.with_settings(**self.settings(provider))

    async def test_it_answers_by_the_protocol(self, provider: ProviderServer, shared: SharedServers) -> None:
        server = await self.server(shared, provider)
        events = await server.events(ask(model=self.model))
        ordered(events)
        end = only_terminal(events)
        assert end["type"] == "run.completed"
        assert end["finish_reason"] == "stop"
        assert events[0]["model"] == self.model
        (usage,) = [e for e in events if e["type"] == "usage"]
        assert usage["model"] == self.model
        total = {k: v for k, v in usage.items() if k not in ("type", "seq", "_id", "model", "price")}
        assert end["usage"] == total
        assert text_of(events).strip()
        stored = await messages(server, events[0]["session_id"])
        assert said(stored[1]) == text_of(events)

    async def test_it_is_listed_as_available(self, provider: ProviderServer, shared: SharedServers) -> None:
        server = await self.server(shared, provider)
        listed = (await server.client.get("/models")).json()
        mine = next(p for p in listed["providers"] if p["provider"] == self.name)
        assert mine["available"] is True
        assert self.model in mine["models"]
        assert mine["reason"]

    async def test_it_can_be_the_default(self, provider: ProviderServer, shared: SharedServers) -> None:
        server = await shared.with_settings(llm_model=self.model, **self.settings(provider))
        listed = (await server.client.get("/models")).json()
        assert (listed["default"], listed["default_reason"]) == (self.model, "LLM_MODEL is set")
        assert (await server.events(ask()))[0]["model"] == self.model

    async def test_a_long_answer_stops_at_max_tokens(self, provider: ProviderServer, shared: SharedServers) -> None:
        """Or the limit at least reaches the provider."""
        server = await self.server(shared, provider)
        events = await server.events(ask(model=self.model, max_tokens=3))
        only_terminal(events)
        self.limited(events, provider)

    def limited(self, events: Sequence[dict[str, Any]], provider: ProviderServer) -> None:
        """What shows that a limit of three tokens was heeded."""
        options = provider.calls[-1].json
        assert 3 in {**options, **options.get("options", {})}.values()


class RowContract(ProviderContract):
    """A row of a protocol's table: its name is all that the settings need."""

    root: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        cls.model = f"{cls.name}/test-model"

    def settings(self, provider: ProviderServer) -> dict[str, Any]:
        url = provider.root_url if self.root else provider.base_url
        return {f"{self.name}_api_key": KEY, f"{self.name}_base_url": url}

    async def server(self, shared: SharedServers, provider: ProviderServer) -> Running:
        """One server that has every row: each is asked by its name."""
        rows: dict[str, Any] = {}
        for row in RowContract.__subclasses__():
            rows |= row().settings(provider)
        return await shared.with_settings(**rows)

    async def test_the_key_goes_to_the_provider_and_nowhere_else(
        self, provider: ProviderServer, shared: SharedServers
    ) -> None:
        server = await self.server(shared, provider)
        events = await server.events(ask(model=self.model))
        paths = ("/models", "/openapi.json", f"/runs/{events[0]['run_id']}")
        shown = [json.dumps(events), *[(await server.client.get(path)).text for path in paths]]
        assert KEY in str((await provider.call(0)).headers)
        assert [text for text in shown if KEY in text] == []
