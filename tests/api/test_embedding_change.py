"""EMBEDDING_MODEL is changed: documents of another embedding are refused, not searched with the wrong one."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.api.helpers import problem, search, stored, unique
from tests.harness import Running, serving
from tests.provider_server import ProviderServer

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def embeddings() -> AsyncGenerator[ProviderServer]:
    """A provider of embeddings with 64 dimensions."""
    async with ProviderServer() as provider:
        yield provider


def remote(folder: Path, provider: ProviderServer) -> AbstractAsyncContextManager[Running]:
    return serving(
        folder,
        embedding_model="openai/test-embedding",
        openai_api_key="sk-test-0123456789",
        openai_base_url=provider.base_url,
        llm_model="extractive/quotes",
    )


async def test_openai_embeddings_index_and_find(tmp_path: Path, embeddings: ProviderServer) -> None:
    async with remote(tmp_path / "data", embeddings) as running:
        document = await running.upload("a.txt", unique("The zeppelin lands on Tuesday."))
        assert document["status"] == "ready", document
        assert (await search(running, "zeppelin lands"))[0]["document_id"] == document["id"]


async def test_another_embedding_is_refused_until_it_is_set_back(tmp_path: Path, embeddings: ProviderServer) -> None:
    folder = tmp_path / "data"
    async with serving(folder) as running:
        document = await running.upload("a.txt", unique("The zeppelin lands on Tuesday."))
    async with remote(folder, embeddings) as running:
        before = stored(running)
        calls = [
            ("/documents/upload", {"files": {"file": ("b.txt", unique("Other."))}}),
            ("/search", {"json": {"query": "zeppelin"}}),
            ("/search", {"json": {"query": "zeppelin", "documents": [document["id"]]}}),
            ("/chat", {"json": {"message": "When does the zeppelin land?"}}),
        ]
        for path, body in calls:
            said = problem(await running.client.post(path, **body), 409, "embedding_mismatch")
            assert "EMBEDDING_MODEL" in said["detail"] and "minilm/all-MiniLM-L6-v2" in said["detail"]
        assert stored(running) == before
        # What needs no embedding goes on: chat without documents, reading, listing, deleting.
        events = await running.events({"message": "hi", "documents": False})
        assert events[-1]["type"] == "run.completed"
        assert (await running.client.get(f"/documents/{document['id']}/text")).status_code == 200
    async with serving(folder) as running:
        assert (await search(running, "zeppelin"))[0]["document_id"] == document["id"]
        assert (await running.upload("b.txt", unique("Other.")))["status"] == "ready"


async def test_with_every_document_deleted_the_new_embedding_is_welcome(
    tmp_path: Path, embeddings: ProviderServer
) -> None:
    """As the error's text says: "or delete the documents and upload them again"."""
    folder = tmp_path / "data"
    data = unique("The zeppelin lands on Tuesday.")
    async with serving(folder) as running:
        document = await running.upload("a.txt", data)
    async with remote(folder, embeddings) as running:
        assert (await running.client.delete(f"/documents/{document['id']}")).status_code == 200
        assert await search(running, "zeppelin") == []
        again = await running.upload("a.txt", data)
        assert again["status"] == "ready", again
        assert (await search(running, "zeppelin lands"))[0]["document_id"] == again["id"]


async def test_a_job_left_over_from_another_embedding_fails_with_the_reason(
    tmp_path: Path, embeddings: ProviderServer
) -> None:
    folder = tmp_path / "data"
    async with serving(folder) as running:
        await running.upload("a.txt", unique("The zeppelin lands on Tuesday."))
        # Stopped before it was read: as if the process had ended there.
        worker = running.services.documents._ingestion._worker
        assert worker is not None
        worker.cancel()
        response = await running.client.post("/documents/upload", files={"file": ("b.txt", unique("Later."))})
    async with remote(folder, embeddings) as running:
        row = await running.services.documents.settled("local", response.json()["id"])
        assert (row.status, row.reason_code) == ("failed", "embedding_mismatch")
