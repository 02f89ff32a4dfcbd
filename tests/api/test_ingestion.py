"""Ingestion under attack: deleted, cut, killed; and a search sees all of a document or none."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from backend.chains.retrieval.index import VectorIndex
from backend.errors import EmbeddingFailed
from tests.api.helpers import data_dir, document_events, idle, rows, search, stored, unique
from tests.support.harness import Running, ServerProcess, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG = "\n\n".join(f"Paragraph {n}: the lighthouse of harbour {n} burns oil number {n * 7}. " * 6 for n in range(80))
"""More than a batch of chunks."""


def parts(running: Running) -> dict[str, Any]:
    """What a job works with."""
    workers = running.services.library.documents._workers
    holdings = workers._holdings
    embedder = holdings.embedders.default
    return {
        "parser": workers._parser,
        "embedder": embedder,
        "index": holdings.index,
        "jobs": holdings.jobs,
        "chunks": holdings.chunks,
    }


class Held:
    """A place in the ingestion where the work stops until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()


@asynccontextmanager
async def hold(target: Any, method: str) -> AsyncGenerator[Held]:
    """Stop before `target.method` runs."""
    real: Callable[..., Awaitable[Any]] = getattr(target, method)
    held = Held()

    async def stopped(*args: Any, **kwargs: Any) -> Any:
        held.reached.set()
        await held.go_on.wait()
        return await real(*args, **kwargs)

    setattr(target, method, stopped)
    try:
        yield held
    finally:
        held.go_on.set()
        setattr(target, method, real)


async def vectors(folder: Path) -> list[int]:
    """The chunks that have vectors in a DATA_DIR whose server has stopped."""
    index = VectorIndex(folder / "vectors")
    await index.open()
    try:
        return sorted([n for key in await index.keys() for n in await index.numbers(key)])
    finally:
        await index.close()


def chunks(folder: Path) -> list[int]:
    """The numbers of all stored chunks."""
    return [n for (n,) in rows(folder, "SELECT n FROM chunks ORDER BY n")]


def terms(folder: Path) -> list[int]:
    """What is in the lexical index of the only collection."""
    ((collection,),) = rows(folder, "SELECT id FROM collections")
    return [n for (n,) in rows(folder, f"SELECT rowid FROM lexical_{collection} ORDER BY rowid")]


@pytest.mark.parametrize(
    ("part", "method"),
    [("parser", "parse"), ("embedder", "embed_chunks"), ("index", "upsert"), ("jobs", "finish"), ("chunks", "add")],
)
async def test_delete_during_ingestion_leaves_nothing(tmp_path: Path, part: str, method: str) -> None:
    async with serving(tmp_path / "data") as running:
        before = await stored(running)
        async with hold(parts(running)[part], method) as held:
            response = await running.client.post("/documents/upload", files={"file": ("a.txt", LONG.encode())})
            await held.reached.wait()
            path = f"/documents/{response.json()['id']}"
            delete = asyncio.create_task(running.client.delete(path))
            receipt = (await delete).json()
            assert (receipt["vectors_left"], receipt["file_removed"]) == (0, True)
            held.go_on.set()
        await idle(running)
        assert await stored(running) == before
        await running.upload("after.txt", unique("After."))
    assert await vectors(tmp_path / "data") == chunks(tmp_path / "data") == terms(tmp_path / "data")


async def test_a_search_sees_all_of_a_documents_chunks_or_none(fresh: Running) -> None:
    async with hold(parts(fresh)["jobs"], "finish") as held:
        response = await fresh.client.post("/documents/upload", files={"file": ("a.txt", LONG.encode())})
        await held.reached.wait()
        # Every vector is in the index now, the first batch is stored, and nothing of it may be seen.
        assert await search(fresh, "lighthouse harbour", top_k=100) == []
        document = (await fresh.client.get(f"/documents/{response.json()['id']}")).json()
        assert document["status"] == "indexing"
        held.go_on.set()
    assert (await document_events(fresh, document["id"]))[-1]["document"]["status"] == "ready"
    found = await search(fresh, "lighthouse harbour", top_k=100)
    stored_chunks = chunks(data_dir(fresh))
    assert {int(p["chunk_id"].removeprefix("chk_")) for p in found} <= set(stored_chunks)
    # Passages are longer than chunks; together they hold all of the text but the blanks between them.
    assert sum(len(p["text"]) for p in found) > 0.98 * len(LONG)
    assert len(stored_chunks) > 64


async def test_a_document_that_waits_does_not_hide_the_others(fresh: Running) -> None:
    first = await fresh.upload("first.txt", unique("The first one speaks of cranes."))
    async with hold(parts(fresh)["embedder"], "embed_chunks") as held:
        await fresh.client.post("/documents/upload", files={"file": ("second.txt", unique("The second of cranes."))})
        await held.reached.wait()
        assert {p["document_id"] for p in await search(fresh, "cranes")} == {first["id"]}


async def test_an_embedding_that_fails_for_a_while_only_delays(fresh: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    # The time to wait until the next attempt is over at once.
    monkeypatch.setattr("backend.services.library.jobs.workers._FIRST_PAUSE_MS", 0)
    embedder = parts(fresh)["embedder"]
    real, failures = embedder.embed_chunks, 1

    async def failing(texts: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise EmbeddingFailed("The embedding provider could not be reached.")
        return await real(texts)

    embedder.embed_chunks = failing
    document = await fresh.upload("late.txt", unique("Late."))
    assert document["status"] == "ready"
    assert failures < 0


async def test_while_the_provider_is_away_documents_wait_and_say_why(
    fresh: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(texts: Any) -> Any:
        raise EmbeddingFailed("The embedding provider could not be reached. Check the address.")

    with monkeypatch.context() as patch:
        patch.setattr(parts(fresh)["embedder"], "embed_chunks", failing)
        response = await fresh.client.post("/documents/upload", files={"file": ("later.txt", unique("Later."))})
        path = f"/documents/{response.json()['id']}"
        # It may be seen at its next try already.
        while not (document := (await fresh.client.get(path)).json())["reason"] or document["status"] != "queued":
            await asyncio.sleep(0.01)
        assert document["reason_code"] == "embedding_failed"
        assert "could not be reached" in document["reason"]
    # By hand, without waiting for its next try.
    assert (await fresh.client.post(f"{path}/retry")).status_code == 202
    last = (await document_events(fresh, response.json()["id"]))[-1]["document"]
    assert last["status"] == "ready" and "reason" not in last


async def test_after_too_many_failures_the_reason_is_told(fresh: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.services.library.jobs.workers.MAX_WAITS", 1)

    async def failing(texts: Any) -> Any:
        raise EmbeddingFailed("The embedding provider could not be reached. Check the address.")

    with monkeypatch.context() as patch:
        patch.setattr(parts(fresh)["embedder"], "embed_chunks", failing)
        document = await fresh.upload("never.txt", unique("Never."))
        assert (document["status"], document["reason_code"]) == ("failed", "embedding_failed")
        assert "could not be reached" in document["reason"]
    await fresh.client.post(f"/documents/{document['id']}/retry")
    assert (await document_events(fresh, document["id"]))[-1]["document"]["status"] == "ready"


async def test_a_crash_of_ours_fails_the_document_without_details(
    fresh: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.services.library.jobs.workers.MAX_ATTEMPTS", 1)

    def broken(*_: object) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("backend.services.library.jobs.ingest.chunk", broken)
    document = await fresh.upload("crash.txt", unique("Crash."))
    assert (document["status"], document["reason_code"]) == ("failed", "internal")
    assert "secret" not in document["reason"]


@pytest.mark.parametrize("keep", [0, 1, 200, -1])
async def test_an_upload_cut_mid_body_leaves_nothing(api: Running, keep: int) -> None:
    before = await stored(api)
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        + b"word " * 100
        + b"\r\n--b--\r\n"
    )
    head = (
        f"POST /documents/upload HTTP/1.1\r\nHost: {api.base[7:]}\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", int(api.base.rpartition(":")[2]))
    writer.write(head.encode() + body[:keep])
    await writer.drain()
    sock: socket.socket = writer.get_extra_info("socket")
    sock.shutdown(socket.SHUT_RDWR)
    writer.close()
    await idle(api)
    after = await stored(api)
    assert after["documents"] == before["documents"]
    assert len(after["files"]) == len(before["files"])


async def test_what_a_crash_left_behind_is_swept_at_the_next_start(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as running:
        document = await running.upload("keep.txt", unique("Keep."))
        lost = await running.upload("lost.txt", unique("Lost."))
        # As if the process had died right after the first commit of the deletion.
        await running.services.library.documents._holdings.versions.begin_delete([lost["id"]])
        assert (await running.client.get(f"/documents/{lost['id']}")).status_code == 404
        index = parts(running)["index"]
        ((collection,),) = rows(data_dir(running), "SELECT id FROM collections")
        stray = np.ones((1, 384), np.float32)
        await index.upsert(f"{collection}-1", "minilm/all-MiniLM-L6-v2:384", [10**9], stray)
        await index.upsert(f"{collection}-7", "gone:384", [1], stray)
    (tmp_path / "data" / "files" / "ver_orphan").write_bytes(b"orphan")
    async with serving(tmp_path / "data") as running:
        assert [p.name for p in (tmp_path / "data" / "files").iterdir()] == [document["version"]]
        assert {p["document_id"] for p in await search(running, "keep")} == {document["id"]}
        assert rows(tmp_path / "data", "SELECT count(*) FROM document_versions") == [(1,)]
    assert await vectors(tmp_path / "data") == chunks(tmp_path / "data") == terms(tmp_path / "data")


async def test_vectors_that_got_lost_come_again(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as running:
        document = await running.upload("a.txt", LONG.encode())
        numbers = chunks(data_dir(running))
        await parts(running)["index"].delete(
            f"{rows(data_dir(running), 'SELECT id FROM collections')[0][0]}-1", numbers[3:5]
        )
    async with serving(tmp_path / "data") as running:
        assert (await running.client.get(f"/documents/{document['id']}")).json()["status"] == "ready"
        assert await search(running, "lighthouse"), "what is left is found meanwhile"
        while rows(data_dir(running), "SELECT stage FROM jobs") != [("ready",)]:
            await asyncio.sleep(0.01)
    assert await vectors(tmp_path / "data") == numbers == chunks(tmp_path / "data")


async def test_killed_during_ingestion_it_goes_on_after_the_restart(tmp_path: Path) -> None:
    data = "\n\n".join(f"Ship {n} carried cargo {n * 13} to berth {n % 17}. " * 12 for n in range(160)).encode()
    server = ServerProcess(tmp_path / "data")
    await asyncio.to_thread(server.start)
    async with httpx.AsyncClient(base_url=server.base, trust_env=False, timeout=60) as client:
        response = await client.post("/documents/upload", files={"file": ("ships.txt", data)})
        document_id = response.json()["id"]
        while True:
            document = (await client.get(f"/documents/{document_id}")).json()
            assert document["status"] != "ready", "the document is too small for this test"
            if document["progress"].get("done", 0) > 0:
                break
            await asyncio.sleep(0.02)
        server.kill()
    begun = chunks(tmp_path / "data")
    assert begun, "a batch is stored as soon as it has vectors"
    assert rows(tmp_path / "data", "SELECT active_version FROM documents") == [(None,)]
    server = ServerProcess(tmp_path / "data")
    await asyncio.to_thread(server.start)
    async with httpx.AsyncClient(base_url=server.base, trust_env=False, timeout=60) as client:
        running = Running(server.base, client, None)  # type: ignore[arg-type]
        last = (await document_events(running, document_id))[-1]["document"]
        assert last["status"] == "ready", (last, server.stop())
        text = (await client.get(f"/documents/{document_id}/text")).json()["text"]
        assert "Ship 159 carried cargo" in text
        only = [document_id]
        passage = (await search(running, "cargo 2067 ship 159", documents=only))[0]
        assert text[passage["start"] : passage["end"]] == passage["text"]
    await asyncio.to_thread(server.stop)
    ordinals = [r[0] for r in rows(tmp_path / "data", "SELECT ordinal FROM chunks ORDER BY ordinal")]
    assert ordinals == list(range(last["chunks"]))
    assert len(begun) < last["chunks"]
    assert await vectors(tmp_path / "data") == chunks(tmp_path / "data") == terms(tmp_path / "data")
