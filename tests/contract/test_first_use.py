"""The first use of a provider imports its packages, which takes seconds: not on the event loop, where it would stop all
streams."""

import os
import subprocess
import sys

import pytest

from tests.support.harness import ROOT

FIRST_USE = """
import asyncio, sys, threading
from pathlib import Path
from backend.kit.network.network import DIRECT
from tests.contract.clients import CLIENTS, Connection
from tests.support.provider_server import ProviderServer

client, modules = sys.argv[1], sys.argv[2].split(",")
on_loop = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in modules and threading.current_thread() is threading.main_thread():
            on_loop.append(name)

async def main():
    async with ProviderServer() as server:
        assert await CLIENTS[client](server, Connection(server.root_url, DIRECT, "sk-test-0123456789"))

sys.meta_path.insert(0, Watch())
asyncio.run(main())
print(sorted(on_loop), sorted(set(modules) - sys.modules.keys()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("client", "modules"),
    [
        ("openai answer", "langchain_openai,openai,httpx2"),
        ("ollama answer", "langchain_ollama,ollama,httpx,httpcore"),
        ("anthropic answer", "langchain_anthropic,anthropic,httpx2"),
        ("google answer", "langchain_google_genai,google.genai"),
        ("cohere answer", "langchain_cohere,cohere"),
        ("openai embeddings", "langchain_openai,openai"),
        ("ollama embeddings", "langchain_ollama,ollama"),
    ],
)
def test_what_the_first_use_imports_is_not_imported_on_the_event_loop(client: str, modules: str) -> None:
    command = [sys.executable, "-c", FIRST_USE, client, modules]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nowhere"}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.stdout.splitlines()[-1:] == ["[] []"], finished.stderr[-2000:]
