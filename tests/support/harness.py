"""Real servers for tests: in this process on a free loopback port, or as a separate process that can be killed."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import EventSource

from backend.app import create_app
from backend.config.settings import Settings
from backend.routers.edge.services import Services
from backend.server import Server
from tests.support.shared import prepare, prepare_database

ROOT = Path(__file__).parents[2]
ALL_ON: dict[str, Any] = {}
"""The settings that turn on the routers that are off by default (`is_on` in ROUTERS), as overrides of `settings()`."""


@dataclass
class Running:
    """A server that runs in this process. `client` sends requests to it; `services` are its services."""

    base: str
    client: httpx.AsyncClient
    services: Services

    @property
    def port(self) -> int:
        """The port of the server."""
        return httpx.URL(self.base).port or 0

    async def events(self, body: dict[str, Any], **kwargs: Any) -> "list[dict[str, Any]]":
        """All events of one POST /chat."""
        async with self.client.stream("POST", "/chat", json=body, **kwargs) as response:
            assert response.status_code == 200, await response.aread()
            return await read_events(response)

    async def upload(self, name: str, data: bytes) -> dict[str, Any]:
        """The document's JSON, when the uploaded file is ready or has failed."""
        files = {"file": (name, data)}
        response = await self.client.post("/documents/upload", params={"wait": "true"}, files=files)
        assert response.status_code == 200, response.text
        return (await self.client.get(f"/documents/{response.json()['id']}")).json()


async def read_events(response: httpx.Response, stop_after: int | None = None) -> "list[dict[str, Any]]":
    """The events of an SSE response, read by httpx-sse. `_id` has the id of an event. At most `stop_after` events."""
    events: list[dict[str, Any]] = []
    async for event in EventSource(response).aiter_sse():
        events.append({**json.loads(event.data), "_id": event.id})
        if len(events) == stop_after:
            break
    return events


def text_of(events: "list[dict[str, Any]]") -> str:
    """The answer's text."""
    return "".join(e["text"] for e in events if e["type"] == "text.delta")


def settings(data_dir: Path, **overrides: Any) -> Settings:
    """Settings that don't depend on the machine: no `.env`, no Ollama."""
    defaults: dict[str, Any] = {
        "data_dir": data_dir,
        "port": 0,
        "log_level": "WARNING",
        "ollama_base_url": "http://127.0.0.1:9",
        "stream_delay": 0.0,
        "shutdown_grace": 0.2,
        "retry_seconds": 0.0,
        "auto_title": False,
        "summaries": False,
    }
    return Settings.load(env_file=None, **{**defaults, **overrides})


async def until_ready(services: Services) -> None:
    """Return when everything is loaded."""
    await services.core.readiness.wait()


@asynccontextmanager
async def serving(data_dir: Path, **overrides: Any) -> AsyncIterator[Running]:
    """A real uvicorn server on loopback in this event loop, when it is ready."""
    prepare(data_dir)
    prepare_database(data_dir)
    loaded = settings(data_dir, **overrides)
    app = create_app(loaded)
    server = Server(app, loaded)
    server.capture_signals = _no_signals  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve(), name="test server")
    try:
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the server did not start")
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        services: Services = app.state.services
        await until_ready(services)
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as client:
            yield Running(base, client, services)
    finally:
        server.should_exit = True
        await task


class _NoSignals:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _no_signals() -> _NoSignals:
    return _NoSignals()


def free_port() -> int:
    """The number of a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class ServerProcess:
    """`python -m backend.main` as a separate process. `start()` returns when the server is ready."""

    data_dir: Path
    env: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[str] | None" = None

    @property
    def base(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """The environment of the process: PATH, the settings of tests, and `env`."""
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "DATA_DIR": str(self.data_dir),
            "OLLAMA_BASE_URL": "http://127.0.0.1:9",
            "STREAM_DELAY": "0.01",
            "AUTO_TITLE": "0",
            "SUMMARIES": "0",
        }
        return {**variables, **self.env}

    def start(self, wait: bool = True) -> None:
        """Start the server, and wait until it is ready."""
        prepare(self.data_dir)
        prepare_database(self.data_dir)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "backend.main"],
            cwd=self.data_dir,
            env=self.environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while wait:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {self.process.stderr and self.process.stderr.read()}")
            try:
                if httpx.get(f"{self.base}/ready", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, timeout: float = 15) -> tuple[int, str]:
        """The exit code and the log. Stops the server with SIGTERM."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, logged = self.process.communicate(timeout=timeout)
        return self.process.returncode, logged
