"""Fan-out as one writes it by hand: an `asyncio.Queue` for each subscriber. `python -m bench.queues PORT`.

Bare ASGI under uvicorn with aiohttp towards the provider, as the parsed floor. `POST /chat` starts the only run there
is and streams it; each `GET /runs/{id}/events` is one more subscriber. Nothing is stored, so who comes late misses
what was, and queues have no bound.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import uvicorn

from .floors import HEADERS, UPSTREAM, parsed


class FanOut:
    """The ASGI app; one run at a time."""

    def __init__(self) -> None:
        self.subscribers: list[asyncio.Queue[bytes | None]] = []
        self.run: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "POST":
            request = json.loads((await receive())["body"])
            self.run = asyncio.create_task(self.publish(request["model"]))
        if scope["method"] == "POST" or scope["path"].endswith("/events"):
            async for event in self.subscribe():
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def subscribe(self) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.subscribers.append(queue)
        while (event := await queue.get()) is not None:
            yield event

    async def publish(self, model: str) -> None:
        payload = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.post(f"{UPSTREAM}/chat/completions", json=payload) as response,
        ):
            async for event in parsed(response):
                for queue in self.subscribers:
                    queue.put_nowait(event)
        for queue in self.subscribers:
            queue.put_nowait(None)
        self.subscribers.clear()


if __name__ == "__main__":
    uvicorn.run(FanOut(), port=int(sys.argv[1]), lifespan="off", log_level="warning", access_log=False)
