"""Clients that others wrote, each asking one question and reading the stream to its end."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from httpx_sse import aconnect_sse
from openai._streaming import SSEDecoder

from tests.scenarios.support import ask

NODE = Path(__file__).parent / "node"


class Message(NamedTuple):
    """What a client handed to its user as one event."""

    id: str
    data: str


Reader = Callable[[str], Awaitable[list[Message]]]
"""Takes the server's address; asks, and returns every message of the answer."""


async def httpx_sse(base: str) -> list[Message]:
    """httpx-sse on POST /chat."""
    async with (
        httpx.AsyncClient(base_url=base, trust_env=False) as client,
        aconnect_sse(client, "POST", "/chat", json=ask()) as source,
    ):
        return [Message(event.id, event.data) async for event in source.aiter_sse()]


async def openai_decoder(base: str) -> list[Message]:
    """The SSE decoder inside openai-python, on POST /chat."""
    async with (
        httpx.AsyncClient(base_url=base, trust_env=False) as client,
        client.stream("POST", "/chat", json=ask()) as response,
    ):
        return [Message(e.id or "", e.data) async for e in SSEDecoder().aiter_bytes(response.aiter_bytes())]


async def fetch_event_source(base: str) -> list[Message]:
    """@microsoft/fetch-event-source on POST /chat."""
    told = await node("fetch-event-source.mjs", f"{base}/chat", json.dumps(ask()))
    assert told[0] == {"kind": "response", "status": 200, "after": None}
    assert told[-1] == {"kind": "close"}
    return messages(told[1:-1])


async def eventsource(base: str) -> list[Message]:
    """npm's eventsource on GET /runs/{id}/events. It comes back once after the end, is told 204 and gives up."""
    async with (
        httpx.AsyncClient(base_url=base, trust_env=False) as client,
        client.stream("POST", "/chat", json=ask()) as response,
    ):
        path = response.headers["location"]
    told = await node("eventsource.mjs", base + path)
    assert told[0] == {"kind": "response", "status": 200, "after": None}
    ended, again, given_up = told[-3:]
    read = messages(told[1:-3])
    # A connection that ends is an error event by the standard; it says nothing and the source is not closed by it.
    assert ended == {"kind": "error", "closed": False}
    assert again == {"kind": "response", "status": 204, "after": read[-1].id}
    assert (given_up["kind"], given_up["code"], given_up["closed"]) == ("error", 204, True)
    return read


def messages(told: list[dict[str, Any]]) -> list[Message]:
    """What a node script told, which must be messages and nothing else."""
    assert {line["kind"] for line in told} == {"message"}, told
    return [Message(line["id"], line["data"]) for line in told]


async def node(script: str | Path, *args: str, timeout: float = 30) -> list[dict[str, Any]]:
    """The JSON lines that a script of tests/clients/node writes until it ends by itself, with exit code 0."""
    return [
        json.loads(line) for line in (await output("node", str(NODE / script), *args, timeout=timeout)).splitlines()
    ]


async def output(*command: str, timeout: float = 30, cwd: Path | None = None, **env: str) -> str:
    """What a command writes to stdout; it must end by itself, with exit code 0 and nothing on stderr."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, "NO_PROXY": "*", "NODE_NO_WARNINGS": "1", **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert (process.returncode, err.decode()) == (0, ""), err.decode()
    return out.decode()
