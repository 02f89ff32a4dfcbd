"""Servers in processes of their own, for tests that kill them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.scenarios.support import rows
from tests.support.harness import ServerProcess
from tests.support.provider_server import ProviderServer


def using(provider: ProviderServer, **more: str) -> dict[str, str]:
    """An environment whose model is the scripted provider."""
    return {
        "OPENAI_API_KEY": "sk-test-0123456789",
        "OPENAI_BASE_URL": provider.base_url,
        "LLM_MODEL": "openai/test-model",
        "NO_PROXY": "127.0.0.1",
        **more,
    }


class Process:
    """A server that can be killed and started again; `client` calls it."""

    def __init__(self, server: ServerProcess, client: httpx.AsyncClient) -> None:
        self.server = server
        self.client = client

    @property
    def database(self) -> Path:
        return self.server.data_dir / "streamforge.db"

    async def start(self) -> None:
        # In a thread: the provider lives in this loop, and the server may ask it something.
        await asyncio.to_thread(self.server.start)

    async def kill_and_start(self) -> None:
        """kill -9, and the same again on the same port."""
        self.server.kill()
        await self.start()

    async def stored(self, run_id: str, upto: int) -> None:
        """Waits until the run's events up to this seq are in the database."""
        async with asyncio.timeout(10):
            while True:
                found = rows(self.database, "SELECT max(last_seq) FROM run_events WHERE run_id = ?", run_id)
                if (found[0][0] or 0) >= upto:
                    return
                await asyncio.sleep(0.02)


@asynccontextmanager
async def process(data_dir: Path, env: dict[str, str]) -> AsyncIterator[Process]:
    """A server process, killed at the end if it still lives."""
    server = ServerProcess(data_dir, env)
    async with httpx.AsyncClient(base_url=server.base, timeout=30, trust_env=False) as client:
        running = Process(server, client)
        try:
            await running.start()
            yield running
        finally:
            if server.process is not None and server.process.poll() is None:
                server.kill()
            if server.process is not None and server.process.stderr is not None:
                server.process.stderr.close()
