"""Servers of one's own: what they say about their models, Ollama's context, and servers that aren't there."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.protocols import KEY
from tests.scenarios.support import ask, only_terminal
from tests.support.harness import Running, serving, text_of
from tests.support.provider_protocol import Script, Status, json_response, ollama_line
from tests.support.provider_server import ProviderServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
_NOWHERE = "http://127.0.0.1:9"


def shown(context: int = 131_072, parameters: str = "", capabilities: tuple[str, ...] = ("completion",)) -> Script:
    """What `/api/show` says about a model."""
    info = {"general.architecture": "llama", "llama.context_length": context}
    return [json_response(200, {"parameters": parameters, "model_info": info, "capabilities": list(capabilities)})]


def answered(read: int) -> Script:
    """An answer of Ollama that counts so many tokens of the prompt."""
    end = {"done": True, "done_reason": "stop", "prompt_eval_count": read, "eval_count": 1}
    return [Status(200, {"Content-Type": "application/x-ndjson"}), ollama_line("Yes."), ollama_line("", **end)]


@asynccontextmanager
async def with_ollama(provider: ProviderServer, data: Path, **settings: Any) -> AsyncGenerator[Running]:
    async with serving(data, ollama_base_url=provider.root_url, llm_model="ollama/test-model", **settings) as server:
        yield server


async def models_of(server: Running, name: str) -> dict[str, Any]:
    listed = (await server.client.get("/models")).json()
    return next(p for p in listed["providers"] if p["provider"] == name) | {"default": listed["default"]}


async def contexts(provider: ProviderServer) -> list[int | None]:
    return [call.json["options"].get("num_ctx") for call in provider.calls if "purpose" not in call.json]


LONG = "word " * 6_000


async def test_ollama_is_asked_for_the_context_that_a_prompt_needs(provider: ProviderServer, tmp_path: Path) -> None:
    provider.script(shown(), path="/api/show")
    async with with_ollama(provider, tmp_path / "data", auto_title=False) as server:
        for text in ("Hello.", LONG, "Hello."):
            assert only_terminal(await server.events(ask(text)))["type"] == "run.completed"
    assert await contexts(provider) == [4096, 16_384, 16_384]
    asked = [call.path for call in provider.requests if call.path in ("/api/show", "/api/ps")]
    assert asked == ["/api/show", "/api/ps"], "not at every call"


@pytest.mark.parametrize(
    ("parameters", "longest", "memory", "context"),
    [
        ("num_ctx                        20000", 131_072, [], 20_000),
        ("num_ctx                        2048", 131_072, [], 16_384),
        ("", 8192, [], 8192),
        ("", 131_072, [{"name": "test-model:latest", "context_length": 65_536}], 65_536),
        ("", 131_072, [{"name": "other:latest", "context_length": 65_536}, {"nonsense": 1}], 16_384),
    ],
)
async def test_ollamas_own_figures_count(
    provider: ProviderServer, tmp_path: Path, parameters: str, longest: int, memory: list[Any], context: int
) -> None:
    provider.script(shown(longest, parameters), path="/api/show")
    provider.script([json_response(200, {"models": memory})], path="/api/ps")
    async with with_ollama(provider, tmp_path / "data") as server:
        await server.events(ask(LONG))
    assert (await contexts(provider))[0] == context


@pytest.mark.parametrize(
    "answer", [Status(500, {}, b"no"), Status(200, {}, b"[]"), Status(200, {}, b'{"model_info":7}')]
)
async def test_an_ollama_that_describes_nothing_answers_all_the_same(
    provider: ProviderServer, tmp_path: Path, answer: Status
) -> None:
    provider.script(*[[answer]] * 5, path="/api/show")
    async with with_ollama(provider, tmp_path / "data") as server:
        assert text_of(await server.events(ask(LONG))) == "Hello from the provider."
    assert (await contexts(provider))[0] == 16_384


async def test_a_context_that_is_set_is_the_one(provider: ProviderServer, tmp_path: Path) -> None:
    async with with_ollama(provider, tmp_path / "one", ollama_num_ctx=9_000) as server:
        await server.events(ask("Hello."))
    file = tmp_path / "models.yaml"
    file.write_text("providers: {ollama: {models: {test-model: {context: 7000}}}}")
    async with with_ollama(provider, tmp_path / "two", ollama_num_ctx=9_000, models_file=file) as server:
        await server.events(ask("Hello."))
        found = await models_of(server, "ollama")
    assert await contexts(provider) == [9_000, 7_000]
    assert found["details"][0]["context"] == 7_000


async def test_a_prompt_that_never_fits_is_refused_before_it_is_cut(provider: ProviderServer, tmp_path: Path) -> None:
    provider.script(shown(2048), path="/api/show")
    async with with_ollama(provider, tmp_path / "data") as server:
        fault = only_terminal(await server.events(ask(LONG)))["error"]
    assert (fault["code"], provider.calls) == ("context_overflow", [])


@pytest.mark.parametrize(("read", "is_cut"), [(6_020, False), (0, False), (4_096, True), (8_192, True)])
async def test_a_prompt_that_was_cut_is_told(
    provider: ProviderServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], read: int, is_cut: bool
) -> None:
    provider.script(shown(8192), path="/api/show")
    provider.script(answered(read))
    async with with_ollama(provider, tmp_path / "data") as server:
        events = await server.events(ask(LONG))
    (usage,) = [e for e in events if e["type"] == "usage"]
    end = only_terminal(events)
    assert (end["type"], text_of(events)) == ("run.completed", "Yes.")
    assert (usage.get("prompt_cut", False), end["usage"].get("prompt_cut", False)) == (is_cut, is_cut)
    assert ("ollama_cut_the_prompt" in capfd.readouterr().err) is is_cut


async def test_ollamas_models_say_what_they_can_do(provider: ProviderServer, tmp_path: Path) -> None:
    provider.models = ["plain", "seer", "names-lie", "all-minilm"]
    provider.script(
        shown(),
        shown(8192, capabilities=("completion", "vision", "thinking", "tools")),
        shown(capabilities=("embedding",)),
        [Status(404)],
        path="/api/show",
    )
    provider.script(*[shown(capabilities=("embedding",))] * 4, path="/api/show")
    async with serving(tmp_path / "data", ollama_base_url=provider.root_url) as server:
        found = await models_of(server, "ollama")
        details = {model["name"].removeprefix("ollama/"): model for model in found["details"]}
        shown_kinds = {name: details[name]["kind"] for name in provider.models}
        refused = await server.client.post("/chat", json=ask(model="ollama/names-lie"))
        blind = await server.client.post(
            "/chat", json=ask(model="ollama/plain", images=[{"media_type": "image/png", "data": _PIXEL}])
        )
    assert sorted(shown_kinds.values()) == ["chat", "chat", "embedding", "embedding"]
    assert (details["seer"]["vision"], details["seer"]["tools"], details["seer"]["context"]) == (True, True, 8192)
    assert (details["plain"]["vision"], details["plain"]["reasoning"]) == (False, False)
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_model")
    assert "its kind is embedding" in refused.json()["detail"]
    assert (blind.status_code, blind.json()["code"]) == (422, "unsupported_parameter")


_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def rows(*models: dict[str, Any]) -> Script:
    return [json_response(200, {"object": "list", "data": list(models)})]


async def test_a_vllm_and_a_llamacpp_tell_their_context(provider: ProviderServer, tmp_path: Path) -> None:
    properties = {"default_generation_settings": {"n_ctx": 4096}, "modalities": {"vision": True, "audio": False}}
    provider.script(
        rows({"id": "q", "owned_by": "vllm", "max_model_len": 32_768}),
        rows({"id": "s", "owned_by": "llamacpp", "meta": {"n_ctx_train": 131_072}}),
        path="/v1/models",
    )
    provider.script([json_response(200, properties)], path="/props")
    async with serving(tmp_path / "one", vllm_base_url=provider.base_url) as server:
        vllm = await models_of(server, "vllm")
    async with serving(tmp_path / "two", llamacpp_base_url=provider.base_url) as server:
        llama = await models_of(server, "llamacpp")
    assert [(m["kind"], m["context"], m["vision"]) for m in vllm["details"]] == [("chat", 32_768, None)]
    assert [(m["kind"], m["context"], m["vision"]) for m in llama["details"]] == [("chat", 4096, True)]


async def test_an_lm_studio_tells_what_its_models_are(provider: ProviderServer, tmp_path: Path) -> None:
    names = ("a-large-one", "an-embedder", "loaded-one")
    provider.script(rows(*({"id": n, "owned_by": "organization_owner"} for n in names)), path="/v1/models")
    said = [
        {"id": "a-large-one", "type": "llm", "state": "not-loaded", "max_context_length": 131_072},
        {"id": "an-embedder", "type": "embeddings", "state": "loaded", "max_context_length": 512},
        {"id": "loaded-one", "type": "vlm", "state": "loaded", "loaded_context_length": 4096},
    ]
    provider.script(rows(*said), path="/api/v0/models")
    async with serving(tmp_path / "data", openai_base_url=provider.base_url) as server:
        found = await models_of(server, "openai")
    assert found["default"] == "openai/loaded-one"
    kinds = {model["name"].removeprefix("openai/"): (model["kind"], model["context"]) for model in found["details"]}
    assert kinds == {"a-large-one": ("chat", 131_072), "an-embedder": ("embedding", 512), "loaded-one": ("chat", 4096)}


@pytest.mark.parametrize("path", ["/props", "/api/v0/models"])
@pytest.mark.parametrize("answer", [Status(500, {}, b"no"), Status(200, {}, b"[]"), Status(200, {}, b'{"data":[1]}')])
async def test_details_that_cannot_be_read_are_done_without(
    provider: ProviderServer, tmp_path: Path, path: str, answer: Status
) -> None:
    owner = "llamacpp" if path == "/props" else "organization_owner"
    provider.script(rows({"id": "x", "owned_by": owner}), path="/v1/models")
    provider.script([answer], path=path)
    async with serving(tmp_path / "data", openai_base_url=provider.base_url) as server:
        found = await models_of(server, "openai")
    assert (found["available"], found["models"], found["default"]) == (True, ["openai/x"], "openai/x")


NAMES = ["bge-reranker-v2-m3", "dall-e-3", "nomic-embed-text-v1.5", "qwen2.5-7b-instruct", "whisper-1"]


@pytest.mark.parametrize("name", ["openai", "ollama", "anthropic", "google", "cohere"])
async def test_the_default_chats_on_every_wire(provider: ProviderServer, tmp_path: Path, name: str) -> None:
    provider.models = NAMES
    url = provider.base_url if name == "openai" else provider.root_url
    settings = {f"{name}_base_url": url} | ({f"{name}_api_key": KEY} if name != "ollama" else {})
    async with serving(tmp_path / "data", **settings) as server:
        found = await models_of(server, name)
        assert found["default"] == f"{name}/qwen2.5-7b-instruct"
        kinds = [model["kind"] for model in sorted(found["details"], key=lambda model: model["name"])]
        assert kinds == ["reranker", "image", "embedding", "chat", "audio"]
        for model in NAMES:
            status = (await server.client.post("/chat", json=ask(model=f"{name}/{model}"))).status_code
            assert status == (200 if model.startswith("qwen") else 422), model


async def test_a_list_without_a_model_that_chats_has_no_default(provider: ProviderServer, tmp_path: Path) -> None:
    provider.models = ["nomic-embed-text-v1.5"]
    async with serving(tmp_path / "data", openai_base_url=provider.base_url) as server:
        listed = (await server.client.get("/models")).json()
    assert listed["default"] == "extractive/quotes"
    assert "LLM_MODEL=openai/<model>" in listed["default_reason"]


async def test_the_file_says_that_a_model_chats(provider: ProviderServer, tmp_path: Path) -> None:
    provider.models = ["bge-talk"]
    file = tmp_path / "models.yaml"
    file.write_text("providers: {openai: {models: {bge-talk: {kind: chat}}}}")
    async with serving(tmp_path / "data", openai_base_url=provider.base_url, models_file=file) as server:
        assert (await models_of(server, "openai"))["default"] == "openai/bge-talk"
        assert only_terminal(await server.events(ask()))["type"] == "run.completed"


@pytest.mark.parametrize("name", ["openai", "anthropic", "google", "cohere", "vllm", "llamacpp", "ollama", "mistral"])
async def test_a_server_that_is_not_there_is_not_available(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path / "data", **{f"{name}_base_url": _NOWHERE, f"{name}_api_key": KEY}) as server:
        found = await models_of(server, name)
    assert found["available"] is False
    assert f"{name.upper()}_BASE_URL" in found["reason"]
    assert found["default"] == "extractive/quotes"
