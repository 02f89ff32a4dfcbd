"""What each protocol has a word for arrives under that word, and what the provider says of it comes back as ours."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.conftest import SharedServers
from tests.contract.protocols import (
    PROTOCOLS,
    AnthropicProtocol,
    CohereProtocol,
    GoogleProtocol,
    OllamaProtocol,
    OpenAIProtocol,
    ProviderProtocol,
    failed,
)
from tests.scenarios.support import ask, only_terminal, ordered
from tests.support.harness import text_of
from tests.support.provider_protocol import Send, Status, Step, answer, chunk
from tests.support.provider_server import ProviderServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLOUD = [protocol for protocol in PROTOCOLS if not isinstance(protocol, OllamaProtocol)]
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
STRICT = {**SCHEMA, "additionalProperties": False}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
DATA_URL = f"data:image/png;base64,{PIXEL}"
both = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda w: w.name)


@pytest.mark.parametrize("protocol", CLOUD, ids=lambda w: w.name)
async def test_a_prompt_that_is_too_long(protocol: Any, provider: ProviderServer, shared: SharedServers) -> None:
    server = await shared.with_settings(**protocol.settings(provider))
    await failed(server, provider, protocol.overflow(), "context_overflow", retryable=False)


@pytest.mark.parametrize("protocol", CLOUD, ids=lambda w: w.name)
async def test_a_content_filter_in_the_answer(protocol: Any, provider: ProviderServer, shared: SharedServers) -> None:
    server = await shared.with_settings(**protocol.settings(provider))
    script = protocol.filtered("Half an answer")
    await failed(server, provider, script, "content_filter", retryable=False, kept="Half an answer")


@pytest.mark.parametrize("protocol", [OpenAIProtocol(), AnthropicProtocol(), GoogleProtocol()], ids=lambda w: w.name)
async def test_a_content_filter_before_it(protocol: Any, provider: ProviderServer, shared: SharedServers) -> None:
    server = await shared.with_settings(**protocol.settings(provider))
    await failed(server, provider, protocol.blocked(), "content_filter", retryable=False)


async def reasoned(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers, script: list[Step], **asked: Any
) -> None:
    provider.script(script)
    server = await shared.with_settings(**protocol.settings(provider))
    events = await server.events(ask(**asked))
    ordered(events)
    assert only_terminal(events)["type"] == "run.completed"
    assert "".join(e["text"] for e in events if e["type"] == "reasoning.delta") == "Hm, let me see."
    assert text_of(events) == "It is so."


@both
async def test_what_it_thinks_aloud(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers
) -> None:
    asked = {} if isinstance(protocol, CohereProtocol) else {"reasoning_effort": "high"}
    await reasoned(protocol, provider, shared, protocol.thinking("Hm, let me see.", "It is so."), **asked)


@both
async def test_a_thought_in_the_text(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers
) -> None:
    script = protocol.whole("<think>\nHm, let me see.\n</think>\n\nIt is so.")
    await reasoned(protocol, provider, shared, script)


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "Hm, let me see."},
        {"reasoning": "Hm, let me see."},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm, let me see."}]}]},
        {"content": [{"type": "reasoning", "text": "Hm, let me see."}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Hm, let me see.", "index": 0, "signature": "x"}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm, let me see."}]},
        {
            "reasoning": "Hm, let me see.",
            "reasoning_details": [
                {"type": "reasoning.text", "text": "Hm, let me see."},
                {"type": "reasoning.encrypted", "data": "c2VjcmV0"},
            ],
        },
        {"thinking": "Hm, let me see."},
        {"thinking": {"content": "Hm, let me see."}, "reasoning_details": []},
        {"content": "<think>Hm, let me see.</think>"},
    ],
)
async def test_the_words_that_openai_kinds_have_for_it(
    delta: dict[str, Any], provider: ProviderServer, shared: SharedServers
) -> None:
    protocol = OpenAIProtocol()
    await reasoned(protocol, provider, shared, [chunk({"role": "assistant", **delta}), *answer("It is so.")])


async def test_content_in_parts_is_text(provider: ProviderServer, shared: SharedServers) -> None:
    protocol = OpenAIProtocol()
    provider.script([chunk({"content": [{"type": "text", "text": "In "}]}), *answer("parts.")])
    server = await shared.with_settings(**protocol.settings(provider))
    assert text_of(await server.events(ask())) == "In parts."


@both
async def test_one_that_asks_to_wait_for_an_hour_is_asked_once(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers
) -> None:
    (refused,) = protocol.refused(429)
    assert isinstance(refused, Status)
    provider.script([replace(refused, headers={**refused.headers, "Retry-After": "3600"})])
    server = await shared.with_settings(retry_seconds=4.0, **protocol.settings(provider))
    assert only_terminal(await server.events(ask()))["error"]["code"] == "rate_limited"
    assert len(provider.calls) == 1


# --- parameters

ASKED: dict[str, Any] = {"top_p": 0.5, "seed": 11, "stop": ["END", "FIN"], "temperature": 0.5, "max_tokens": 99}
SENT: dict[str, dict[str, Any]] = {
    "openai": {"top_p": 0.5, "seed": 11, "stop": ["END", "FIN"], "temperature": 0.5, "max_tokens": 99},
    "ollama": {"top_p": 0.5, "seed": 11, "stop": ["END", "FIN"], "temperature": 0.5, "num_predict": 99},
    "anthropic": {"top_p": 0.5, "stop_sequences": ["END", "FIN"], "temperature": 0.5, "max_tokens": 99},
    "google": {"topP": 0.5, "seed": 11, "stopSequences": ["END", "FIN"], "temperature": 0.5, "maxOutputTokens": 99},
    "cohere": {"p": 0.5, "seed": 11, "stop_sequences": ["END", "FIN"], "temperature": 0.5, "max_tokens": 99},
}


async def sent(settings: Mapping[str, Any], provider: ProviderServer, shared: SharedServers, **asked: Any) -> Any:
    """The request that the provider got."""
    server = await shared.with_settings(**settings)
    assert only_terminal(await server.events(ask(**asked)))["type"] == "run.completed"
    return provider.calls[-1].json


def options_of(body: Any) -> dict[str, Any]:
    return {**body, **body.get("options", {}), **body.get("generationConfig", {})}


def camel(value: Any) -> Any:
    """Google's names as it writes them itself; it takes both, and its SDK sends both."""
    if not isinstance(value, dict):
        return value
    return {re.sub(r"_(.)", lambda m: m[1].upper(), name): camel(inner) for name, inner in value.items()}


@both
async def test_each_parameter_has_its_own_name(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers
) -> None:
    refused = {"seed"} if isinstance(protocol, AnthropicProtocol) else set[str]()
    asked = {name: said for name, said in ASKED.items() if name not in refused}
    options = options_of(await sent(protocol.settings(provider), provider, shared, **asked))
    assert {name: options.get(name) for name in SENT[protocol.name]} == SENT[protocol.name]


@both
async def test_what_is_not_asked_is_not_sent(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers
) -> None:
    options = options_of(await sent(protocol.settings(provider), provider, shared))
    names = {"top_p", "topP", "p", "seed", "stop", "stop_sequences", "stopSequences", "reasoning_effort", "think"}
    assert [name for name in names if options.get(name) not in (None, [])] == []


@both
async def test_a_default_temperature_stands_back(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers
) -> None:
    """Vendors refuse it beside top_p."""
    options = options_of(await sent(protocol.settings(provider), provider, shared, top_p=0.5))
    assert "temperature" not in options


EFFORTS: dict[str, dict[str, Any]] = {
    "openai/test-model": {"reasoning_effort": "medium"},
    "ollama/test-model": {"think": True},
    "ollama/gpt-oss:20b": {"think": "medium"},
    "anthropic/claude-opus-5": {
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": "medium"},
    },
    "anthropic/claude-haiku-4-5": {"thinking": {"type": "enabled", "budget_tokens": 8192}, "max_tokens": 20_000},
    "google/gemini-3.5-flash": {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": "MEDIUM"}},
    "google/gemini-2.5-flash": {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 8192}},
    "openrouter/some/model": {"reasoning": {"effort": "medium"}},
    "mistral/test-model": {"reasoning_effort": "medium"},
}


@pytest.mark.parametrize("model", EFFORTS)
async def test_effort(model: str, provider: ProviderServer, shared: SharedServers) -> None:
    name = model.partition("/")[0]
    base = provider.base_url if name in ("openai", "openrouter", "mistral") else provider.root_url
    settings = {f"{name}_api_key": "k", f"{name}_base_url": base}
    asked = {"model": model, "reasoning_effort": "medium", "max_tokens": 20_000}
    options = options_of(await sent(settings, provider, shared, **asked))
    expected = EFFORTS[model]
    found = {name: options.get(name) for name in expected}
    assert (camel(found) if name == "google" else found) == expected
    assert "temperature" not in options


def _schema(body: Any) -> Any:
    """The schema in a request, wherever it is."""
    for path in (
        ("response_format", "json_schema", "schema"),
        ("response_format", "schema"),
        ("response_format", "json_schema"),
        ("format",),
        ("output_config", "format", "schema"),
        ("generationConfig", "responseJsonSchema"),
    ):
        found: Any = body
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if found is not None:
            return found
    return None


@both
async def test_a_schema_for_the_answer(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers
) -> None:
    body = await sent(protocol.settings(provider), provider, shared, response_schema=STRICT)
    assert _schema(body) == STRICT


@pytest.mark.parametrize(("schema", "strict"), [(STRICT, True), (SCHEMA, False)])
async def test_openai_is_held_to_a_schema_that_it_can_be_held_to(
    schema: dict[str, Any], strict: bool, provider: ProviderServer, shared: SharedServers
) -> None:
    body = await sent(OpenAIProtocol().settings(provider), provider, shared, response_schema=schema)
    assert body["response_format"]["json_schema"]["strict"] is strict


SHOWN: dict[str, Any] = {
    "openai": {"type": "image_url", "image_url": {"url": DATA_URL}},
    "cohere": {"type": "image_url", "image_url": {"url": DATA_URL}},
    "anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
    # As base64 for URLs, which Google takes too.
    "google": {"inlineData": {"mimeType": "image/png", "data": PIXEL.replace("+", "-").replace("/", "_")}},
}


@both
async def test_a_picture(protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers) -> None:
    """Shown with its message, in the turn that brings it and in those that follow."""
    images = [{"media_type": "image/png", "data": PIXEL}]
    server = await shared.with_settings(**protocol.settings(provider))
    first = await server.events(ask("What is it?", images=images))
    follow_up = await server.events(ask("And in its left corner?", session_id=first[0]["session_id"]))
    assert only_terminal(follow_up)["type"] == "run.completed"
    (asked,), (before, answered, again) = (_said(protocol, call.json) for call in provider.calls)
    for message in (asked, before):
        _shows(protocol, message, "What is it?")
    assert [_text(message) for message in (answered, again)] == [text_of(first), "And in its left corner?"]


def _said(protocol: ProviderProtocol, body: Any) -> list[Any]:
    said = body["contents"] if isinstance(protocol, GoogleProtocol) else body["messages"]
    return [message for message in said if message["role"] != "system"]


def _text(message: Any) -> str:
    if "parts" in message:
        (part,) = message["parts"]
        return part["text"]
    return message["content"]


def _shows(protocol: ProviderProtocol, message: Any, words: str) -> None:
    if isinstance(protocol, OllamaProtocol):
        assert (message["content"].strip(), message["images"]) == (words, [PIXEL])
        return
    text, image = message["parts"] if isinstance(protocol, GoogleProtocol) else message["content"]
    image = camel(image) if isinstance(protocol, GoogleProtocol) else image
    assert text["text"] == words
    assert {name: image.get(name) for name in SHOWN[protocol.name]} == SHOWN[protocol.name]


# --- what a server of the openai kind wants otherwise


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("openai", {"max_tokens": 9, "seed": 4, "stream_options": {"include_usage": True}}),
        ("azure", {"max_completion_tokens": 9, "seed": 4, "stream_options": {"include_usage": True}}),
        ("openrouter", {"max_tokens": 9, "seed": 4, "stream_options": {"include_usage": True}}),
        ("groq", {"max_completion_tokens": 9, "seed": 4, "stream_options": {"include_usage": True}}),
        ("mistral", {"max_tokens": 9, "random_seed": 4, "stream_options": None, "seed": None}),
        ("vllm", {"max_tokens": 9, "seed": 4, "stream_options": {"include_usage": True}}),
        ("llamacpp", {"max_tokens": 9, "seed": 4, "stream_options": {"include_usage": True}}),
    ],
)
async def test_what_a_kind_calls_it(
    kind: str, expected: dict[str, Any], provider: ProviderServer, shared: SharedServers
) -> None:
    settings = {f"{kind}_api_key": "k-1", f"{kind}_base_url": provider.base_url}
    body = await sent(settings, provider, shared, model=f"{kind}/m", max_tokens=9, seed=4)
    assert {name: body.get(name) for name in expected} == expected
    headers = provider.calls[-1].headers
    assert headers.get("api-key" if kind == "azure" else "authorization") in ("k-1", "Bearer k-1")


async def test_one_that_counts_in_its_last_chunk_is_counted(provider: ProviderServer, shared: SharedServers) -> None:
    """Mistral: with the finish reason, unasked."""
    usage = {"prompt_tokens": 70, "completion_tokens": 3, "total_tokens": 73}
    end = {"object": "chat.completion.chunk", "usage": usage}
    last = {**end, "choices": [{"index": 0, "delta": {"content": "!"}, "finish_reason": "stop"}]}
    provider.script([chunk({"content": "Yes"}), Send(f"data: {json.dumps(last)}\n\n".encode())])
    settings = {"mistral_api_key": "k", "mistral_base_url": provider.base_url}
    server = await shared.with_settings(**settings)
    events = await server.events(ask(model="mistral/m"))
    (counted,) = [e for e in events if e["type"] == "usage"]
    assert (counted["input_tokens"], counted["output_tokens"], counted.get("estimated")) == (70, 3, None)
    assert text_of(events) == "Yes!"


# --- what is refused before anybody is asked


@pytest.mark.parametrize(
    ("model", "asked", "words"),
    [
        ("anthropic/claude-sonnet-5", {"seed": 1}, "anthropic has no such parameter"),
        ("anthropic/claude-sonnet-5", {"temperature": 0.1}, "the model takes none"),
        ("anthropic/claude-sonnet-5", {"max_tokens": 999_999}, "writes at most"),
        ("cohere/command-a-03-2025", {"reasoning_effort": "low"}, "cohere has no such parameter"),
        ("deepseek/deepseek-chat", {"response_schema": SCHEMA}, "deepseek has no such parameter"),
        ("openai/gpt-4.1-mini", {"reasoning_effort": "low"}, "the model doesn't reason"),
        ("openai/gpt-3.5-turbo", {"images": [{"media_type": "image/png", "data": PIXEL}]}, "the model can't see"),
        ("extractive/quotes", {"top_p": 0.5}, "extractive has no such parameter"),
        ("simulated/words", {"stop": ["x"]}, "simulated has no such parameter"),
    ],
)
async def test_what_a_model_does_not_take(model: str, asked: dict[str, Any], words: str, shared: SharedServers) -> None:
    keys = {f"{name}_api_key": "sk-1" for name in ("anthropic", "cohere", "deepseek", "openai")}
    server = await shared.with_settings(llm_model="simulated/words", **keys)
    refused = await server.client.post("/chat", json=ask(model=model, **asked))
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_parameter")
    detail = refused.json()["detail"]
    assert words in detail
    assert detail.startswith(f"{next(iter(asked))}: {model}")
