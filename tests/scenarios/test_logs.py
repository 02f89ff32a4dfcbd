"""What an operator finds in the log, and what callers never read in an answer."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from backend.config.groups.logs import LogSettings
from backend.config.logging import configure_logging
from tests.api.helpers import KEYS
from tests.support.harness import serving
from tests.support.provider_protocol import Stall, chunk, done, error, usage_chunk
from tests.support.provider_server import ProviderServer

ALICE = {"Authorization": f"Bearer {KEYS.split(',')[0].partition(':')[2]}"}


@contextmanager
def log_of(form: str = "json") -> Iterator[io.StringIO]:
    """Everything that is logged meanwhile."""
    configure_logging(LogSettings(_env_file=None, log_format=form, log_level="DEBUG"))  # type: ignore[call-arg]
    (handler,) = (h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler)
    handler.setStream(written := io.StringIO())
    try:
        yield written
    finally:
        configure_logging(LogSettings(_env_file=None))  # type: ignore[call-arg]


def records(written: io.StringIO, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    return [line for line in lines if line["event"] == event]


async def ended(written: io.StringIO) -> dict[str, Any]:
    async with asyncio.timeout(5):
        while not (found := records(written, "run_ended")):
            await asyncio.sleep(0.02)
    return found[-1]


async def test_the_end_of_a_run_says_who_what_how_much_and_how_long(tmp_path: Path, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "Hello."}), chunk({}, "stop"), usage_chunk(7, 3), done()])
    options = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url}
    async with serving(tmp_path / "data", llm_model="openai/m", api_keys=KEYS, **options) as server:
        with log_of() as written:
            await server.client.post("/chat", json={"message": "a secret question"}, headers=ALICE)
            line = await ended(written)
    assert (line["level"], line["status"], line["model"], line["owner"]) == ("info", "completed", "openai/m", "alice")
    assert (line["input_tokens"], line["output_tokens"]) == (7, 3)
    assert 0 <= line["first_token_ms"] <= line["ms"]
    assert {"run_id", "session_id", "request_id", "cost"} <= line.keys()
    assert "secret question" not in written.getvalue() and "Hello." not in written.getvalue()


async def test_a_failed_run_is_a_warning_with_its_code(tmp_path: Path, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "Hel"}), chunk({}, "content_filter"), done()])
    options = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url}
    async with serving(tmp_path / "data", llm_model="openai/m", **options) as server:
        with log_of() as written:
            await server.client.post("/chat", json={"message": "hi"})
            line = await ended(written)
    assert (line["level"], line["status"], line["code"]) == ("warning", "failed", "content_filter")


async def test_refused_callers_are_warnings_with_address_path_and_advice(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", api_keys=KEYS) as server:
        with log_of() as written:
            answers = [
                await server.client.get("/sessions/abc?key=hidden"),
                await server.client.post("/chat", json={}, headers={"Origin": "https://other.example"}),
                await server.client.get("/sessions", headers={"Host": "rag.example"}),
            ]
    lines = records(written, "request")
    assert [(line["status"], line["code"]) for line in lines] == [
        (401, "unauthorized"),
        (403, "foreign_origin"),
        (421, "wrong_host"),
    ]
    assert {(line["level"], line["address"]) for line in lines} == {("warning", "127.0.0.1")}
    assert [line["path"] for line in lines] == ["/sessions/abc", "/chat", "/sessions"]
    assert "CORS_ORIGINS=https://other.example" in lines[1]["advice"]
    assert "TRUSTED_HOSTS=rag.example" in lines[2]["advice"]
    assert "hidden" not in written.getvalue()
    for answer in answers:
        assert "CORS_ORIGINS" not in answer.text and "TRUSTED_HOSTS" not in answer.text


async def test_probes_are_seen_with_debug_only(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        with log_of() as written:
            for path in ("/health", "/ready", "/models", "/sessions/unknown"):
                await server.client.get(path)
    lines = {line["path"]: line for line in records(written, "request")}
    assert [line["level"] for line in lines.values()] == ["debug", "debug", "info", "info"]
    assert lines["/sessions/{session_id}"]["code"] == "not_found"


ADVISED = [
    ("POST", "/chat", {"message": "x" * 300}, 422, "MAX_MESSAGE_CHARS"),
    ("POST", "/documents/text", {"name": "a.txt", "text": "x" * 1_500_000}, 413, "MAX_UPLOAD_MB"),
    ("POST", "/documents/url", {"url": "http://example.com:81/"}, 422, "URL_ALLOWED_HOSTS"),
    ("GET", "/usage?owner=*", None, 403, "USAGE_ADMINS"),
    ("POST", "/chat", {"message": "hi", "model": "openai/gpt-4.1"}, 422, "OPENAI_API_KEY"),
]


@pytest.mark.parametrize("with_keys", [True, False])
async def test_only_who_runs_the_server_reads_what_to_set(tmp_path: Path, with_keys: bool) -> None:
    options: dict[str, Any] = {"max_message_chars": 100, "max_upload_mb": 1}
    headers = ALICE if with_keys else {}
    if with_keys:
        options["api_keys"] = KEYS
    async with serving(tmp_path / "data", **options) as server:
        for method, path, body, status, setting in ADVISED:
            answer = await server.client.request(method, path, json=body, headers=headers)
            assert answer.status_code == status, answer.text
            assert (setting in answer.json()["detail"]) is not with_keys, answer.text


@pytest.mark.parametrize("with_keys", [True, False])
async def test_the_end_of_a_stream_keeps_to_it(tmp_path: Path, provider: ProviderServer, with_keys: bool) -> None:
    provider.script([*(chunk({"content": "word "}) for _ in range(3)), Stall()])
    options: dict[str, Any] = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url}
    headers = ALICE if with_keys else {}
    if with_keys:
        options["api_keys"] = KEYS
    async with serving(tmp_path / "data", llm_model="openai/m", total_timeout=0.3, **options) as server:
        with log_of() as written:
            answer = await server.client.post("/chat", json={"message": "hi"}, headers=headers)
            assert "TOTAL_TIMEOUT" in (await ended(written))["advice"]
    assert "run.failed" in answer.text and "took longer than" in answer.text
    assert ("TOTAL_TIMEOUT" in answer.text) is not with_keys


@pytest.mark.parametrize("with_keys", [True, False])
async def test_so_does_a_refused_key(tmp_path: Path, provider: ProviderServer, with_keys: bool) -> None:
    provider.script([error(401, "no", "invalid_request_error", "invalid_api_key")])
    options: dict[str, Any] = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url}
    headers = ALICE if with_keys else {}
    if with_keys:
        options["api_keys"] = KEYS
    async with serving(tmp_path / "data", llm_model="openai/m", **options) as server:
        answer = await server.client.post("/chat", json={"message": "hi"}, headers=headers)
    assert "The provider refused the key." in answer.text
    assert ("OPENAI_API_KEY" in answer.text) is not with_keys


def test_the_console_is_for_people() -> None:
    """Short ids at the end of the line, nothing that is empty, and no long time stamp."""
    whole = "run_01a22f1c7989708e8bb0beec5e5a441c"
    with log_of("console") as written:
        structlog.get_logger("x").info("it_happened", run_id=whole, empty=None, path="/chat")
    line = written.getvalue().strip()
    assert line.endswith("it_happened path=/chat run_id=…5e5a441c"), line
    with log_of("json") as written:
        structlog.get_logger("x").info("it_happened", run_id=whole)
    assert json.loads(written.getvalue())["run_id"] == whole
