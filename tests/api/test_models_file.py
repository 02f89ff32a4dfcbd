"""MODELS_FILE: providers of one's own, what their models can and cost, aliases; and what a wrong file says."""

import json
from pathlib import Path
from typing import Any

import pytest

from backend.config.settings import Settings, SettingsError
from backend.wiring import check
from tests.scenarios.support import ask, only_terminal
from tests.support.harness import serving, settings, text_of
from tests.support.provider_protocol import error
from tests.support.provider_server import ProviderServer

KEY, OTHER, HEADER = "sk-of-the-file-0123456789", "sk-of-the-environment-0123", "secret-of-a-header"
YAML = """
providers:
  work:
    kind: openai
    base_url: {url}
    api_key: {key}
    headers: {{x-team: {header}}}
    models:
      big:
        context: 128000
        max_output: 4096
        vision: true
        reasoning: false
        price: {{input: 2.5, output: 10, cached: 1.25}}
  my-box:
    kind: vllm
    base_url: {url}
  openai:
    models:
      gpt-4.1-mini:
        price: {{input: 1, output: 2}}
aliases:
  fast: work/small
  best: [work/big, my-box/other]
fallbacks:
  work/big: my-box/other
"""
TOML = """
[providers.work]
kind = "openai"
base_url = "{url}"
api_key = "{key}"
headers = {{x-team = "{header}"}}

[providers.work.models.big]
context = 128000
max_output = 4096
vision = true
reasoning = false
price = {{input = 2.5, output = 10, cached = 1.25}}

[providers.my-box]
kind = "vllm"
base_url = "{url}"

[providers.openai.models."gpt-4.1-mini"]
price = {{input = 1, output = 2}}

[aliases]
fast = "work/small"
best = ["work/big", "my-box/other"]

[fallbacks]
"work/big" = "my-box/other"
"""


@pytest.fixture(params=["models.yaml", "models.yml", "models.toml"])
def file(request: pytest.FixtureRequest, provider: ProviderServer, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    text = TOML if path.suffix == ".toml" else YAML
    path.write_text(text.format(url=provider.base_url, key=KEY, header=HEADER), encoding="utf-8")
    return path


async def test_what_it_says_is_there(file: Path, provider: ProviderServer, tmp_path: Path) -> None:
    provider.models = ["small"]
    async with serving(tmp_path / "data", models_file=file, llm_model="fast") as server:
        listed = (await server.client.get("/models")).json()
        assert listed["aliases"] == {"fast": ["work/small"], "best": ["work/big", "my-box/other"]}
        assert (listed["default"], listed["default_reason"]) == ("fast", "LLM_MODEL is set")
        work = next(p for p in listed["providers"] if p["provider"] == "work")
        assert work["models"] == ["work/small", "work/big"]
        assert work["details"][1] == {
            "name": "work/big",
            "kind": "chat",
            "context": 128000,
            "max_output": 4096,
            "vision": True,
            "tools": None,
            "reasoning": False,
            "structured_output": None,
            "temperature": None,
            "price": {"input": 2.5, "output": 10.0, "cached_input": 1.25},
        }
        events = await server.events(ask())
        assert (events[0]["model"], only_terminal(events)["type"]) == ("work/small", "run.completed")
        assert provider.calls[-1].headers["authorization"] == f"Bearer {KEY}"
        assert provider.calls[-1].headers["x-team"] == HEADER
        assert provider.calls[-1].json["max_tokens"] == 2000
        await server.events(ask(model="best"))
        assert provider.calls[-1].json["model"] == "big"
        refused = await server.client.post("/chat", json=ask(model="work/big", reasoning_effort="low"))
        assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_parameter")
        refused = await server.client.post("/chat", json=ask(model="work/big", max_tokens=5000))
        assert "4096" in refused.json()["detail"]


async def found_by_itself(folder: Path, text: str, **more: Any) -> dict[str, Any]:
    """What GET /models says of a server with this file and without LLM_MODEL."""
    file = folder / "models.yaml"
    file.write_text(text)
    async with serving(folder / "data", models_file=file, **more) as server:
        return (await server.client.get("/models")).json()


@pytest.mark.parametrize("kind", ["openai", "vllm"])
async def test_a_server_of_ones_own_answers_with_a_model_that_it_lists(
    kind: str, provider: ProviderServer, tmp_path: Path
) -> None:
    provider.models = ["bge-embed", "gemma", "qwen"]
    own = f"{{kind: {kind}, base_url: '{provider.base_url}'"
    assert (await found_by_itself(tmp_path, f"providers: {{work: {own}}}}}"))["default"] == "work/gemma"
    named = f"providers: {{work: {own}, models: {{gone: {{}}, qwen: {{}}}}}}}}"
    assert (await found_by_itself(tmp_path, named))["default"] == "work/qwen"


async def test_a_server_of_ones_own_without_a_list_answers_with_a_model_that_the_file_names(
    provider: ProviderServer, tmp_path: Path
) -> None:
    own = f"{{kind: openai, base_url: '{provider.base_url}'"
    provider.script(*[[error(404, "no", "x", None)]] * 5, path="/v1/models")
    found = await found_by_itself(tmp_path, f"providers: {{work: {own}, models: {{big: {{}}}}}}}}")
    assert found["default"] == "work/big"
    found = await found_by_itself(tmp_path, f"providers: {{work: {own}}}}}")
    assert found["default"] == "extractive/quotes"
    assert "set LLM_MODEL=work/<model>" in found["default_reason"]
    provider.models = []
    found = await found_by_itself(tmp_path, "providers: {}", openai_base_url=provider.base_url)
    assert found["default"] == "extractive/quotes"
    assert "set LLM_MODEL=openai/<model>" in found["default_reason"]


async def test_a_server_of_ones_own_comes_after_the_vendors_and_before_what_is_found(
    provider: ProviderServer, tmp_path: Path
) -> None:
    text = f"providers: {{work: {{kind: openai, base_url: '{provider.base_url}'}}}}"
    found = await found_by_itself(tmp_path, text, ollama_base_url=provider.root_url)
    assert found["default"] == "work/test-model"
    found = await found_by_itself(tmp_path, text, cohere_api_key=KEY, cohere_base_url=provider.root_url)
    assert found["default"] == "cohere/test-model"


async def test_several_of_a_kind_have_keys_of_their_own_and_the_environment_wins(
    file: Path, provider: ProviderServer, tmp_path: Path
) -> None:
    async with ProviderServer("From the other.") as other:
        more: dict[str, Any] = {"work_api_key": OTHER, "my_box_base_url": other.base_url}
        async with serving(tmp_path / "data", models_file=file, **more) as server:
            await server.events(ask(model="work/small"))
            assert provider.calls[-1].headers["authorization"] == f"Bearer {OTHER}"
            assert text_of(await server.events(ask(model="my-box/x"))) == "From the other."
            assert other.calls[-1].headers["authorization"] == "Bearer none"


async def test_no_secret_is_shown(file: Path, provider: ProviderServer, tmp_path: Path) -> None:
    loaded = settings(tmp_path / "data", models_file=file, work_api_key=OTHER)
    shown = [repr(loaded), str(loaded), loaded.model_dump_json()]
    async with serving(tmp_path / "data", models_file=file) as server:
        events = await server.events(ask(model="work/small"))
        wrong = await server.client.post("/chat", json=ask(model="wrok/small"))
        paths = ("/models", "/openapi.json", "/ready", f"/runs/{events[0]['run_id']}")
        shown += [json.dumps(events), wrong.text, *[(await server.client.get(path)).text for path in paths]]
        shown += [repr(server.services.models.catalog._endpoints)]
    assert "Did you mean work" in wrong.json()["detail"]
    assert [secret for secret in (KEY, OTHER, HEADER) for text in shown if secret in text] == []


async def test_an_address_is_shown_without_its_password(provider: ProviderServer, tmp_path: Path) -> None:
    url = provider.root_url.replace("http://", "http://user:pass-word@")
    async with serving(tmp_path / "data", ollama_base_url=url) as server:
        listed = await server.client.get("/models")
    assert "pass-word" not in listed.text


def refusal(folder: Path, text: str, name: str = "models.yaml", **more: Any) -> str:
    """The line with which a start ends."""
    file = folder / name
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError) as caught:
        check(settings(folder / "data", models_file=file, **more))
    line = str(caught.value)
    assert "\n" not in line and line.startswith("MODELS_FILE: ")
    assert KEY not in line
    return line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("providers: [", "models.yaml: is no YAML (line 1)"),
        ("a: 1\n  b: 2", "models.yaml: is no YAML (line 2)"),
        ("- a\n- b", "must have the sections providers, aliases, fallbacks"),
        ("", "must have the sections providers, aliases, fallbacks"),
        ("provider: {}", "models.yaml: provider: is unknown"),
        ("providers: {x: {kind: nosuch}}", "providers.x: kind 'nosuch' is unknown. Known: "),
        ("providers: {x: {base_url: 'http://a'}}", "providers.x: no built-in one has this name, so it needs a `kind`"),
        ("providers: {x: {models: {m: {tokenizer: t.json}}}}", "providers.x.models.m.tokenizer: there is no file "),
        ("providers: {openai: {models: {m: {tokenizer: models.yaml}}}}", "models.yaml is no tokenizer.json that can"),
        ("providers: {Big: {kind: openai}}", "'Big': names have lower-case letters"),
        ("providers: {x: {kind: openai, base_url: 'ftp://a'}}", "providers.x: base_url must be an http://"),
        (f"providers: {{x: {{kind: openai, api-key: {KEY}}}}}", "providers.x.api-key: is unknown"),
        ("providers: {x: {kind: openai, models: {m: {context: -1}}}}", "providers.x.models.m.context: "),
        ("providers: {x: {kind: openai, models: {m: {price: {input: a, output: 1}}}}}", "models.m.price.input: "),
        (
            "providers: {openai: {quirks: {limit: tokens}}}",
            "providers.openai.quirks.limit: Input should be 'max_tokens', 'max_completion_tokens', 'both' or 'none'",
        ),
        ("providers: {openai: {models: {m: {quirks: {nosuch: 1}}}}}", "openai.models.m.quirks.nosuch: is unknown"),
        (
            "providers: {openai: {quirks: {omit: [stop]}}}",
            "providers.openai.quirks.omit.0: Input should be 'temperature'",
        ),
        ("providers: {openai: {quirks: {think_tags: [a]}}}", "providers.openai.quirks.think_tags"),
        ("providers: {openai: {quirks: {think_tags: ['<a>', ' ']}}}", "quirks: think_tags must be two texts"),
        ("providers: {openai: {quirks: {think_tags: ['<a>', '']}}}", "quirks.think_tags.1"),
        ("providers: {openai: {quirks: {finish_reasons: {odd: fine}}}}", "quirks.finish_reasons.odd: Input should be"),
        ("aliases: {fast: nowhere}", "models.yaml: aliases.fast: 'nowhere' must be provider/model"),
        ("fallbacks: {openai/a: b}", "models.yaml: fallbacks.openai/a: 'b' must be provider/model"),
        ("aliases: {fast: []}", "aliases.fast: "),
        ("aliases: {fast: nosuch/x}", "aliases.fast: 'nosuch/x' is not provider/model"),
        ("fallbacks: {openai/a: nosuch/x}", "fallbacks.openai/a: 'nosuch/x' is not provider/model"),
        ("fallbacks: {a: openai/x}", "fallbacks: 'a' must be provider/model"),
        ("environment: {}", "must have the sections"),
        (f'providers: {{x: {{kind: openai, api_key: "{KEY}\\n{KEY}"}}}}', "providers.x.api_key: holds a line end"),
        (f'providers: {{x: {{kind: openai, headers: {{a: "{KEY}\\0"}}}}}}', "x.headers.a: holds a control character"),
        (
            f'providers: {{x: {{kind: openai, headers: {{"a b": {KEY}}}}}}}',
            "x.headers.a b.[key]: is no name of a header",
        ),
        ("providers: \udcff", "is not UTF-8 text"),
        ("!!python/object/apply:os.system ['true']", "is no YAML (line 1)"),
    ],
)
def test_a_wrong_file_stops_the_start_with_one_line(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_a_wrong_toml_says_where(tmp_path: Path) -> None:
    line = refusal(tmp_path, "[providers\n", "models.toml")
    assert "models.toml: is no TOML" in line and "line 1" in line


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"MODELS_FILE: .*nosuch.yaml: can't be read \(No such file"):
        settings(tmp_path / "data", models_file=tmp_path / "nosuch.yaml")


def test_an_address_of_the_environment_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^AZURE_BASE_URL: must be an http:// or https:// URL$"):
        check(settings(tmp_path / "data", azure_base_url="my-azure"))


@pytest.mark.parametrize("name", ["azure", "groq", "anthropic", "ollama"])
def test_a_key_of_the_environment_that_can_not_be_sent_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name.upper()}_API_KEY: holds a line end") as caught:
        check(settings(tmp_path / "data", **{f"{name}_api_key": f"{KEY}\n{KEY}"}))
    assert KEY not in str(caught.value)


def test_a_key_of_nobody_is_not_looked_at(tmp_path: Path) -> None:
    check(settings(tmp_path / "data", weather_api_key="one\ntwo"))


def test_an_alias_that_is_not_there_is_no_default(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LLM_MODEL: must be provider/model"):
        settings(tmp_path / "data", llm_model="fast")


def test_empty_sections_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("providers:\naliases:\n")
    loaded: Settings = settings(tmp_path / "data", models_file=file)
    check(loaded)
    assert loaded.providers.providers == {}
