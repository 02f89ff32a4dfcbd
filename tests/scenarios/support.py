"""What the live tests share: a client that watches a stream in the background, and looks into the database."""

import asyncio
import json
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import EventSource

from tests.support.harness import Running
from tests.support.provider_protocol import Gate, Send, Step, chunk, done, split, usage_chunk

Event = dict[str, Any]
TERMINAL = ("run.completed", "run.failed", "run.cancelled", "run.interrupted")


class Watch:
    """One client of a stream. Events are read by a task of its own; a test waits for the one it needs."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.events: list[Event] = []
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._read(), name="watch")

    async def _read(self) -> None:
        try:
            async for event in EventSource(self.response).aiter_sse():
                async with self._changed:
                    self.events.append({**json.loads(event.data), "_id": event.id})
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._changed.notify_all()

    @property
    def run_id(self) -> str:
        """From the header: it is there before the first event."""
        return self.response.headers["content-location"].removeprefix("/runs/")

    @property
    def session_id(self) -> str:
        return self.events[0]["session_id"]

    async def until(self, wanted: str | Callable[[Event], bool], timeout: float = 10) -> Event:
        """The first event of that type, or for which `wanted` is true; waits until it comes."""
        match = (lambda e: e["type"] == wanted) if isinstance(wanted, str) else wanted
        async with asyncio.timeout(timeout), self._changed:
            while True:
                for event in self.events:
                    if match(event):
                        return event
                assert not self._task.done(), f"the stream ended without it: {self.events}"
                await self._changed.wait()

    async def text(self, wanted: str) -> None:
        """Waits until the text so far holds `wanted`."""
        await self.until(lambda _: wanted in "".join(e.get("text", "") for e in self.events))

    async def all(self, timeout: float = 15) -> list[Event]:
        """Every event, when the stream has ended."""
        async with asyncio.timeout(timeout):
            await self._task
        return self.events

    async def leave(self) -> None:
        """The client goes away: its connection is closed."""
        self._task.cancel()
        with suppress(asyncio.CancelledError, httpx.TransportError):  # the server may have been killed
            await self._task
        await self.response.aclose()


@asynccontextmanager
async def watch(
    client: httpx.AsyncClient, path: str = "/chat", body: dict[str, Any] | None = None, **kwargs: Any
) -> AsyncIterator[Watch]:
    """Watch a POST /chat (with a body), or a run's events (without one)."""
    method = "GET" if body is None else "POST"
    async with client.stream(method, path, json=body, **kwargs) as response:
        assert response.status_code == 200, await response.aread()
        watching = Watch(response)
        try:
            yield watching
        finally:
            await watching.leave()


def frozen(port: int) -> socket.socket:
    """A client that asks and then reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    body = b'{"message":"hi","documents":false}'
    sock.sendall(b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    return sock


def ask(message: str = "Say something.", **more: Any) -> dict[str, Any]:
    """The body of a POST /chat that needs no documents."""
    return {"message": message, "documents": False, **more}


def gated(before: str, gate: asyncio.Event, after: str) -> list[Step]:
    """An answer of OpenAI's protocol that stops in the middle until the gate opens; one chunk a word."""
    return [
        chunk({"role": "assistant", "content": ""}),
        *words(before),
        Gate(gate),
        *words(after),
        chunk({}, "stop"),
        usage_chunk(7, 3),
        done(),
    ]


def words(text: str) -> list[Send]:
    """One chunk a word."""
    return [chunk({"content": piece}) for piece in split(text, "words")]


def only_terminal(events: list[Event]) -> Event:
    """The last event, which must be the one and only terminal one; the seqs before it have no gap."""
    ends = [e for e in events if e["type"] in TERMINAL]
    assert len(ends) == 1, events
    assert events[-1] is ends[0], "something came after the terminal event"
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    return ends[0]


def ordered(events: list[Event]) -> None:
    """The rules of protocol.md about order. Fails on a stream that breaks one."""
    assert events[0]["type"] == "run.started"
    only_terminal(events)
    is_open: str | None = None
    texts: dict[str, str] = {}
    sources: set[str] = set()
    for event in events[1:]:
        kind, _, step = event["type"].partition(".")
        assert event["type"] != "run.started"
        if kind in ("text", "reasoning") and step == "start":
            assert is_open is None, "parts interleave"
            is_open = event["part_id"]
            texts[event["part_id"]] = ""
        elif kind in ("text", "reasoning"):
            assert event["part_id"] == is_open
            texts[event["part_id"]] += event.get("text", "")
            is_open = None if step == "end" else is_open
        elif kind == "sources":
            sources |= {item["source_id"] for item in event["items"]}
        elif kind == "citation":
            assert event["source_id"] in sources, "cites a source that was not given"
            assert 0 <= event["start"] < event["end"] <= len(texts[event["part_id"]])
    assert is_open is None, "a part was never ended"


async def messages(server: Running, session_id: str, **params: Any) -> list[dict[str, Any]]:
    """The stored messages of a session."""
    response = await server.client.get(f"/sessions/{session_id}/messages", params=params)
    assert response.status_code == 200, response.text
    return response.json()["items"]


def said(message: dict[str, Any]) -> str:
    """The text of a stored message."""
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def rows(database: Path | Running, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """What the database file says, past everything of ours."""
    path = database.services.settings.storage.database_path if isinstance(database, Running) else database
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(sql, params).fetchall()
    finally:
        connection.close()
