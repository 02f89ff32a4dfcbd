"""An answer has a largest size: it ends there, what came is kept, and the provider is left."""

from pathlib import Path

import pytest

from tests.scenarios.support import ask, messages, only_terminal, ordered
from tests.support.harness import serving, text_of
from tests.support.provider_protocol import Send, Stall, chunk
from tests.support.provider_server import ProviderServer

OPTIONS = {"openai_api_key": "sk-test-0123456789", "llm_model": "openai/test-model", "max_answer_mb": 0.05}
MOST = 50_000


def endless(field: str, piece: str) -> "list[Send | Stall]":
    """More of the same than any answer may have; the provider never ends it."""
    return [*(chunk({field: piece}) for _ in range(60)), Stall()]


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
@pytest.mark.parametrize("piece", ["x" * 1_000, "ü" * 700, "👍" * 350], ids=["one byte", "two bytes", "four bytes"])
async def test_an_answer_ends_at_its_largest_size(
    tmp_path: Path, provider: ProviderServer, field: str, piece: str
) -> None:
    provider.script(endless(field, piece))
    async with serving(tmp_path / "data", openai_base_url=provider.base_url, **OPTIONS) as server:
        events = await server.events(ask())
        ordered(events)
        end = only_terminal(events)
        assert (end["type"], end["error"]["code"], end["error"]["retryable"]) == ("run.failed", "too_long", False)
        assert "MAX_ANSWER_MB" in end["error"]["message"]
        text = "".join(e["text"] for e in events if e["type"].endswith(".delta"))
        assert MOST - 4 < len(text.encode()) <= MOST
        assert text == (piece * 60)[: len(text)]
        await (await provider.call(0)).disconnected()
        stored = (await messages(server, events[0]["session_id"]))[1]
        assert (stored["status"], stored["parts"][0]["text"]) == ("partial", text)
        (usage,) = [e for e in events if e["type"] == "usage"]
        assert (usage["status"], usage["estimated"]) == ("failed", True)


async def test_one_piece_that_is_too_large_is_cut(tmp_path: Path, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "y" * 200_000}), Stall()])
    async with serving(tmp_path / "data", openai_base_url=provider.base_url, **OPTIONS) as server:
        response = await server.client.post("/chat", json=ask(), headers={"Accept": "application/json"})
        assert (response.status_code, response.json()["code"]) == (502, "too_long")
        assert response.json()["text"] == "y" * MOST


async def test_an_answer_of_the_largest_size_is_complete(tmp_path: Path, provider: ProviderServer) -> None:
    provider.script([*(chunk({"content": "z" * 1_000}) for _ in range(50)), chunk({}, "stop")])
    async with serving(tmp_path / "data", openai_base_url=provider.base_url, **OPTIONS) as server:
        events = await server.events(ask())
        assert only_terminal(events)["type"] == "run.completed"
        assert text_of(events) == "z" * MOST
