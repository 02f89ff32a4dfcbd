"""PUT /documents/{id}/content: the old answers until the new is ready, and stays when that fails."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.api.helpers import data_dir, document_events, idle, problem, rows, search, stored, unique
from tests.api.test_ingestion import hold, parts
from tests.support.harness import Running, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(100)


async def put(running: Running, document_id: str, data: bytes, **params: str) -> Any:
    path = f"/documents/{document_id}/content"
    return await running.client.put(path, files={"file": ("new.txt", data)}, params=params)


async def test_the_old_answers_until_the_new_is_ready(fresh: Running) -> None:
    old = await fresh.upload("tariff.txt", unique("The pilot costs 40 crowns."))
    before = await stored(fresh)
    async with hold(parts(fresh)["embedder"], "embed_chunks") as held:
        response = await put(fresh, old["id"], unique("The pilot costs 55 crowns."))
        assert response.status_code == 202, response.text
        await held.reached.wait()
        document = (await fresh.client.get(f"/documents/{old['id']}")).json()
        assert (document["status"], document["version"]) == ("ready", old["version"])
        assert document["pending"]["status"] == "embedding"
        assert (await search(fresh, "pilot"))[0]["text"].startswith("The pilot costs 40")
        held.go_on.set()
    last = (await document_events(fresh, old["id"]))[-1]["document"]
    assert last["version"] == response.json()["pending"]["version"] and "pending" not in last
    found = await search(fresh, "pilot", top_k=50)
    assert len(found) == 1 and found[0]["text"].startswith("The pilot costs 55")
    assert (found[0]["document_id"], found[0]["filename"]) == (old["id"], "tariff.txt")
    # Citations of the old version still resolve; of its chunks, vectors and file nothing is left.
    text = await fresh.client.get(f"/documents/{old['id']}/text", params={"version": old["version"]})
    assert text.json()["text"].startswith("The pilot costs 40") and text.json()["version"] == old["version"]
    versions = (await fresh.client.get(f"/documents/{old['id']}/versions")).json()["items"]
    assert [(v["version"], v["status"]) for v in versions] == [
        (last["version"], "ready"),
        (old["version"], "superseded"),
    ]
    await idle(fresh)
    assert await stored(fresh) == {**before, "document_versions": 2, "files": [last["version"]]}
    assert set((await fresh.client.post("/documents/sweep")).json().values()) == {0}
    receipt = (await fresh.client.delete(f"/documents/{old['id']}")).json()
    assert (receipt["versions"], receipt["vectors_removed"], receipt["vectors_left"]) == (2, 1, 0)
    assert rows(data_dir(fresh), "SELECT count(*) FROM document_versions") == [(0,)]


async def test_the_same_bytes_do_nothing(fresh: Running) -> None:
    data = unique("The same.")
    document = await fresh.upload("a.txt", data)
    before = await stored(fresh)
    response = await put(fresh, document["id"], data)
    assert (response.status_code, response.json()["unchanged"]) == (200, True)
    assert await stored(fresh) == before
    assert (await fresh.client.get(f"/documents/{document['id']}")).json() == document


async def test_a_replacement_that_fails_leaves_the_old_one(fresh: Running) -> None:
    document = await fresh.upload("a.txt", unique("The whale is grey."))
    failed = (await put(fresh, document["id"], PICTURE, wait="true")).json()
    assert (failed["status"], failed["version"]) == ("ready", document["version"])
    assert (failed["pending"]["status"], failed["pending"]["reason_code"]) == ("failed", "document_scanned")
    assert (await search(fresh, "whale"))[0]["version"] == document["version"]
    # The next one takes its place, and nothing is left of it.
    again = (await put(fresh, document["id"], unique("The whale is blue."), wait="true")).json()
    assert again["pending"] is None and again["version"] != document["version"]
    found = await search(fresh, "whale", top_k=50)
    assert len(found) == 1 and "blue" in found[0]["text"]
    await idle(fresh)
    assert (await stored(fresh))["files"] == [again["version"]]
    assert rows(data_dir(fresh), "SELECT status FROM document_versions ORDER BY id") == [("superseded",), ("ready",)]


async def test_sent_again_while_it_is_read_only_the_last_one_counts(fresh: Running) -> None:
    document = await fresh.upload("a.txt", unique("The whale is grey."))
    async with hold(parts(fresh)["index"], "upsert") as held:
        await put(fresh, document["id"], unique("The whale is green."))
        await held.reached.wait()
        last = unique("The whale is blue.")
        sent = asyncio.create_task(put(fresh, document["id"], last))
        await sent
        held.go_on.set()
    end = (await document_events(fresh, document["id"]))[-1]["document"]
    found = await search(fresh, "whale", top_k=50)
    assert [p["version"] for p in found] == [end["version"]] and "blue" in found[0]["text"]
    assert (await put(fresh, document["id"], last)).json()["unchanged"] is True
    await idle(fresh)
    assert set((await fresh.client.post("/documents/sweep")).json().values()) == {0}
    assert (await stored(fresh))["files"] == [end["version"]]


async def test_back_to_the_bytes_that_are_active_drops_what_is_pending(fresh: Running) -> None:
    data = unique("The whale is grey.")
    document = await fresh.upload("a.txt", data)
    await put(fresh, document["id"], PICTURE, wait="true")
    back = (await put(fresh, document["id"], data)).json()
    assert (back["unchanged"], back["pending"], back["version"]) == (True, None, document["version"])
    assert (await stored(fresh))["files"] == [document["version"]]


async def test_a_replacement_is_cancelled_and_retried(fresh: Running) -> None:
    document = await fresh.upload("a.txt", unique("The whale is grey."))
    path = f"/documents/{document['id']}"
    async with hold(parts(fresh)["embedder"], "embed_chunks") as held:
        await put(fresh, document["id"], unique("The whale is blue."))
        await held.reached.wait()
        cancelled = (await fresh.client.post(f"{path}/cancel")).json()
        assert (cancelled["status"], cancelled["pending"]["status"]) == ("ready", "cancelled")
        held.go_on.set()
    assert "grey" in (await search(fresh, "whale"))[0]["text"]
    assert (await fresh.client.post(f"{path}/retry")).status_code == 202
    end = (await document_events(fresh, document["id"]))[-1]["document"]
    assert "pending" not in end and "blue" in (await search(fresh, "whale"))[0]["text"]


async def test_a_new_document_is_cancelled_retried_and_deleted(fresh: Running) -> None:
    async with hold(parts(fresh)["parser"], "parse") as held:
        response = await fresh.client.post("/documents/upload", files={"file": ("a.txt", unique("The whale."))})
        path = f"/documents/{response.json()['id']}"
        await held.reached.wait()
        assert (await fresh.client.post(f"{path}/cancel")).json()["status"] == "cancelled"
        assert (await fresh.client.post(f"{path}/cancel")).json()["status"] == "cancelled"
        held.go_on.set()
    assert await search(fresh, "whale") == []
    await fresh.client.post(f"{path}/retry")
    end = (await document_events(fresh, response.json()["id"]))[-1]["document"]
    assert end["status"] == "ready"
    assert (await fresh.client.post(f"{path}/cancel")).json()["status"] == "ready", "nothing to cancel is no error"
    assert (await fresh.client.delete(path)).json()["vectors_left"] == 0


async def test_bytes_of_another_document_are_409_and_leave_nothing(api: Running) -> None:
    data = unique("Mine.")
    one, two = await api.upload("a.txt", data), await api.upload("b.txt", unique("Yours."))
    before = await stored(api)
    assert problem(await put(api, two["id"], data), 409, "document_duplicate")["document_id"] == one["id"]
    problem(await put(api, two["id"], b""), 422, "document_empty")
    problem(await put(api, "doc_unknown", data), 404, "not_found")
    assert await stored(api) == before


async def test_bytes_that_were_replaced_come_back_as_a_new_version(api: Running) -> None:
    data = unique("The first.")
    document = await api.upload("a.txt", data)
    await put(api, document["id"], unique("The second."), wait="true")
    back = (await put(api, document["id"], data, wait="true")).json()
    assert back["version"] != document["version"] and back["sha256"] == document["sha256"]
    assert len((await api.client.get(f"/documents/{document['id']}/versions")).json()["items"]) == 3


async def test_a_crash_between_the_flip_and_the_cleaning_is_swept(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as running:
        document = await running.upload("a.txt", unique("The whale is grey."))
        async with hold(running.services.library.documents._holdings, "remove_versions") as held:
            await put(running, document["id"], unique("The whale is blue."))
            await held.reached.wait()
            assert ["blue" in p["text"] for p in await search(running, "whale", top_k=50)] == [True]
            await running.services.library.documents._workers.close()
    async with serving(tmp_path / "data") as running:
        end = (await running.client.get(f"/documents/{document['id']}")).json()
        assert (await stored(running))["files"] == [end["version"]]
        assert rows(data_dir(running), "SELECT count(*) FROM chunks") == [(1,)]
        assert set((await running.client.post("/documents/sweep")).json().values()) == {0}
