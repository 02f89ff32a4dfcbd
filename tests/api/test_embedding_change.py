"""EMBEDDING_MODEL is changed: what is embedded keeps serving with its own model, and can be brought to the new one."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from backend.chains.retrieval.index import VectorIndex
from tests.api.helpers import idle, problem, rows, search, stored, unique
from tests.support.harness import Running, serving
from tests.support.provider_server import Call, ProviderServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

REMOTE = "openai/test-embedding"
LOCAL = "minilm/all-MiniLM-L6-v2"
BOOK = "\n\n".join(
    f"Page {n}: the zeppelin of day {n} lands at pier {n % 7} with {n * 3} crates. " * 5 for n in range(90)
)


@pytest_asyncio.fixture(loop_scope="session")
async def embeddings() -> AsyncGenerator[ProviderServer]:
    """A provider of embeddings with 64 dimensions."""
    async with ProviderServer() as provider:
        yield provider


def remote(folder: Path, provider: ProviderServer, **more: Any) -> AbstractAsyncContextManager[Running]:
    return serving(folder, **{"embedding_model": REMOTE, **access(provider), **more})


def access(provider: ProviderServer) -> dict[str, Any]:
    return {
        "openai_api_key": "sk-test-0123456789",
        "openai_base_url": provider.base_url,
        "llm_model": "extractive/quotes",
    }


async def the_collection(running: Running) -> dict[str, Any]:
    (only,) = (await running.client.get("/collections")).json()["items"]
    return only


async def embedded(running: Running) -> dict[str, Any]:
    """The only collection, once its next embedding is built or has failed."""
    while True:
        collection = await the_collection(running)
        if collection["embedding"] is None or collection["embedding"]["status"] == "failed":
            return collection
        await asyncio.sleep(0.02)


async def vectors(folder: Path) -> dict[str, list[int]]:
    index = VectorIndex(folder / "vectors")
    await index.open()
    try:
        return {key: await index.numbers(key) for key in await index.keys()}
    finally:
        await index.close()


async def test_openai_embeddings_index_and_find(tmp_path: Path, embeddings: ProviderServer) -> None:
    async with remote(tmp_path / "data", embeddings) as running:
        document = await running.upload("a.txt", unique("The zeppelin lands on Tuesday."))
        assert document["status"] == "ready", document
        assert (await search(running, "zeppelin lands"))[0]["document_id"] == document["id"]
        assert (await the_collection(running))["fingerprint"] == f"{REMOTE}:64"


async def test_what_is_embedded_keeps_serving_with_its_own_model(tmp_path: Path, embeddings: ProviderServer) -> None:
    folder = tmp_path / "data"
    async with serving(folder) as running:
        document = await running.upload("a.txt", unique("The zeppelin lands on Tuesday."))
    async with remote(folder, embeddings) as running:
        before = sent(embeddings)
        assert (await search(running, "zeppelin"))[0]["document_id"] == document["id"]
        later = await running.upload("b.txt", unique("The airship lands on Friday."))
        assert later["status"] == "ready"
        assert (await the_collection(running))["fingerprint"] == f"{LOCAL}:384"
        assert sent(embeddings) == before, "the other model was asked"
        events = await running.events({"message": "When does the zeppelin land?"})
        assert events[-1]["type"] == "run.completed"
        # A new collection is embedded by the model that is set, and both are searched.
        other = (await running.client.post("/collections", json={"name": "other"})).json()
        files = {"file": ("c.txt", unique("The zeppelin needs a mast."))}
        params = {"collection": other["id"], "wait": "true"}
        assert (await running.client.post("/documents/upload", params=params, files=files)).json()["status"] == "ready"
        other = (await running.client.get(f"/collections/{other['id']}")).json()
        assert other["fingerprint"] == f"{REMOTE}:64"
        assert len({p["document_id"] for p in await search(running, "zeppelin")}) == 3
        within = await search(running, "zeppelin", budget_chars=100, top_k=50)
        assert 0 < sum(len(p["text"]) for p in within) <= 100, "one budget for both"


async def test_a_model_that_is_not_there_any_more_is_refused_with_what_to_do(
    tmp_path: Path, embeddings: ProviderServer
) -> None:
    folder = tmp_path / "data"
    async with remote(folder, embeddings) as running:
        document = await running.upload("a.txt", unique("The zeppelin lands on Tuesday."))
    async with serving(folder) as running:
        before = await stored(running)
        calls = [
            ("/documents/upload", {"files": {"file": ("b.txt", unique("Other."))}}),
            ("/search", {"json": {"query": "zeppelin"}}),
            ("/search", {"json": {"query": "zeppelin", "documents": [document["id"]]}}),
            ("/chat", {"json": {"message": "When does the zeppelin land?"}}),
        ]
        for path, body in calls:
            said = problem(await running.client.post(path, **body), 409, "embedding_mismatch")
            assert "/embed" in said["detail"] and REMOTE in said["detail"]
        assert await stored(running) == before
        # What needs no embedding goes on: chat without documents, reading, listing, deleting.
        events = await running.events({"message": "hi", "documents": False})
        assert events[-1]["type"] == "run.completed"
        assert (await running.client.get(f"/documents/{document['id']}/text")).status_code == 200
        # And the way out works.
        collection = await the_collection(running)
        response = await running.client.post(f"/collections/{collection['id']}/embed", json={"model": LOCAL})
        assert response.status_code == 202, response.text
        assert (await embedded(running))["fingerprint"] == f"{LOCAL}:384"
        assert (await search(running, "zeppelin lands"))[0]["document_id"] == document["id"]


async def test_a_collection_is_embedded_anew_while_it_serves(tmp_path: Path, embeddings: ProviderServer) -> None:
    """Documents come, change and go meanwhile: at every moment each is found, and at the end all are embedded anew."""
    folder = tmp_path / "data"
    async with serving(folder, **access(embeddings)) as running:
        book = await running.upload("book.txt", BOOK.encode())
        gone = await running.upload("gone.txt", unique("The gondola sinks."))
        changed = await running.upload("changed.txt", unique("The balloon is red."))
        collection = await the_collection(running)
        gate = asyncio.Event()
        embedder = await running.services.library.collections._holdings.embedders.by_name(REMOTE)
        real = embedder.embed_chunks

        async def held(chunks: Any) -> Any:
            vectors = await real(chunks)
            await gate.wait()
            return vectors

        embedder.embed_chunks = held
        path = f"/collections/{collection['id']}"
        assert (await running.client.post(f"{path}/embed", json={"model": REMOTE})).status_code == 202
        again = await running.client.post(f"{path}/embed", json={"model": REMOTE})
        assert again.json()["embedding"]["model"] == REMOTE
        problem(await running.client.post(f"{path}/embed", json={"model": LOCAL}), 409, "embedding_running")
        new = await running.upload("new.txt", unique("The glider is new."))
        await running.client.delete(f"/documents/{gone['id']}")
        files = {"file": ("changed.txt", unique("The balloon is blue."))}
        params = {"wait": "true"}
        await running.client.put(f"/documents/{changed['id']}/content", files=files, params=params)
        assert (await search(running, "zeppelin"))[0]["document_id"] == book["id"]
        assert (await search(running, "glider new"))[0]["document_id"] == new["id"]
        gate.set()
        while (await the_collection(running))["embedding"] is not None:
            assert {p["document_id"] for p in await search(running, "zeppelin of day 50", top_k=1)} == {book["id"]}
        after = await the_collection(running)
        assert (after["fingerprint"], after["generation"]) == (f"{REMOTE}:64", 2)
        for query, document in (("zeppelin crates", book), ("glider new", new), ("balloon blue", changed)):
            assert (await search(running, query))[0]["document_id"] == document["id"]
        assert "red" not in str(await search(running, "balloon", top_k=100))
        assert "gondola" not in str(await search(running, "gondola", top_k=100))
        later = await running.upload("later.txt", unique("The kite comes later."))
        assert (await search(running, "kite later"))[0]["document_id"] == later["id"]
    async with serving(folder, **access(embeddings)):
        pass  # what the process hadn't cleaned up when it ended is swept at the next start
    numbers = [n for (n,) in rows(folder, "SELECT n FROM chunks ORDER BY n")]
    assert await vectors(folder) == {f"{collection['id']}-2": numbers}


async def test_embedding_anew_is_cancelled_and_nothing_is_left_of_it(
    tmp_path: Path, embeddings: ProviderServer
) -> None:
    folder = tmp_path / "data"
    async with serving(folder, **access(embeddings)) as running:
        document = await running.upload("book.txt", BOOK.encode())
        collection = await the_collection(running)
        embedder = await running.services.library.collections._holdings.embedders.by_name(REMOTE)
        began, real = asyncio.Event(), embedder.embed_chunks

        async def slow(chunks: Any) -> Any:
            began.set()
            await asyncio.sleep(0.1)
            return await real(chunks)

        embedder.embed_chunks = slow
        path = f"/collections/{collection['id']}/embed"
        await running.client.post(path, json={"model": REMOTE})
        await began.wait()
        response = await running.client.delete(path)
        assert response.json()["embedding"] is None
        assert (await the_collection(running))["generation"] == 1
        assert (await search(running, "zeppelin"))[0]["document_id"] == document["id"]
        assert (await running.client.delete(path)).status_code == 200
    assert set(await vectors(folder)) == {f"{collection['id']}-1"}


async def test_killed_while_it_embeds_anew_it_goes_on(tmp_path: Path, embeddings: ProviderServer) -> None:
    folder = tmp_path / "data"
    async with serving(folder, **access(embeddings)) as running:
        one = await running.upload("one.txt", unique("The zeppelin lands."))
        await running.upload("book.txt", BOOK.encode())
        collection = await the_collection(running)
        embedder = await running.services.library.collections._holdings.embedders.by_name(REMOTE)
        real, calls, stuck = embedder.embed_chunks, 0, asyncio.Event()

        async def dies(chunks: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                stuck.set()
                await asyncio.sleep(3600)
            return await real(chunks)

        embedder.embed_chunks = dies
        await running.client.post(f"/collections/{collection['id']}/embed", json={"model": REMOTE})
        await stuck.wait()
    before = len(embeddings.requests)
    async with serving(folder, **access(embeddings)) as running:
        collection = await embedded(running)
        assert collection["generation"] == 2, collection
        assert (await search(running, "zeppelin lands", documents=[one["id"]]))[0]["document_id"] == one["id"]
    texts = [text for request in embeddings.requests[before:] for text in inputs(request)]
    assert not [text for text in texts if text.startswith("The zeppelin lands.\n\nReference")], (
        "that one had its vectors"
    )


def sent(provider: ProviderServer) -> list[str]:
    """Every text that came to be embedded, but for those that only ask for the dimension."""
    return [text for request in provider.requests for text in inputs(request) if text != "dimension"]


def inputs(request: Call) -> list[str]:
    """The texts of a request for embeddings."""
    given = request.json.get("input", []) if isinstance(request.json, dict) else []
    return [given] if isinstance(given, str) else [str(each) for each in given]


@pytest.mark.parametrize("model", ["nonsense", "minilm/other", "nobody/x", ""])
async def test_an_unknown_model_is_422(api: Running, model: str) -> None:
    collection = (await api.client.get("/collections")).json()["items"][0]
    response = await api.client.post(f"/collections/{collection['id']}/embed", json={"model": model})
    problem(response, 422, "unknown_model" if model else "invalid_request")


async def test_with_every_document_deleted_the_new_embedding_is_welcome(
    tmp_path: Path, embeddings: ProviderServer
) -> None:
    folder = tmp_path / "data"
    data = unique("The zeppelin lands on Tuesday.")
    async with remote(folder, embeddings) as running:
        await running.upload("a.txt", data)
        collection = await the_collection(running)
    async with serving(folder) as running:
        assert (await running.client.delete(f"/collections/{collection['id']}")).status_code == 200
        assert await search(running, "zeppelin") == []
        again = await running.upload("a.txt", data)
        assert again["status"] == "ready", again
        assert (await search(running, "zeppelin lands"))[0]["document_id"] == again["id"]


async def test_a_job_left_over_from_another_embedding_fails_with_the_reason(
    tmp_path: Path, embeddings: ProviderServer
) -> None:
    folder = tmp_path / "data"
    async with remote(folder, embeddings) as running:
        await running.upload("a.txt", unique("The zeppelin lands on Tuesday."))
        # Stopped before it was read: as if the process had ended there.
        running.services.library.documents._workers._tasks[0].cancel()
        response = await running.client.post("/documents/upload", files={"file": ("b.txt", unique("Later."))})
    async with serving(folder) as running:
        row = await running.services.library.documents.settled("local", response.json()["id"])
        assert (row.status, row.reason_code) == ("failed", "embedding_mismatch")


async def test_a_move_to_another_embedding_is_a_job_that_embeds_anew(
    tmp_path: Path, embeddings: ProviderServer
) -> None:
    folder = tmp_path / "data"
    async with serving(folder, **access(embeddings)) as running:
        document = await running.upload("book.txt", BOOK[:6000].encode())
        source = await the_collection(running)
        target = (await running.client.post("/collections", json={"name": "remote"})).json()["id"]
        await running.client.post(f"/collections/{target}/embed", json={"model": REMOTE})
        while (await running.client.get(f"/collections/{target}")).json()["fingerprint"] is None:
            await asyncio.sleep(0.02)
        path = f"/documents/{document['id']}"
        moving = await running.client.patch(path, json={"collection_id": target})
        assert moving.status_code == 202, moving.text
        assert moving.json()["moving"]["collection_id"] == target
        while (now := (await running.client.get(path)).json())["moving"] is not None:
            assert now["collection_id"] == source["id"]
            assert {p["document_id"] for p in await search(running, "zeppelin of day 9", top_k=1)} == {document["id"]}
        assert (now["collection_id"], now["status"]) == (target, "ready")
        assert (await search(running, "zeppelin", documents=[document["id"]]))[0]["version"] == document["version"]
        # Back again, and stopped: it stays.
        await running.client.patch(path, json={"collection_id": source["id"]})
        stopped = (await running.client.post(f"{path}/cancel")).json()
        assert (stopped["moving"], stopped["collection_id"]) == (None, target)
        await idle(running)
        assert set((await running.client.post("/documents/sweep")).json().values()) == {0}
