"""What the API's tests share: looking at what is stored, and at how errors are told."""

import asyncio
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import EventSource

from tests.support.harness import Running

ALICE = "alice-0123456789abcdefghijkl"
BOB = "bob-9876543210zyxwvutsrqponm"
KEYS = f"alice:{ALICE},bob:{BOB}"
TABLES = (
    "sessions",
    "messages",
    "runs",
    "run_events",
    "images",
    "collections",
    "documents",
    "document_versions",
    "chunks",
    "jobs",
    "prompts",
    "prompt_versions",
    "prompt_labels",
)


def bearer(key: str) -> dict[str, str]:
    """The header of somebody with a key."""
    return {"Authorization": f"Bearer {key}"}


def data_dir(running: Running) -> Path:
    """Where a server's data lies."""
    return running.services.settings.storage.data_dir


def rows(folder: Path, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """What a query finds in a DATA_DIR's database."""
    conn = sqlite3.connect(folder / "streamforge.db")
    try:
        return conn.execute(sql, parameters).fetchall()
    finally:
        conn.close()


async def stored(running: Running) -> dict[str, Any]:
    """How many rows each table has, and the names of the files: to see that nothing was left behind. What somebody
    else uploaded is done by then."""
    folder = data_dir(running)
    async with asyncio.timeout(10):
        while rows(folder, "SELECT 1 FROM jobs WHERE stage = 'queued' AND reason_code IS NULL"):
            await asyncio.sleep(0.02)
    found: dict[str, Any] = {t: rows(folder, f"SELECT count(*) FROM {t}")[0][0] for t in TABLES}
    # An owner's collection is made at the first look, and is no trace of a document.
    del found["collections"]
    found["files"] = sorted(p.name for p in (folder / "files").iterdir())
    return found


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that a response is a whole problem document with this code; return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json"), response.text
    body = response.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["type"] == f"urn:streamforge:error:{code}"
    assert body["title"] and len(body["detail"]) > 10
    assert isinstance(body["retryable"], bool)
    assert body["request_id"] == response.headers["x-request-id"]
    return body


def unique(text: str) -> bytes:
    """The text with a line that no other test's file has: the same bytes would be the same document."""
    return f"{text}\n\nReference {uuid.uuid4().hex}.\n".encode()


async def document_events(running: Running, document_id: str, **kwargs: Any) -> list[dict[str, Any]]:
    """All events of GET /documents/{id}/events, by a parser that isn't ours."""
    async with running.client.stream("GET", f"/documents/{document_id}/events", **kwargs) as response:
        assert response.status_code == 200, await response.aread()
        return [event.json() async for event in EventSource(response).aiter_sse()]


async def idle(running: Running) -> None:
    """Return when no job is at work and nothing is left to be cleaned up."""
    documents = running.services.library.documents
    workers, holdings = documents._workers, documents._holdings
    while tasks := [*(task for _, task in workers._active.values()), *holdings._cleaning]:
        await asyncio.wait(tasks)


async def search(running: Running, query: str, **fields: Any) -> list[dict[str, Any]]:
    """The passages of POST /search."""
    response = await running.client.post("/search", json={"query": query, **fields})
    assert response.status_code == 200, response.text
    return response.json()["passages"]


def multipart(name: bytes, data: bytes, boundary: bytes = b"frontier") -> tuple[bytes, dict[str, str]]:
    """A multipart body with a file name of exactly these bytes, and its headers."""
    head = b'Content-Disposition: form-data; name="file"; filename="' + name + b'"'
    body = b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n--" + boundary + b"--\r\n"
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary.decode()}"}


def references(value: Any) -> Iterator[str]:
    """Every `$ref` in a JSON document."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "$ref":
                yield each
            else:
                yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)
