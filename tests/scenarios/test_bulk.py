"""Many small documents and kill -9 while they are read: all become ready, none twice, nothing is left over.

`python -m tests.scenarios.test_bulk [DOCUMENTS] [KILLS]` does it at any size; 1000 and 10 take some minutes.
"""

import asyncio
import random
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

from backend.chains.retrieval.index import VectorIndex
from tests.scenarios.support import rows
from tests.support.harness import ServerProcess

DOCUMENTS, KILLS = 100, 3
_AT_ONCE = 20

pytestmark = pytest.mark.timeout(300)


def text(n: int) -> bytes:
    """A small document: some have several chunks."""
    return "\n\n".join(
        f"Berth {n} had ship {n * 7 + k} with {k} barrels of oil. " * 5 for k in range(1 + n % 5)
    ).encode()


async def upload(client: httpx.AsyncClient, numbers: list[int]) -> None:
    """The same folder, again and again: what is there already stays one document."""
    for at in range(0, len(numbers), _AT_ONCE):
        files = [("file", (f"{n}.txt", text(n))) for n in numbers[at : at + _AT_ONCE]]
        response = await client.post("/documents/upload", files=files)
        assert response.status_code == 202, response.text


async def statuses(client: httpx.AsyncClient) -> dict[str, str]:
    """Every document's status, a page at a time."""
    found: dict[str, str] = {}
    cursor: str | None = None
    while True:
        params = {"limit": "200"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/documents", params=params)).json()
        found |= {d["id"]: d["status"] for d in page["items"]}
        if (cursor := page["next_cursor"]) is None:
            return found


async def bulk(folder: Path, documents: int, kills: int) -> None:
    """Upload, kill, start, until all is ready; then look at everything that is stored."""
    server = ServerProcess(folder)
    chance = random.Random(7)
    database = folder / "streamforge.db"
    async with httpx.AsyncClient(base_url=server.base, trust_env=False, timeout=60) as client:
        await asyncio.to_thread(server.start)
        for kill in range(kills):
            target = documents * (kill + 1) // (kills + 1)
            uploading = asyncio.create_task(upload(client, list(range(documents))))
            while rows(database, "SELECT count(*) FROM documents WHERE active_version IS NOT NULL")[0][0] < target:
                await asyncio.sleep(0.02)
            await asyncio.sleep(chance.random() * 0.2)
            server.kill()
            await asyncio.gather(uploading, return_exceptions=True)
            await asyncio.to_thread(server.start)
        await upload(client, list(range(documents)))
        while set((found := await statuses(client)).values()) != {"ready"}:
            assert "failed" not in found.values()
            await asyncio.sleep(0.1)
        assert len(found) == documents
        swept = (await client.post("/documents/sweep")).json()
        assert set(swept.values()) == {0}, swept
        await asyncio.to_thread(server.stop)
    await whole(folder, documents)


async def whole(folder: Path, documents: int) -> None:
    """Rows, terms, vectors and files are those of the documents, each once."""
    database = folder / "streamforge.db"
    assert rows(database, "SELECT count(*), count(DISTINCT sha256) FROM document_versions") == [(documents, documents)]
    chunks = [n for (n,) in rows(database, "SELECT n FROM chunks ORDER BY n")]
    ((expected,),) = rows(database, "SELECT sum(chunks) FROM document_versions")
    assert len(chunks) == expected
    ((collection,),) = rows(database, "SELECT id FROM collections")
    assert [n for (n,) in rows(database, f"SELECT rowid FROM lexical_{collection} ORDER BY rowid")] == chunks
    index = VectorIndex(folder / "vectors")
    await index.open()
    try:
        assert await index.keys() == {f"{collection}-1"}
        assert await index.numbers(f"{collection}-1") == chunks
    finally:
        await index.close()
    versions = {v for (v,) in rows(database, "SELECT id FROM document_versions")}
    assert {path.name for path in (folder / "files").iterdir()} == versions


async def test_many_small_documents_and_kill_9(tmp_path: Path) -> None:
    await bulk(tmp_path / "data", DOCUMENTS, KILLS)


if __name__ == "__main__":
    size = [int(each) for each in sys.argv[1:3]]
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(bulk(Path(scratch) / "data", *(size + [1000, 10][len(size) :])))
    print("all ready, no orphan, no duplicate")
