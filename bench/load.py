"""The load client: opens streams, reads them, and records when each token arrives.

Events are decoded by httpx-sse, a parser that is not ours. Only the flat-out measure counts tokens by their
closing mark in the raw bytes, since there a full decoder would hold the servers back; `whole` proves first,
for each server, that the count and the decoder agree.
"""

import asyncio
import codecs
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from httpx_sse._decoders import SSEDecoder, SSELineDecoder

from .process import BenchError

TOKEN = re.compile(r"<(\d+\.\d+)> ")
Event = dict[str, Any]


class Reader:
    """Decodes the bytes of one response into events, with httpx-sse."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._lines = SSELineDecoder()
        self._events = SSEDecoder()

    def feed(self, data: bytes) -> Iterator[Event]:
        for line in self._lines.decode(self._utf8.decode(data)):
            event = self._events.decode(line)
            if event is not None and event.data.startswith("{"):
                yield json.loads(event.data)


def text_of(event: Event) -> str:
    """The text that an event adds to the answer. The event is a typed event, or OpenAI's if bytes were passed on."""
    if choices := event.get("choices"):
        return choices[0]["delta"].get("content") or ""
    return event.get("text", "") if event.get("type") == "text.delta" else ""


@dataclass
class Arrivals:
    """Times of tokens in seconds. `at`: when a token arrived, by the monotonic clock; `delay`: how long it was under
    way.
    """

    at: list[float] = field(default_factory=list)
    delay: list[float] = field(default_factory=list)

    def add(self, text: str, now: float) -> None:
        for sent in TOKEN.findall(text):
            self.at.append(now)
            self.delay.append(now - float(sent))


class Client:
    """Requests to one server; `body` makes the request for a model of the mock provider."""

    def __init__(self, url: str, body: Callable[[str], Event]) -> None:
        self._url, self._body = f"{url}/chat", body

    async def __aenter__(self) -> "Client":
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @asynccontextmanager
    async def stream(self, model: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._session.post(self._url, json=self._body(model)) as response:
            if response.status != 200:
                raise BenchError(f"{self._url} answered {response.status}: {(await response.text())[:500]}")
            yield response.content.iter_any()

    async def events(self, model: str) -> AsyncGenerator[tuple[Event, float]]:
        """The events, each with the time at which its bytes came."""
        reader = Reader()
        async with self.stream(model) as parts:
            async for data in parts:
                now = time.monotonic()
                for event in reader.feed(data):
                    if event.get("type") == "run.failed":
                        raise BenchError(f"the run failed: {event['error']}")
                    yield event, now

    async def whole(self, count: int) -> list[Event]:
        """The events of a flat-out answer of `count` tokens. Raises BenchError unless each token comes once and in
        order, and the count of closing marks is the same.
        """
        arrivals = Arrivals()
        events: list[Event] = []
        async for event, now in self.events(f"bench-flat-{count}"):
            events.append(event)
            arrivals.add(text_of(event), now)
        sent = [at - delay for at, delay in zip(arrivals.at, arrivals.delay, strict=True)]
        if len(sent) != count or sent != sorted(sent):
            raise BenchError(f"{len(sent)} of {count} tokens came, in order: {sent == sorted(sent)}")
        if await self.counted(f"bench-flat-{count}") != count:
            raise BenchError("tokens counted in the bytes differ from tokens decoded")
        return events

    async def counted(self, model: str) -> int:
        """The number of tokens of an answer, counted by their closing marks."""
        tokens = 0
        async with self.stream(model) as parts:
            async for data in parts:
                tokens += data.count(b">")
        return tokens

    async def first_token(self, model: str) -> float:
        """Seconds from the request to the first token; reads the stream to its end."""
        start = time.monotonic()
        first: float | None = None
        async for event, now in self.events(model):
            if first is None and text_of(event):
                first = now - start
        if first is None:
            raise BenchError("the stream ended without a token")
        return first

    async def paced(self, model: str, arrivals: Arrivals) -> None:
        async for event, now in self.events(model):
            if text := text_of(event):
                arrivals.add(text, now)


async def spread(count: int, over: float, start: Callable[[], asyncio.Task[None]]) -> list[asyncio.Task[None]]:
    """The `count` tasks, started evenly during `over` seconds."""
    begun = time.monotonic()
    tasks: list[asyncio.Task[None]] = []
    for i in range(count):
        await asyncio.sleep(begun + over * i / count - time.monotonic())
        tasks.append(start())
    return tasks
