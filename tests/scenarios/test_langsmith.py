"""LangSmith, which sees every call of a model where its own variables say so, and nothing else."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.processes import process, using
from tests.support.collector import Listener, listening
from tests.support.harness import read_events, text_of
from tests.support.provider_protocol import Send, Step, answer, ollama_answer
from tests.support.provider_server import ProviderServer

QUESTION = "Which colour has the bridge at Elsmere?"
ANSWER = "Painted green in 1911."
SECRET = "sk-test-0123456789"


def anthropic_answer(text: str) -> list[Step]:
    """A message of Anthropic's API."""
    usage = {"input_tokens": 7, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "claude", "usage": usage}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 8},
        },
        {"type": "message_stop"},
    ]
    return [Send(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode()) for each in events]


PROTOCOLS: dict[str, tuple[str, str, Callable[[str], list[Step]]]] = {
    "openai": ("openai/test-model", "chat", answer),
    "ollama": ("ollama/test-model", "chat", ollama_answer),
    "anthropic": ("anthropic/claude", "chat", anthropic_answer),
}


def traced(provider: ProviderServer, langsmith: Listener, **more: str) -> dict[str, str]:
    """An environment with LangSmith at the listener."""
    return using(
        provider,
        OLLAMA_BASE_URL=provider.root_url,
        ANTHROPIC_API_KEY=SECRET,
        ANTHROPIC_BASE_URL=provider.root_url,
        LANGSMITH_ENDPOINT=langsmith.address,
        LANGSMITH_API_KEY="none",
        # Bodies that can be searched.
        LANGSMITH_DISABLE_RUN_COMPRESSION="true",
        **more,
    )


async def sent(langsmith: Listener, *words: str) -> bytes:
    """All that came, once these words were among it."""
    async with asyncio.timeout(20):
        while True:
            found = b"".join(body for _, body in list(langsmith.bodies))
            if all(word.encode() in found for word in words):
                return found
            await asyncio.sleep(0.05)


async def asked(folder: Path, env: dict[str, str], model: str) -> list[dict[str, Any]]:
    """The events of an answer by a server with this environment, which is stopped in order then."""
    async with process(folder / "data", env) as running:
        body = {"message": QUESTION, "model": model, "documents": False}
        async with running.client.stream("POST", "/chat", json=body) as response:
            events = await read_events(response)
        code, _ = await asyncio.to_thread(running.server.stop)
        assert code == 0
    return events


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_call_with_each_protocol_arrives_with_its_contents(
    tmp_path: Path, provider: ProviderServer, protocol: str
) -> None:
    model, path, script = PROTOCOLS[protocol]
    provider.script(script(ANSWER), path=path)
    with listening() as langsmith:
        events = await asked(tmp_path, traced(provider, langsmith, LANGSMITH_TRACING="true"), model)
        assert text_of(events) == ANSWER
        assert events[-1]["type"] == "run.completed"
        found = await sent(langsmith, QUESTION, ANSWER)
    assert SECRET.encode() not in found


async def test_inputs_and_outputs_can_be_hidden(tmp_path: Path, provider: ProviderServer) -> None:
    provider.script(answer(ANSWER))
    hidden = {"LANGSMITH_HIDE_INPUTS": "true", "LANGSMITH_HIDE_OUTPUTS": "true"}
    with listening() as langsmith:
        env = traced(provider, langsmith, LANGSMITH_TRACING="true", **hidden)
        await asked(tmp_path, env, "openai/test-model")
        found = await sent(langsmith, "test-model", '"end_time"')
    assert b"Elsmere" not in found
    assert b"green" not in found


async def test_nothing_is_sent_unless_tracing_is_on(tmp_path: Path, provider: ProviderServer) -> None:
    provider.script(answer(ANSWER))
    with listening() as langsmith:
        await asked(tmp_path, traced(provider, langsmith), "openai/test-model")
    assert langsmith.bodies == []


async def test_langsmith_away_disturbs_nothing(tmp_path: Path, provider: ProviderServer) -> None:
    provider.script(answer(ANSWER))
    with listening() as langsmith:
        env = traced(provider, langsmith, LANGSMITH_TRACING="true", LANGSMITH_TIMEOUT_MS="500")
    assert text_of(await asked(tmp_path, env, "openai/test-model")) == ANSWER
