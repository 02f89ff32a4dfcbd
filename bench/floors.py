"""The two floors: the least work that a Python server can do with a provider's stream.

`python -m bench.floors passed PORT` copies the provider's bytes. `parsed` reads line by line, parses the JSON of each
token and sends one typed event, like a hand-written server. Both are bare ASGI under uvicorn, with aiohttp as the
client of the provider. Neither stores, validates or authorises anything.
"""

import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import uvicorn

UPSTREAM = os.environ.get("OPENAI_BASE_URL", "")
HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]


async def passed(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for data in response.content.iter_any():
        yield data


async def parsed(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    seq = 0
    async for line in response.content:
        if not line.startswith(b"data: {"):
            continue
        for choice in json.loads(line[6:])["choices"]:
            if text := choice["delta"].get("content"):
                seq += 1
                event = {"type": "text.delta", "seq": seq, "text": text}
                yield b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


class Floor:
    """The ASGI app. It makes its only client session at the first request."""

    def __init__(self, kind: str) -> None:
        self.translate = {"passed": passed, "parsed": parsed}[kind]
        self.session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.session is None:
            connector = aiohttp.TCPConnector(limit=0)
            self.session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        body = b""
        more = scope["method"] == "POST"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if body:
            request = json.loads(body)
            payload = {
                "model": request["model"],
                "stream": True,
                "messages": [{"role": "user", "content": "hi"}],
            }
            async with self.session.post(f"{UPSTREAM}/chat/completions", json=payload) as response:
                async for data in self.translate(response):
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"" if body else b"{}"})


if __name__ == "__main__":
    uvicorn.run(Floor(sys.argv[1]), port=int(sys.argv[2]), lifespan="off", log_level="warning", access_log=False)
