"""docs/run-it.md as it stands there: the service, nginx with TLS and logins, backup and restore."""

import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.api.helpers import rows
from tests.clients.docs import ROOT, snippet
from tests.clients.nginx import nginx
from tests.support.harness import serving

PAGE = "docs/run-it.md"
NAME = "rag.example.com"
ALICE, BOB = "a-long-random-text-of-alice", "another-long-random-text-of-bob"
KEYS = f"alice:{ALICE},bob:{BOB}"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for the name, signed by itself, and its key."""
    cert, key = folder / "fullchain.pem", folder / "privkey.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    more = ["-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, *more], check=True, capture_output=True)
    return cert, key


@asynccontextmanager
async def site(folder: Path, block: str, **more: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the name, with TLS, in front of a server with keys. `block` is nginx' server block."""
    cert, key = certificate(folder)
    for path, ours in ((r"\S+/fullchain\.pem", cert), (r"\S+/privkey\.pem", key)):
        block = re.sub(path, str(ours), block)
    context = ssl.create_default_context(cafile=str(cert))
    async with (
        serving(folder / "data", api_keys=KEYS, trusted_hosts=NAME, llm_model="simulated/words") as server,
        nginx(folder / "nginx", server.base, more.get("extra", ""), block) as base,
    ):
        transport = httpx.AsyncHTTPTransport(verify=context)
        extensions = {"sni_hostname": NAME}
        async with httpx.AsyncClient(base_url=base, headers={"Host": NAME}, transport=transport, timeout=30) as client:
            client.event_hooks["request"] = [_with(extensions)]
            yield client


def _with(extensions: dict[str, str]):
    async def add(request: httpx.Request) -> None:
        request.extensions = {**request.extensions, **extensions}

    return add


async def test_nginx_with_tls_a_name_and_keys(tmp_path: Path) -> None:
    async with site(tmp_path, snippet(PAGE, "Behind nginx, with TLS and a name", "nginx")) as client:
        key = {"Authorization": f"Bearer {ALICE}"}
        body = {"message": "Tell me three words."}
        page = {"Origin": f"https://{NAME}"}
        assert (await client.post("/chat", json=body)).status_code == 401
        assert "run.completed" in (await client.post("/chat", json=body, headers=key | page)).text
        foreign = await client.post("/chat", json=body, headers=key | {"Origin": "https://evil.example"})
        assert foreign.status_code == 403
        assert (await client.get("/sessions", headers=key | {"Host": "evil.example"})).status_code == 421


async def test_a_page_needs_no_key_where_nginx_adds_it(tmp_path: Path) -> None:
    section = "A page without a key in it"
    users, location = snippet(PAGE, section, "nginx"), snippet(PAGE, section, "nginx", 1)
    (tmp_path / "users").write_text("alice:{PLAIN}wonder\nbob:{PLAIN}builder\n")
    location = location.replace("/etc/nginx/streamforge.users", str(tmp_path / "users"))
    block = snippet(PAGE, "Behind nginx, with TLS and a name", "nginx")
    block = re.sub(r"    location / \{.*?\n    \}\n", lambda _: location, block, flags=re.S)
    async with site(tmp_path, block, extra=users) as client:
        body, page = {"message": "Tell me three words."}, {"Origin": f"https://{NAME}"}
        assert (await client.post("/chat", json=body, headers=page)).status_code == 401
        for name, password in (("alice", "wonder"), ("bob", "builder")):
            answer = await client.post("/chat", json=body, headers=page, auth=(name, password))
            assert "run.completed" in answer.text, answer.text
            sessions = (await client.get("/sessions", auth=(name, password))).json()["items"]
            assert len(sessions) == 1, "each login has its own"
    assert rows(tmp_path / "data", "SELECT owner, count(*) FROM sessions GROUP BY owner") == [("alice", 1), ("bob", 1)]


async def test_a_backup_of_a_running_server_is_restored(tmp_path: Path) -> None:
    data, copy, restored = tmp_path / "data", tmp_path / "copy", tmp_path / "restored"
    command = [sys.executable, "-m", "backend.manage", "backup", str(copy)]
    environment = {"DATA_DIR": str(data), "PATH": "/usr/bin"}
    document = {"name": "port.txt", "text": "The port of Vell was founded in 1621."}
    async with serving(data) as server:
        await server.client.post("/documents/text?wait=true", json=document)
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert again.returncode == 2 and "is not empty" in again.stderr
        await server.client.post("/documents/text?wait=true", json={"name": "late.txt", "text": "Not in the backup."})
    shutil.copytree(copy, restored)
    async with serving(restored) as server:
        answer = await server.client.post("/chat", json={"message": "When was the port of Vell founded?"})
        assert "1621" in answer.text and '"citation"' in answer.text
        documents = (await server.client.get("/documents")).json()["items"]
        assert len(documents) == 1
        content = await server.client.get(f"/documents/{documents[0]['id']}/content")
        assert content.text == document["text"]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = (
        snippet(PAGE, "As a service", "ini")
        .replace("/opt/streamforge", str(ROOT))
        .replace("User=streamforge", "User=root")
    )
    path = tmp_path / "streamforge.service"
    path.write_text(unit)
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60)
    assert "streamforge" not in done.stderr, done.stderr
