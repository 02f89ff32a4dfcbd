"""Real servers: llama.cpp with a tiny model, over OpenAI's protocol and Anthropic's, and one killed in its answer."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.scenarios.support import ask, only_terminal, ordered, watch
from tests.support.harness import Running, serving, text_of
from tests.support.llama import Llama, llama, write_model

LONG = 1500
"""Tokens: seconds of writing."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_model(path)
    return path


@pytest.fixture(scope="module")
def real(weights: Path) -> Iterator[Llama]:
    with llama(weights) as server:
        yield server


def settings(real: Llama) -> dict[str, Any]:
    return {
        "llamacpp_base_url": real.base_url,
        "openai_base_url": real.base_url,
        "anthropic_base_url": real.root,
        "anthropic_api_key": "none",
    }


async def listed(server: Running, name: str) -> dict[str, Any]:
    found = (await server.client.get("/models")).json()["providers"]
    return next(p for p in found if p["provider"] == name)


@pytest.mark.parametrize("kind", ["llamacpp", "openai", "anthropic"])
async def test_it_answers(real: Llama, tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path / "data", **settings(real)) as server:
        models = (await listed(server, kind))["models"]
        assert len(models) == 1
        events = await server.events(ask(model=models[0], max_tokens=20, temperature=0))
        again = await server.events(ask(model=models[0], max_tokens=20, temperature=0))
    ordered(events)
    end = only_terminal(events)
    assert (end["type"], end["finish_reason"]) == ("run.completed", "length")
    (usage,) = [e for e in events if e["type"] == "usage"]
    assert (usage["output_tokens"], usage.get("estimated", False)) == (20, False)
    assert usage["input_tokens"] > 10
    assert len(text_of(events).split()) == 20
    assert text_of(again) == text_of(events)


async def test_both_wires_answer_and_count_alike(real: Llama, tmp_path: Path) -> None:
    async with serving(tmp_path / "data", **settings(real)) as server:
        found: list[tuple[str, int, int]] = []
        for kind in ("llamacpp", "anthropic"):
            (name,) = (await listed(server, kind))["models"]
            events = await server.events(ask(model=name, max_tokens=8, temperature=0))
            (usage,) = [e for e in events if e["type"] == "usage"]
            found.append((text_of(events), usage["input_tokens"], usage["output_tokens"]))
    assert found[0] == found[1]


async def test_parameters_are_heeded(real: Llama, tmp_path: Path) -> None:
    async with serving(tmp_path / "data", **settings(real)) as server:
        (name,) = (await listed(server, "llamacpp"))["models"]
        freely = ask(model=name, max_tokens=30, temperature=1.5)
        one, same = [text_of(await server.events({**freely, "seed": 5})) for _ in range(2)]
        other = text_of(await server.events({**freely, "seed": 6}))
        assert (one == same, one == other) == (True, False)
        word = one.split()[2]
        cut = await server.events({**freely, "seed": 5, "stop": [f" {word}"]})
        assert one.startswith(text_of(cut))
        assert word not in text_of(cut)
        assert only_terminal(cut)["finish_reason"] == "stop"


async def test_a_prompt_that_is_too_long_for_it(real: Llama, tmp_path: Path) -> None:
    async with serving(tmp_path / "data", **settings(real)) as server:
        for kind in ("llamacpp", "anthropic"):
            (name,) = (await listed(server, kind))["models"]
            events = await server.events(ask("x" * 30_000, model=name))
            assert only_terminal(events)["error"]["code"] == "context_overflow", kind


@pytest.mark.parametrize("kind", ["llamacpp", "anthropic"])
async def test_a_stop_ends_its_work(real: Llama, tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path / "data", **settings(real)) as server:
        (name,) = (await listed(server, kind))["models"]
        async with watch(server.client, body=ask(model=name, max_tokens=LONG)) as client:
            await client.until("text.delta")
            await server.client.post(f"/runs/{client.run_id}/cancel")
            assert only_terminal(await client.all())["type"] == "run.cancelled"
    async with asyncio.timeout(10), httpx.AsyncClient(trust_env=False) as client:
        while any(slot["is_processing"] for slot in (await client.get(f"{real.root}/slots")).json()):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("first", "second"), [("llamacpp", "anthropic"), ("anthropic", "llamacpp")])
async def test_another_one_takes_over_when_it_is_killed(
    weights: Path, real: Llama, tmp_path: Path, first: str, second: str
) -> None:
    with llama(weights) as doomed:
        mine = {**settings(real)}
        mine[f"{first}_base_url"] = doomed.base_url if first == "llamacpp" else doomed.root
        async with serving(tmp_path / "data", **mine) as server:
            (one,), (two,) = (await listed(server, first))["models"], (await listed(server, second))["models"]
            body = ask(model=one, fallbacks=[two], fallback_after_output=True, max_tokens=LONG)
            async with watch(server.client, body=body) as client:
                await client.until("text.delta")
                doomed.kill()
                events = await client.all(timeout=60)
            ordered(events)
            assert only_terminal(events)["type"] == "run.completed"
            switched = [(e["from"], e["to"], e["reason"]) for e in events if e["type"] == "model.switched"]
            assert switched == [(one, two, "provider_error")]
            spent = {e["model"]: bool(e.get("estimated")) for e in events if e["type"] == "usage"}
            assert spent == {one: True, two: False}
            # It is gone now: the next message doesn't wait for it, and says why.
            again = await server.events(ask(model=one, fallbacks=[two], max_tokens=5))
            assert [e["to"] for e in again if e["type"] == "model.switched"] == [two]
            assert len(text_of(again).split()) == 5
