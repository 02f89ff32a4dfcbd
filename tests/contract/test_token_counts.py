"""What is booked for an answer, on every protocol: the provider's counts, or an estimate that is marked as one."""

import json
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
)
from tests.scenarios.support import ask, only_terminal
from tests.support.provider_protocol import Send, Step, chunk, done, ollama_line
from tests.support.provider_server import ProviderServer
from tests.support.provider_vendors import anthropic_begun, anthropic_event, cohere_begun, cohere_event, google_chunk

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("used_protocols")]
every = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
TEXT = "A long answer that took work. " * 20


def counted(protocol: ProviderProtocol, prompt: Any, completion: Any, **more: Any) -> list[Step]:
    """An answer with these counts."""
    match protocol:
        case OpenAIProtocol():
            usage = {"prompt_tokens": prompt, "completion_tokens": completion, **more}
            last = Send(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n")
            return [chunk({"content": TEXT}), chunk({}, "stop"), last, done()]
        case OllamaProtocol():
            counts = {"prompt_eval_count": prompt, "eval_count": completion, **more}
            return [*protocol.begun(TEXT), ollama_line("", done=True, done_reason="stop", **counts)]
        case AnthropicProtocol():
            usage = {"input_tokens": prompt, "output_tokens": completion, **more}
            start, *rest = anthropic_begun(("text", TEXT))
            assert isinstance(start, Send)
            start = Send(start.data.replace(b'"input_tokens": 7, "output_tokens": 1', b'"input_tokens": 0'))
            delta = {"stop_reason": "end_turn", "stop_sequence": None}
            end = [anthropic_event("message_delta", delta=delta, usage=usage), anthropic_event("message_stop")]
            return [start, *rest, *end]
        case GoogleProtocol():
            usage = {"promptTokenCount": prompt, "candidatesTokenCount": completion, **more}
            return [google_chunk({"text": TEXT}), google_chunk({"text": ""}, finish="STOP", usageMetadata=usage)]
        case CohereProtocol():
            counts = {"input_tokens": prompt, "output_tokens": completion}
            delta = {"finish_reason": "COMPLETE", "usage": {"billed_units": counts, **more}}
            return [*cohere_begun(TEXT), cohere_event("message-end", id="x", delta=delta)]


async def booked(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers, script: list[Step]
) -> dict[str, Any]:
    """The tokens of the answer, as its stream reports them."""
    provider.script(script)
    server = await shared.with_settings(**protocol.settings(provider))
    events = await server.events(ask())
    assert only_terminal(events)["type"] == "run.completed"
    (usage,) = [event for event in events if event["type"] == "usage"]
    names = ("input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens", "estimated")
    return {name: usage[name] for name in names if usage.get(name)}


@every
@pytest.mark.parametrize(
    ("prompt", "completion"),
    [(0, 0), (None, None), ("many", []), (-5, -5), (True, True), (1e300, 10**30), (float("nan"), float("inf"))],
    ids=["zeros", "nulls", "text", "negative", "booleans", "huge", "no numbers"],
)
async def test_counts_that_are_none_are_estimated(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers, prompt: Any, completion: Any
) -> None:
    tokens = await booked(protocol, provider, shared, counted(protocol, prompt, completion))
    assert 0 < tokens.pop("input_tokens") < 1000
    assert 100 < tokens.pop("output_tokens") < 1000
    assert tokens == {"estimated": True}


@every
async def test_what_is_missing_is_estimated(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers
) -> None:
    tokens = await booked(protocol, provider, shared, counted(protocol, 7, 0))
    assert (tokens["input_tokens"], tokens["estimated"]) == (7, True)
    assert tokens["output_tokens"] > 100
    tokens = await booked(protocol, provider, shared, counted(protocol, 0, 150))
    assert (tokens["output_tokens"], tokens["estimated"]) == (150, True)
    assert tokens["input_tokens"] > 0


@every
async def test_true_counts_stay(protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers) -> None:
    tokens = await booked(protocol, provider, shared, counted(protocol, 7, 150))
    assert tokens == {"input_tokens": 7, "output_tokens": 150}


@pytest.mark.parametrize(
    ("protocol", "counts", "more", "expected"),
    [
        # xAI: reasoning beside the completion. Gemini's OpenAI endpoint: only the total knows of it.
        (
            OpenAIProtocol(),
            (32, 150),
            {"total_tokens": 276, "completion_tokens_details": {"reasoning_tokens": 94}},
            {"input_tokens": 32, "output_tokens": 244, "reasoning_tokens": 94},
        ),
        (
            OpenAIProtocol(),
            (32, 150),
            {"total_tokens": 282},
            {"input_tokens": 32, "output_tokens": 250, "reasoning_tokens": 100},
        ),
        (
            OpenAIProtocol(),
            (32, 150),
            {"prompt_cache_hit_tokens": 20},
            {"input_tokens": 32, "output_tokens": 150, "cached_tokens": 20},
        ),
        (
            GoogleProtocol(),
            (32, 150),
            {"thoughtsTokenCount": 90, "totalTokenCount": 272, "cachedContentTokenCount": 20},
            {"input_tokens": 32, "output_tokens": 240, "reasoning_tokens": 90, "cached_tokens": 20},
        ),
        (
            GoogleProtocol(),
            (32, 150),
            {"totalTokenCount": 282},
            {"input_tokens": 32, "output_tokens": 250, "reasoning_tokens": 100},
        ),
        (
            AnthropicProtocol(),
            (32, 150),
            {"cache_read_input_tokens": 20, "cache_creation_input_tokens": 10},
            {"input_tokens": 62, "output_tokens": 150, "cached_tokens": 20},
        ),
        (
            CohereProtocol(),
            (0, 0),
            {"tokens": {"input_tokens": 32, "output_tokens": 150}},
            {"input_tokens": 32, "output_tokens": 150},
        ),
        (
            CohereProtocol(),
            (30, 140),
            {"tokens": {"input_tokens": 500, "output_tokens": 150}},
            {"input_tokens": 30, "output_tokens": 140},
        ),
    ],
    ids=["xai", "gemini", "deepseek", "thoughts", "unnamed thoughts", "cache", "only counted", "billed"],
)
async def test_what_each_vendor_calls_it(
    protocol: ProviderProtocol,
    counts: tuple[int, int],
    more: dict[str, Any],
    expected: dict[str, Any],
    provider: ProviderServer,
    shared: SharedServers,
) -> None:
    assert await booked(protocol, provider, shared, counted(protocol, *counts, **more)) == expected


async def test_usage_in_each_chunk_counts_once(provider: ProviderServer, shared: SharedServers) -> None:
    frames: list[Step] = []
    for number in (50, 100, 150):
        usage = {"prompt_tokens": 7, "completion_tokens": number, "total_tokens": 7 + number}
        body = {"choices": [{"index": 0, "delta": {"content": TEXT}, "finish_reason": None}], "usage": usage}
        frames.append(Send(b"data: " + json.dumps(body).encode() + b"\n\n"))
    tokens = await booked(OpenAIProtocol(), provider, shared, [*frames, chunk({}, "stop"), done()])
    assert tokens == {"input_tokens": 7, "output_tokens": 150}
