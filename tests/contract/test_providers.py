"""What every registered provider promises, whatever stands behind it; and what each says about itself."""

import importlib.util
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from backend.chains.models import plugins
from tests.contract.wires import KEY, RAW, OllamaWire, OpenAIWire
from tests.harness import Running, serving, text_of
from tests.live.support import ask, messages, only_terminal, ordered, rows, said
from tests.provider_server import ProviderServer
from tests.provider_vendors import google_error
from tests.provider_wire import Send, Sleep, Status, Step, answer, context_overflow, error, ollama_line


class ProviderContract:
    """Inherited once for each provider; `model` is one that answers."""

    name: ClassVar[str]
    model: ClassVar[str]

    def settings(self, provider: ProviderServer) -> dict[str, Any]:
        """Settings with which the provider is there."""
        del provider
        return {}

    async def test_it_answers_by_the_protocol(self, provider: ProviderServer, tmp_path: Path) -> None:
        async with serving(tmp_path / "data", **self.settings(provider)) as server:
            events = await server.events(ask(model=self.model))
            ordered(events)
            end = only_terminal(events)
            assert end["type"] == "run.completed"
            assert end["finish_reason"] == "stop"
            assert events[0]["model"] == self.model
            (usage,) = [e for e in events if e["type"] == "usage"]
            assert usage["model"] == self.model
            total = {k: v for k, v in usage.items() if k not in ("type", "seq", "_id", "model")}
            assert end["usage"] == total
            assert text_of(events).strip()
            stored = await messages(server, events[0]["session_id"])
            assert said(stored[1]) == text_of(events)

    async def test_it_is_listed_as_available(self, provider: ProviderServer, tmp_path: Path) -> None:
        async with serving(tmp_path / "data", **self.settings(provider)) as server:
            listed = (await server.client.get("/models")).json()
            mine = next(p for p in listed["providers"] if p["provider"] == self.name)
            assert mine["available"] is True
            assert self.model in mine["models"]
            assert mine["reason"]

    async def test_it_can_be_the_default(self, provider: ProviderServer, tmp_path: Path) -> None:
        async with serving(tmp_path / "data", llm_model=self.model, **self.settings(provider)) as server:
            listed = (await server.client.get("/models")).json()
            assert (listed["default"], listed["default_reason"]) == (self.model, "LLM_MODEL is set")
            assert (await server.events(ask()))[0]["model"] == self.model

    async def test_a_long_answer_stops_at_max_tokens(self, provider: ProviderServer, tmp_path: Path) -> None:
        """Or the limit at least reaches the provider."""
        async with serving(tmp_path / "data", **self.settings(provider)) as server:
            events = await server.events(ask(model=self.model, max_tokens=3))
            only_terminal(events)
            self.limited(events, provider)

    def limited(self, events: Sequence[dict[str, Any]], provider: ProviderServer) -> None:
        """What shows that a limit of three tokens was heeded."""
        options = provider.calls[-1].json
        assert 3 in {**options, **options.get("options", {})}.values()


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
        self, provider: ProviderServer, tmp_path: Path
    ) -> None:
        async with serving(tmp_path / "data", llm_model=self.model, **self.settings(provider)) as server:
            events = await server.events(ask())
            assert (await provider.call(0)).headers["authorization"] == f"Bearer {KEY}"
            paths = ("/models", "/openapi.json", "/ready", "/", f"/runs/{events[0]['run_id']}")
            shown = [json.dumps(events), *[(await server.client.get(path)).text for path in paths]]
        assert not [text for text in shown if KEY in text]

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


class RowContract(ProviderContract):
    """A row of a wire's table: its name is all that the settings need."""

    root: ClassVar[bool] = False

    def settings(self, provider: ProviderServer) -> dict[str, Any]:
        url = provider.root_url if self.root else provider.base_url
        return {f"{self.name}_api_key": KEY, f"{self.name}_base_url": url}

    async def test_the_key_goes_to_the_provider_and_nowhere_else(
        self, provider: ProviderServer, tmp_path: Path
    ) -> None:
        async with serving(tmp_path / "data", llm_model=self.model, **self.settings(provider)) as server:
            events = await server.events(ask())
            paths = ("/models", "/openapi.json", f"/runs/{events[0]['run_id']}")
            shown = [json.dumps(events), *[(await server.client.get(path)).text for path in paths]]
        assert KEY in str((await provider.call(0)).headers)
        assert [text for text in shown if KEY in text] == []


class TestAzure(RowContract):
    name = "azure"
    model = "azure/test-model"

    async def test_without_an_address_it_says_what_to_set(self, tmp_path: Path) -> None:
        async with serving(tmp_path / "data", azure_api_key=KEY) as server:
            listed = (await server.client.get("/models")).json()["providers"]
            mine = next(p for p in listed if p["provider"] == "azure")
            assert (mine["available"], mine["reason"]) == (False, "set AZURE_BASE_URL")


class TestOpenRouter(RowContract):
    name = "openrouter"
    model = "openrouter/test-model"


class TestGroq(RowContract):
    name = "groq"
    model = "groq/test-model"


class TestDeepSeek(RowContract):
    name = "deepseek"
    model = "deepseek/test-model"


class TestMistral(RowContract):
    name = "mistral"
    model = "mistral/test-model"


class TestXai(RowContract):
    name = "xai"
    model = "xai/test-model"


class TestTogether(RowContract):
    name = "together"
    model = "together/test-model"

    async def test_its_list_is_an_array(self, provider: ProviderServer, tmp_path: Path) -> None:
        provider.script([Status(200, {}, b'[{"id":"a/b"},{"id":"c/d"}]')], path="/v1/models")
        async with serving(tmp_path / "data", **self.settings(provider)) as server:
            listed = (await server.client.get("/models")).json()["providers"]
            assert next(p for p in listed if p["provider"] == "together")["models"] == ["together/a/b", "together/c/d"]


class TestFireworks(RowContract):
    name = "fireworks"
    model = "fireworks/test-model"


class TestCerebras(RowContract):
    name = "cerebras"
    model = "cerebras/test-model"


class TestNvidia(RowContract):
    name = "nvidia"
    model = "nvidia/test-model"


class TestVllm(RowContract):
    name = "vllm"
    model = "vllm/test-model"

    async def test_it_needs_no_key_but_a_server(self, tmp_path: Path) -> None:
        async with serving(tmp_path / "data", vllm_base_url="http://127.0.0.1:9/v1") as server:
            listed = (await server.client.get("/models")).json()["providers"]
            mine = next(p for p in listed if p["provider"] == "vllm")
            assert "can't be reached" in mine["reason"]
            assert "VLLM_BASE_URL" in mine["reason"]


class TestLlamaCpp(RowContract):
    name = "llamacpp"
    model = "llamacpp/test-model"


class TestLmStudio(RowContract):
    name = "lmstudio"
    model = "lmstudio/test-model"


class TestAnthropic(RowContract):
    name = "anthropic"
    model = "anthropic/test-model"
    root = True


class TestGoogle(RowContract):
    name = "google"
    model = "google/test-model"
    root = True

    def limited(self, events: Sequence[dict[str, Any]], provider: ProviderServer) -> None:
        assert provider.calls[-1].json["generationConfig"]["maxOutputTokens"] == 3

    async def test_a_wrong_key_says_so(self, provider: ProviderServer, tmp_path: Path) -> None:
        """Google says it with a 400."""
        provider.script(google_error(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT"))
        async with serving(tmp_path / "data", **self.settings(provider)) as server:
            fault = only_terminal(await server.events(ask(model=self.model)))["error"]
        assert "GOOGLE_API_KEY" in fault["message"]


class TestCohere(RowContract):
    name = "cohere"
    model = "cohere/test-model"
    root = True


@pytest.mark.parametrize("name", ["anthropic", "google", "cohere"])
async def test_a_package_that_is_missing_is_told_with_its_line(
    name: str, provider: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = {"anthropic": "langchain_anthropic", "google": "langchain_google_genai", "cohere": "langchain_cohere"}
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else find(name))
    gone = {packages[name]}
    line = f"{packages[name]} is not installed: pip install {packages[name].replace('_', '-')}"
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
    began = time.monotonic()
    async with serving(tmp_path / "data", openai_base_url=provider.base_url) as server:
        started = time.monotonic()
        listed = await server.client.get("/models", params={"refresh": "true"})
        mine = next(p for p in listed.json()["providers"] if p["provider"] == "openai")
        assert "within 5 s" in mine["reason"]
        assert text_of(await server.events(ask(model="openai/test-model"))) == "Hello from the provider."
        ended = time.monotonic()
    assert started - began < 15 and ended - started < 15, "it would have trickled for 50 s each time"


def test_every_provider_has_its_contract() -> None:
    def contracts(cls: type[ProviderContract]) -> Iterator[str]:
        for each in cls.__subclasses__():
            yield from [each.name] if "name" in vars(each) else contracts(each)

    assert sorted(contracts(ProviderContract)) == sorted(kind.name for each in plugins() for kind in each.kinds)


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

    async def test_it_may_say_nothing(self, provider: ProviderServer, tmp_path: Path) -> None:
        end = {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 0}
        provider.script([Status(200, {"Content-Type": "application/x-ndjson"}), ollama_line("", **end)])
        async with serving(tmp_path / "data", llm_model=self.model, **self.settings(provider)) as server:
            events = await server.events(ask())
        assert only_terminal(events)["type"] == "run.completed"
        assert text_of(events) == ""

    async def test_a_key_for_openai_comes_first(self, provider: ProviderServer, tmp_path: Path) -> None:
        both = {**OllamaWire().settings(provider), **OpenAIWire().settings(provider), "llm_model": None}
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


def test_every_provider_has_its_contract() -> None:
    assert {c.name for c in ProviderContract.__subclasses__()} == set(plugins())


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
