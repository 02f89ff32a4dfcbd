"""From one person without keys to several with keys: what `local` has is handed over, by the command of the docs."""

import subprocess
import sys
from pathlib import Path

from backend.storage.engine.database import update_schema
from tests.api.helpers import KEYS, rows
from tests.support.harness import ROOT, ServerProcess, serving

NAMES = [pair.partition(":")[0] for pair in KEYS.split(",")]
ALICE = {"Authorization": f"Bearer {KEYS.split(',')[0].partition(':')[2]}"}


def manage(data_dir: Path, *arguments: str, keys: str = KEYS) -> subprocess.CompletedProcess[str]:
    environment = {"DATA_DIR": str(data_dir), "API_KEYS": keys, "PATH": "/usr/bin"}
    command = [sys.executable, "-m", "backend.manage", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


async def test_what_local_has_becomes_alices(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with serving(data_dir) as server:
        text = "The port of Vell was founded in 1621."
        await server.client.post("/documents/text?wait=true", json={"name": "port.txt", "text": text})
        await server.client.post("/prompts", json={"name": "short", "system": "Be short."})
        await server.client.post("/chat", json={"message": "When was the port of Vell founded?"})
    async with serving(data_dir, api_keys=KEYS) as server:
        mine = {"name": "mine.txt", "text": "The library of Vell opens at nine."}
        await server.client.post("/documents/text?wait=true", json=mine, headers=ALICE)
        await server.client.post("/prompts", json={"name": "short", "system": "Be brief."}, headers=ALICE)
    done = manage(data_dir, "hand-over", "--to", "alice")
    assert done.returncode == 0, done.stderr
    assert "sessions: 1\n" in done.stdout and "documents: 1\n" in done.stdout
    async with serving(data_dir, api_keys=KEYS) as server:
        client = server.client
        assert len((await client.get("/sessions", headers=ALICE)).json()["items"]) == 1
        collections = (await client.get("/collections", headers=ALICE)).json()["items"]
        assert {each["name"] for each in collections} == {"default", "default-local"}
        prompts = (await client.get("/prompts", headers=ALICE)).json()["items"]
        assert {each["name"] for each in prompts} == {"short", "short-local"}
        ids = [each["id"] for each in collections]
        body = {"query": "When was the port of Vell founded?", "collections": ids}
        found = (await client.post("/search", json=body, headers=ALICE)).json()
        assert "1621" in str(found)
    assert rows(data_dir, "SELECT count(*) FROM messages WHERE owner = 'local'") == [(0,)]
    again = manage(data_dir, "hand-over", "--to", "alice")
    assert (again.returncode, again.stdout) == (0, "local has nothing.\n")


async def test_an_empty_collection_of_the_taker_makes_no_second_name(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with serving(data_dir) as server:
        await server.client.post("/documents/text?wait=true", json={"name": "a.txt", "text": "Some text."})
    async with serving(data_dir, api_keys=KEYS) as server:
        assert (await server.client.get("/collections", headers=ALICE)).status_code == 200
    assert manage(data_dir, "hand-over", "--to", "alice").returncode == 0
    assert rows(data_dir, "SELECT owner, name FROM collections") == [("alice", "default")]


def test_nothing_is_changed_without_a_known_taker_or_data(tmp_path: Path) -> None:
    for arguments, problem in (
        (["hand-over", "--to", "alice"], "there is no database"),
        (["hand-over", "--to", "mallory"], "'mallory' has no key"),
        (["hand-over", "--to", "local"], "another owner"),
    ):
        done = manage(tmp_path / "data", *arguments)
        assert not (tmp_path / "data").exists() or problem != "there is no database"
        update_schema(tmp_path / "data" / "streamforge.db")
        assert done.returncode == 2 and problem in done.stderr, done.stderr


def test_a_running_server_is_not_disturbed(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    server.start()
    try:
        done = manage(tmp_path / "data", "hand-over", "--to", "alice")
        assert done.returncode == 2 and "in use by another StreamForge process" in done.stderr
    finally:
        server.stop()
