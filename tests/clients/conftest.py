"""A server whose model pauses between words, longer than the heartbeat: heartbeats fall between any two words."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scenarios.support import words
from tests.support.harness import Running, serving
from tests.support.provider_protocol import Sleep, Step, chunk, done, usage_chunk
from tests.support.provider_server import ProviderServer

HEARTBEAT_SECONDS = 0.1
PAUSE = 0.5
ANSWER = "Real clients read this."


def pausing(text: str = ANSWER, pause: float = PAUSE) -> list[Step]:
    """An answer of OpenAI's protocol with a pause before each word."""
    steps: list[Step] = [chunk({"role": "assistant", "content": ""})]
    for word in words(text):
        steps += [Sleep(pause), word]
    return [*steps, chunk({}, "stop"), usage_chunk(7, 3), done()]


@pytest.fixture
async def beating(tmp_path: Path, provider: ProviderServer) -> AsyncIterator[Running]:
    """The server, with a heartbeat of 0.1 s."""
    provider.default = lambda _: pausing()
    async with serving(
        tmp_path / "data",
        openai_api_key="sk-test-0123456789",
        openai_base_url=provider.base_url,
        llm_model="openai/test-model",
        heartbeat_seconds=HEARTBEAT_SECONDS,
    ) as running:
        yield running
