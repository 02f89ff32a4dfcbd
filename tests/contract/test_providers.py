"""What the providers promise that come with the server; test_rows has the others."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import SharedServers
from tests.contract.promises import ProviderContract
from tests.contract.protocols import KEY, RAW, OllamaProtocol, OpenAIProtocol
from tests.scenarios.support import ask, messages, only_terminal, ordered, rows, said
from tests.support.harness import Running, serving, text_of
from tests.support.provider_protocol import Status, Step, answer, context_overflow, error, ollama_line
from tests.support.provider_server import ProviderServer


class TestOpenAI(ProviderContract):
    name = "openai"
    model = "openai/test-model"

    def settings(self, provider: ProviderServer) -> dict[str, Any]:
        return {"openai_api_key": KEY, "openai_base_url": provider.base_url}

    async def test_without_key_or_url_it_says_what_to_set(self, server: Running) -> None:
        listed = (await server.client.get("/models")).json()["providers"]
        mine = next(p for p in listed if p["provider"] == "openai")
        assert (mine["available"], mine["models"]) == (False, [])
        assert "OPENAI_API_KEY" in mine["reason"]
        refused = await server.client.post("/chat", json=ask(model="openai/gpt-4.1-mini"))
        assert refused.status_code == 422
        assert "OPENAI_API_KEY" in refused.json()["detail"]
        assert rows(server, "SELECT count(*) FROM sessions") == [(0,)]

    async def test_the_key_goes_to_the_provider_and_nowhere_else(
        self, provider: ProviderServer, shared: SharedServers
    ) -> None:
        server = await shared.with_settings(llm_model=self.model, **self.settings(provider))
        events = await server.events(ask())
        assert (await provider.call(0)).headers["authorization"] == f"Bearer {KEY}"
        paths = ("/models", "/openapi.json", "/ready", "/", f"/runs/{events[0]['run_id']}")
        shown = [json.dumps(events), *[(await server.client.get(path)).text for path in paths]]
        assert not [text for text in shown if KEY in text]

    async def test_an_address_without_its_end_is_told(self, provider: ProviderServer, tmp_path: Path) -> None:
        async with serving(tmp_path / "data", openai_api_key=KEY, openai_base_url=provider.root_url) as server:
            listed = (await server.client.get("/models")).json()["providers"]
        reason = next(p for p in listed if p["provider"] == "openai")["reason"]
        told = f"{provider.root_url} has no list of models. Check OPENAI_BASE_URL, which mostly ends in /v1"
        assert reason.endswith(told)

    @pytest.mark.parametrize("status", [401, 404, 500])
    async def test_a_list_that_cannot_be_read_does_not_stop_it(
        self, provider: ProviderServer, tmp_path: Path, status: int
    ) -> None:
        provider.script(*[[error(status, f"{RAW} {KEY}", "x", None)]] * 5, path="/v1/models")
        async with serving(tmp_path / "data", **self.settings(provider)) as server:
            listed = await server.client.get("/models")
            mine = next(p for p in listed.json()["providers"] if p["provider"] == "openai")
            assert mine["available"] is True
            assert "can't be read" in mine["reason"]
            assert RAW not in listed.text
            assert KEY not in listed.text
            assert only_terminal(await server.events(ask(model=self.model)))["type"] == "run.completed"

    @pytest.mark.parametrize("body", [b"[]", b"null", b'{"data":null}', b'{"data":[null]}', b'{"data":[1]}', b"<html>"])
    async def test_a_list_of_nonsense_does_not_stop_it(
        self, provider: ProviderServer, tmp_path: Path, body: bytes
    ) -> None:
        provider.script(*[[Status(200, {}, body)]] * 5, path="/v1/models")
        async with serving(tmp_path / "data", **self.settings(provider)) as server:
            listed = await server.client.get("/models")
            assert listed.status_code == 200, listed.text
            assert next(p for p in listed.json()["providers"] if p["provider"] == "openai")["available"] is True

    async def test_its_own_server_gives_the_default_model(self, provider: ProviderServer, tmp_path: Path) -> None:
        provider.models = ["zeta", "alpha"]
        async with serving(tmp_path / "data", openai_base_url=provider.base_url) as server:
            assert (await server.client.get("/models")).json()["default"] == "openai/alpha"
            assert only_terminal(await server.events(ask()))["type"] == "run.completed"

    async def test_content_filter(self, with_provider: Running, provider: ProviderServer) -> None:
        provider.script(answer("Half an answer", finish="content_filter"))
        events = await with_provider.events(ask())
        ordered(events)
        fault = only_terminal(events)["error"]
        assert (fault["code"], fault["retryable"]) == ("content_filter", False)
        stored = (await messages(with_provider, events[0]["session_id"]))[1]
        assert (stored["status"], said(stored)) == ("partial", "Half an answer")

    @pytest.mark.parametrize(
        ("script", "code", "retryable"),
        [
            ([error(400, RAW, "invalid_request_error", "content_filter")], "content_filter", False),
            (context_overflow(), "context_overflow", False),
            ([error(429, RAW, "insufficient_quota", "insufficient_quota")], "rate_limited", True),
        ],
    )
    async def test_a_refusal_that_has_its_own_code(
        self, with_provider: Running, provider: ProviderServer, script: list[Step], code: str, retryable: bool
    ) -> None:
        provider.script(script)
        fault = only_terminal(await with_provider.events(ask()))["error"]
        assert (fault["code"], fault["retryable"]) == (code, retryable)
        assert RAW not in fault["message"]


class TestOllama(ProviderContract):
    name = "ollama"
    model = "ollama/test-model"

    def settings(self, provider: ProviderServer) -> dict[str, Any]:
        return {"ollama_base_url": provider.root_url}

    async def test_without_a_server_it_says_what_to_do(self, server: Running) -> None:
        listed = (await server.client.get("/models")).json()
        mine = next(p for p in listed["providers"] if p["provider"] == "ollama")
        assert mine["available"] is False
        assert "OLLAMA_BASE_URL" in mine["reason"]
        assert listed["default"] == "extractive/quotes"

    async def test_one_that_comes_up_later_is_the_default_from_then_on(
        self, provider: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provider.models = []
        async with serving(tmp_path / "data", **self.settings(provider)) as server:
            assert (await server.events(ask()))[0]["model"] == "extractive/quotes"
            provider.models = ["test-model"]
            assert (await server.events(ask()))[0]["model"] == "extractive/quotes", "not looked for at every request"
            monkeypatch.setattr("backend.services.models.catalog._FAILED_LISTING_TTL_SECONDS", 0.0)
            async with asyncio.timeout(10):
                while (await server.events(ask()))[0]["model"] != self.model:
                    await asyncio.sleep(0.05)
        provider.models = []
        async with serving(tmp_path / "other", **self.settings(provider)) as server:
            provider.models = ["test-model"]
            listed = (await server.client.get("/models", params={"refresh": "true"})).json()
            assert listed["default"] == self.model

    async def test_without_a_model_it_says_what_to_pull(self, provider: ProviderServer, tmp_path: Path) -> None:
        provider.models = []
        async with serving(tmp_path / "data", **self.settings(provider)) as server:
            listed = (await server.client.get("/models")).json()
            mine = next(p for p in listed["providers"] if p["provider"] == "ollama")
            assert mine["available"] is False
            assert "ollama pull" in mine["reason"]
            assert listed["default"] == "extractive/quotes"

    async def test_a_local_one_is_the_default_but_never_its_embedding_model(
        self, provider: ProviderServer, tmp_path: Path
    ) -> None:
        provider.models = ["nomic-embed-text", "llama3.2"]
        async with serving(tmp_path / "data", **self.settings(provider)) as server:
            assert (await server.client.get("/models")).json()["default"] == "ollama/llama3.2"

    async def test_it_may_say_nothing(self, provider: ProviderServer, shared: SharedServers) -> None:
        end = {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 0}
        provider.script([Status(200, {"Content-Type": "application/x-ndjson"}), ollama_line("", **end)])
        server = await shared.with_settings(llm_model=self.model, **self.settings(provider))
        events = await server.events(ask())
        assert only_terminal(events)["type"] == "run.completed"
        assert text_of(events) == ""

    async def test_a_key_for_openai_comes_first(self, provider: ProviderServer, tmp_path: Path) -> None:
        both = {**OllamaProtocol().settings(provider), **OpenAIProtocol().settings(provider), "llm_model": None}
        async with serving(tmp_path / "data", **both) as server:
            assert (await server.client.get("/models")).json()["default"].startswith("openai/")


class TestExtractive(ProviderContract):
    name = "extractive"
    model = "extractive/quotes"

    def limited(self, events: Sequence[dict[str, Any]], provider: ProviderServer) -> None:
        assert provider.calls == [], "it calls nobody"

    async def test_with_nothing_uploaded_it_says_what_to_do(self, server: Running) -> None:
        events = await server.events({"message": "What is the notice period?"})
        assert "/documents/upload" in text_of(events)
        assert "OPENAI_API_KEY" in text_of(events)

    async def test_another_model_of_it_is_422(self, server: Running) -> None:
        refused = await server.client.post("/chat", json=ask(model="extractive/other"))
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_model")


class TestSimulated(ProviderContract):
    name = "simulated"
    model = "simulated/words"

    def limited(self, events: Sequence[dict[str, Any]], provider: ProviderServer) -> None:
        assert len([e for e in events if e["type"] == "text.delta"]) == 3
        assert events[-1]["finish_reason"] == "length"

    async def test_it_is_never_the_default_by_itself(self, server: Running) -> None:
        assert not (await server.client.get("/models")).json()["default"].startswith("simulated")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("model", "near"),
    [("opnai/gpt-4.1", "openai"), ("olama/x", "ollama"), ("gpt-4.1", ""), ("/x", ""), ("openai/", ""), ("", "")],
)
async def test_an_unknown_provider_is_422_with_the_nearest_names(server: Running, model: str, near: str) -> None:
    refused = await server.client.post("/chat", json=ask(model=model))
    if model == "" and refused.status_code == 200:
        pytest.fail("an empty name is not the default's name")
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_model")
    detail = refused.json()["detail"]
    assert f"Did you mean {near}" in detail if near else "GET /models" in detail
    assert rows(server, "SELECT count(*) FROM sessions") == [(0,)]
