"""`python -m backend.main` as a process: what stops the start, what it logs, and when it answers."""

import json
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.harness import ROOT, ServerProcess

KEY = "alice-0123456789abcdefghijkl"
MARKER = "zanzibarmarmalade"
SECRET = "sk-secret-0123456789abcdef"


def refused(folder: Path, **env: str) -> str:
    """The one line that a start with these variables ends with."""
    server = ServerProcess(folder / "data", env=env)
    done = subprocess.run(
        [sys.executable, "-m", "backend.main"],
        cwd=folder,
        env=server.environment(),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip()


def test_beyond_loopback_without_keys_it_refuses_to_start(tmp_path: Path) -> None:
    line = refused(tmp_path, HOST="0.0.0.0")
    assert "HOST=0.0.0.0" in line and "API_KEYS" in line
    assert not (tmp_path / "data").exists(), "nothing is made before the settings are right"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("API_KEYS", "alice:tooshort", "24"),
        ("LLM_MODEL", "nosuch/model", "extractive"),
        ("EMBEDDING_MODEL", "nosuch/model", "minilm"),
        ("EMBEDDING_MODEL", "openai/text-embedding-3-small", "OPENAI_API_KEY"),
        ("RERANKER", "onnx:/nowhere", "tokenizer.json"),
        ("RERANKER", "nosuch:thing", "cohere:https://"),
        ("DATABASE_URL", "postgresql://db/x", "sqlite"),
        ("TRUSTED_PROXIES", "10.0.0.300", "172.18.0.0/16"),
        ("HEAD_TIMEOUT", "0", "greater than 0"),
    ],
)
def test_a_wrong_value_stops_the_start_with_one_line(tmp_path: Path, name: str, value: str, said: str) -> None:
    line = refused(tmp_path, **{name: value})
    assert name in line and said in line
    assert "tooshort" not in line


def test_a_port_that_is_taken_stops_the_start_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refused(tmp_path, PORT=str(port)) == f"streamforge: port {port} is in use. Set PORT."


def test_a_folder_that_cant_be_made_is_named_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = refused(tmp_path, DATA_DIR=str(tmp_path / "file" / "x"))
    assert line == f"streamforge: DATA_DIR: {tmp_path}/file/x can't be made or written (Not a directory)"


def test_an_address_of_another_machine_stops_the_start_with_one_line(tmp_path: Path) -> None:
    keys = "alice:alice-0123456789abcdefghijkl"
    line = refused(tmp_path, HOST="192.0.2.1", API_KEYS=keys)
    assert "HOST=192.0.2.1" in line and "can't listen there" in line
    assert "HOST=no.such.host.invalid" in refused(tmp_path, HOST="no.such.host.invalid", API_KEYS=keys)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('9999')", "newer version"),
        (None, "can't be opened"),
    ],
)
def test_a_database_that_cant_be_used_stops_the_start_with_one_line(
    tmp_path: Path, content: str | None, said: str
) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "streamforge.db"
    if content is None:
        path.write_bytes(b"This is not a database. " * 100)
    else:
        conn = sqlite3.connect(path)
        conn.executescript(content)
        conn.close()
    before = path.read_bytes()
    line = refused(tmp_path)
    assert str(path) in line and said in line
    assert path.read_bytes()[:100] == before[:100] or content, "the file stays as it is"


def test_a_file_in_the_place_of_a_folder_stops_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "files").touch()
    assert "DATA_DIR" in refused(tmp_path) and "files can't be made" in refused(tmp_path)


def test_openai_embeddings_start_with_a_key(tmp_path: Path) -> None:
    """The port must answer; whether the provider can be reached is what /ready tells."""
    env = {
        "EMBEDDING_MODEL": "openai/text-embedding-3-small",
        "OPENAI_API_KEY": SECRET,
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
    }
    server = ServerProcess(tmp_path / "data", env=env)
    server.start(wait=False)
    answered = until_healthy(server)
    code, logged = server.stop()
    assert answered and code == 0, logged
    assert SECRET not in logged


def until_healthy(server: ServerProcess) -> bool:
    """Whether /health answers before the process ends."""
    assert server.process is not None
    deadline = time.monotonic() + 30
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            return httpx.get(f"{server.base}/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            time.sleep(0.01)
    return False


def test_a_second_process_on_the_same_data_is_refused(tmp_path: Path) -> None:
    first = ServerProcess(tmp_path / "data")
    first.start()
    second = ServerProcess(tmp_path / "data")
    second.start(wait=False)
    assert second.process is not None
    _, logged = second.process.communicate(timeout=20)
    assert second.process.returncode == 2
    assert len(logged.strip().splitlines()) == 1
    assert "in use" in logged and "DATA_DIR" in logged
    assert httpx.get(f"{first.base}/health", trust_env=False).status_code == 200
    first.kill()
    third = ServerProcess(tmp_path / "data")
    third.start()
    assert third.stop()[0] == 0


def session_of_calls(server: ServerProcess) -> dict[str, str]:
    """Upload, search, chat, fail and crash, with a marker in everything that a person writes; the ids seen."""
    with httpx.Client(
        base_url=server.base, trust_env=False, timeout=30, headers={"Authorization": f"Bearer {KEY}"}
    ) as c:
        assert c.get("/health", headers={"X-Request-ID": "mine-1"}).status_code == 200
        files = {"file": (f"{MARKER}.txt", f"The {MARKER} is kept in the vault of Anna.".encode())}
        upload = c.post("/documents/upload", params={"wait": "true"}, files=files)
        assert upload.json()["status"] == "ready", upload.text
        assert c.post("/search", json={"query": MARKER}).json()["passages"]
        body = {"message": f"Where is the {MARKER} kept?", "system_prompt": MARKER}
        answer = c.post("/chat", json=body, headers={"Accept": "application/json", "X-Request-ID": "mine-2"})
        assert MARKER in answer.json()["text"]
        for wrong in (
            {"message": MARKER, MARKER: 1},
            {"message": MARKER, "model": f"{MARKER}/x"},
            {"message": [MARKER]},
        ):
            assert c.post("/chat", json=wrong).status_code == 422
        c.get(f"/documents/{MARKER}")
        c.get(f"/{MARKER}", params={"q": MARKER})
        c.get("/sessions", headers={"Authorization": f"Bearer {SECRET}"})
        c.patch(f"/sessions/{answer.json()['session_id']}", json={"title": MARKER})
        scan = {"file": (f"{MARKER}.pdf", b"%PDF-1.7 " + MARKER.encode())}
        assert c.post("/documents/upload", params={"wait": "true"}, files=scan).json()["status"] == "failed"
        return {"run": answer.json()["run_id"], "document": upload.json()["id"]}


def test_json_logs_name_requests_and_runs_and_never_what_was_said(tmp_path: Path) -> None:
    env = {"LOG_FORMAT": "json", "LOG_LEVEL": "DEBUG", "API_KEYS": f"alice:{KEY}", "OPENAI_API_KEY": SECRET}
    server = ServerProcess(tmp_path / "data", env={**env, "LLM_MODEL": "extractive/quotes"})
    server.start()
    ids = session_of_calls(server)
    code, logged = server.stop()
    assert code == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in logged.splitlines()]
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    for secret in (MARKER, KEY, SECRET):
        assert secret not in logged, [line for line in logged.splitlines() if secret in line][:3]
    requests = [line for line in lines if line["event"] == "request"]
    assert {"mine-1", "mine-2"} <= {line["request_id"] for line in requests}
    assert {"/chat", "/search", "/documents/upload", "/documents/{document_id}"} <= {line["path"] for line in requests}
    assert [line for line in lines if line.get("run_id") == ids["run"]]
    assert [line for line in lines if line.get("document_id") == ids["document"]]
    assert not [line for line in lines if line["level"] in ("error", "critical")]


def test_the_first_lines_tell_where_and_what(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    server.start()
    _, logged = server.stop()
    for told in (server.base, f"{server.base}/docs", "extractive/quotes", "minilm/all-MiniLM-L6-v2", str(tmp_path)):
        assert told in logged, told
    assert "OPENAI_API_KEY" in logged, "it says what to set for more"


CRASH = """
import logging, sys
from backend.config.logging import configure_logging
from backend.config.groups.logs import LogSettings
import structlog
configure_logging(LogSettings(_env_file=None, log_format=sys.argv[1]))
def crash(message, api_key):
    raise RuntimeError("the error's own text")
try:
    crash("{0}" + "{1}", api_key="{0}" + "{1}")
except RuntimeError:
    structlog.get_logger("x").exception("it_crashed")
    logging.getLogger("y").exception("it crashed")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_in_the_log_holds_no_values_of_variables(tmp_path: Path, form: str) -> None:
    """Messages and keys are arguments of the functions in it."""
    code = CRASH.replace("{0}", MARKER[:6]).replace("{1}", MARKER[6:])
    command = [sys.executable, "-c", code, form]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert "RuntimeError" in done.stderr and "crash" in done.stderr
    assert MARKER not in done.stderr
    if form == "json":
        assert all(json.loads(line)["event"] for line in done.stderr.splitlines())


def test_health_answers_before_the_models_are_loaded(tmp_path: Path) -> None:
    """The process's own modules tell: when /health answers first, /ready does not yet."""
    server = ServerProcess(tmp_path / "data")
    server.start(wait=False)
    assert until_healthy(server)
    first = httpx.get(f"{server.base}/ready", trust_env=False)
    assert (first.status_code, first.json()["status"]) == (503, "starting")
    chat = httpx.post(f"{server.base}/chat", json={"message": "hi"}, timeout=60, trust_env=False)
    assert chat.status_code == 200 and "run.completed" in chat.text, "a request that comes early waits"
    assert httpx.get(f"{server.base}/ready", trust_env=False).status_code == 200
    assert server.stop()[0] == 0


def test_env_files_are_read_and_the_environment_wins(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", env={"LLM_MODEL": "extractive/quotes"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".env").write_text("LLM_MODEL=simulated/words\nMAX_RUNS=7\nSOMETHING_ELSE=1\nCHUNK_SIZE=\n")
    server.start()
    models = httpx.get(f"{server.base}/models", trust_env=False).json()
    assert models["default"] == "extractive/quotes"
    assert server.stop()[0] == 0
    (tmp_path / "data" / ".env").write_text("MAX_RUNS=many\n")
    server = ServerProcess(tmp_path / "data")
    server.start(wait=False)
    assert server.process is not None
    _, logged = server.process.communicate(timeout=20)
    assert server.process.returncode == 2
    assert logged.startswith("streamforge: MAX_RUNS: ") and len(logged.splitlines()) == 1
