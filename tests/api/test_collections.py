"""Collections: made, listed, renamed, deleted, searched by session and request; documents that move between them."""

import asyncio
from typing import Any

import pytest

from tests.api.helpers import data_dir, idle, problem, rows, search, stored, unique
from tests.support.harness import Running, read_events, text_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def make(running: Running, name: str) -> str:
    response = await running.client.post("/collections", json={"name": name})
    assert response.status_code == 201, response.text
    return response.json()["id"]


async def put_into(running: Running, collection: str, name: str, data: bytes) -> dict[str, Any]:
    params = {"collection": collection, "wait": "true"}
    response = await running.client.post("/documents/upload", params=params, files={"file": (name, data)})
    assert response.status_code == 200, response.text
    return (await running.client.get(f"/documents/{response.json()['id']}")).json()


async def agrees(running: Running) -> None:
    """A close look finds nothing to put right."""
    await idle(running)
    assert set((await running.client.post("/documents/sweep")).json().values()) == {0}


async def test_a_collection_is_made_counted_renamed_and_deleted(fresh: Running) -> None:
    (default,) = (await fresh.client.get("/collections")).json()["items"]
    assert (default["name"], default["documents"], default["fingerprint"]) == ("default", 0, None)
    contracts = await make(fresh, " contracts\n 2026 ")
    one = await put_into(fresh, contracts, "a.txt", unique("The lease ends in May."))
    two = await put_into(fresh, contracts, "b.txt", unique("The rent is 40 crowns."))
    kept = await fresh.upload("c.txt", unique("Elsewhere."))
    path = f"/collections/{contracts}"
    collection = (await fresh.client.get(path)).json()
    assert (collection["name"], collection["documents"]) == ("contracts 2026", 2)
    assert collection["chunks"] == one["chunks"] + two["chunks"]
    assert collection["fingerprint"] == "minilm/all-MiniLM-L6-v2:384"
    assert (await fresh.client.patch(path, json={"name": "leases"})).json()["name"] == "leases"
    listed = (await fresh.client.get("/collections")).json()["items"]
    assert [c["name"] for c in listed] == ["default", "leases"]
    receipt = (await fresh.client.delete(path)).json()
    assert receipt == {
        "collection_id": contracts,
        "documents": 2,
        "chunks_removed": 2,
        "vectors_removed": 2,
        "vectors_left": 0,
        "files_removed": 2,
    }
    problem(await fresh.client.get(path), 404, "not_found")
    problem(await fresh.client.get(f"/documents/{one['id']}"), 404, "not_found")
    assert {p["document_id"] for p in await search(fresh, "lease rent elsewhere", top_k=50)} == {kept["id"]}
    assert (await stored(fresh))["files"] == [kept["version"]]
    assert rows(data_dir(fresh), "SELECT name FROM sqlite_master WHERE name LIKE ?", f"%{contracts}%") == []
    await agrees(fresh)


async def test_names_are_taken_once(api: Running) -> None:
    first = await make(api, "taken")
    said = problem(await api.client.post("/collections", json={"name": "taken"}), 409, "collection_exists")
    assert said["collection_id"] == first
    second = await make(api, "free")
    problem(await api.client.patch(f"/collections/{second}", json={"name": "taken"}), 409, "collection_exists")
    assert (await api.client.patch(f"/collections/{second}", json={"name": "free"})).status_code == 200


@pytest.mark.parametrize("name", ["", "  ", "\u0000", "x" * 101, None, 5])
async def test_a_wrong_name_is_422(api: Running, name: object) -> None:
    problem(await api.client.post("/collections", json={"name": name}), 422, "invalid_request")


async def test_the_default_one_comes_anew_with_the_next_upload(fresh: Running) -> None:
    await fresh.upload("a.txt", unique("One."))
    (default,) = (await fresh.client.get("/collections")).json()["items"]
    await fresh.client.delete(f"/collections/{default['id']}")
    document = await fresh.upload("a.txt", unique("Two."))
    assert document["status"] == "ready" and document["collection_id"] != default["id"]


async def test_the_same_bytes_may_be_in_two_collections(api: Running) -> None:
    data = unique("Twice.")
    one = await put_into(api, await make(api, "first of two"), "a.txt", data)
    two = await put_into(api, await make(api, "second of two"), "a.txt", data)
    assert one["id"] != two["id"]


async def test_documents_are_listed_by_collection_and_status(fresh: Running) -> None:
    other = await make(fresh, "other")
    one = await put_into(fresh, other, "a.txt", unique("One."))
    two = await fresh.upload("b.png", b"\x89PNG\r\n\x1a\n" + bytes(100))

    async def listed(**params: str) -> list[str]:
        return [d["id"] for d in (await fresh.client.get("/documents", params=params)).json()["items"]]

    assert await listed() == [two["id"], one["id"]]
    assert await listed(collection=other) == [one["id"]]
    assert await listed(status="failed") == [two["id"]]
    assert await listed(status="ready", collection=other) == [one["id"]]
    for status in ("queued", "parsing", "embedding", "cancelled"):
        assert await listed(status=status) == []
    problem(await fresh.client.get("/documents", params={"status": "lost"}), 422, "invalid_request")
    problem(await fresh.client.get("/documents", params={"collection": "col_unknown"}), 404, "not_found")


async def test_an_upload_into_an_unknown_collection_leaves_nothing(api: Running) -> None:
    before = await stored(api)
    params = {"collection": "col_unknown"}
    for files in ([("file", ("a.txt", unique("A")))], [("file", ("a.txt", unique("A"))), ("file", ("b.txt", b"B"))]):
        problem(await api.client.post("/documents/upload", params=params, files=files), 404, "not_found")
    assert await stored(api) == before


async def test_request_over_session_over_all_decides_where_is_searched(fresh: Running) -> None:
    north, south = await make(fresh, "north"), await make(fresh, "south")
    await put_into(fresh, north, "n.txt", b"The harbour master of the north is called Nora Nilsen.")
    await put_into(fresh, south, "s.txt", b"The harbour master of the south is called Sara Svens.")

    async def named(**body: Any) -> tuple[str, str]:
        async with fresh.client.stream("POST", "/chat", json={"message": "Who is the harbour master?", **body}) as r:
            assert r.status_code == 200, await r.aread()
            events = await read_events(r)
        found = str([e for e in events if e["type"] == "sources"]) + text_of(events)
        return events[0]["session_id"], "".join(n for n in ("Nora", "Sara") if n in found)

    session, both = await named()
    assert both == "NoraSara"
    assert await named(session_id=session, collections=[north]) == (session, "Nora")
    response = await fresh.client.patch(f"/sessions/{session}", json={"collections": [south]})
    assert response.json()["collections"] == [south]
    title = response.json()["title"]
    assert await named(session_id=session) == (session, "Sara")
    assert await named(session_id=session, collections=[north, south]) == (session, "NoraSara")
    renamed = (await fresh.client.patch(f"/sessions/{session}", json={"title": "Masters"})).json()
    assert (renamed["title"], renamed["collections"]) == ("Masters", [south]) and title != "Masters"
    cleared = (await fresh.client.patch(f"/sessions/{session}", json={"collections": None})).json()
    assert (cleared["title"], cleared["collections"]) == ("Masters", None)
    assert await named(session_id=session) == (session, "NoraSara")
    for body in ({"collections": ["col_unknown"]}, {"collections": []}, {}):
        response = await fresh.client.patch(f"/sessions/{session}", json=body)
        assert response.status_code in (404, 422)
    problem(await fresh.client.post("/chat", json={"message": "x", "collections": ["col_unknown"]}), 404, "not_found")


async def test_a_sessions_collection_that_was_deleted_is_not_all_of_them(fresh: Running) -> None:
    north = await make(fresh, "north")
    await fresh.upload("s.txt", b"The harbour master of the south is called Sara Svens.")
    events = await fresh.events({"message": "Hello"})
    session = events[0]["session_id"]
    await fresh.client.patch(f"/sessions/{session}", json={"collections": [north]})
    await fresh.client.delete(f"/collections/{north}")
    events = await fresh.events({"message": "Who is the harbour master of the south?", "session_id": session})
    assert "Sara" not in text_of(events)


# --- moving and renaming

LONG = "\n\n".join(f"Mast {n} carries the green lantern number {n * 3} over the bay. " * 6 for n in range(100))


async def test_a_document_moves_and_is_never_lost_nor_found_twice(fresh: Running) -> None:
    target = await make(fresh, "target")
    document = await fresh.upload("masts.txt", LONG.encode())
    await fresh.upload("other.txt", unique("A green lantern of another document."))
    source = document["collection_id"]
    total = document["chunks"]
    assert total > 64
    done = False

    async def look() -> int:
        looks = 0
        while not done:
            found = await search(fresh, "green lantern over the bay", top_k=5)
            assert len({p["chunk_id"] for p in found}) == len(found) == 5
            assert document["id"] in {p["document_id"] for p in found}
            looks += 1
        return looks

    looking = asyncio.create_task(look())
    for _ in range(2):
        for to in (target, source):
            moved = await fresh.client.patch(f"/documents/{document['id']}", json={"collection_id": to})
            assert moved.status_code == 200, moved.text
            assert (moved.json()["collection_id"], moved.json()["version"]) == (to, document["version"])
            counts = (await fresh.client.get(f"/collections/{to}")).json()
            assert counts["chunks"] >= total
    done = True
    assert await looking > 3
    await fresh.client.patch(f"/documents/{document['id']}", json={"collection_id": target})
    await agrees(fresh)
    assert rows(data_dir(fresh), f"SELECT count(*) FROM lexical_{target}") == [(total,)]
    assert rows(data_dir(fresh), f"SELECT count(*) FROM lexical_{source}") == [(1,)]


async def test_a_move_to_where_the_bytes_are_already_is_409(api: Running) -> None:
    one, two = await make(api, "move from"), await make(api, "move to")
    data = unique("Here and there.")
    mine, there = await put_into(api, one, "a.txt", data), await put_into(api, two, "a.txt", data)
    response = await api.client.patch(f"/documents/{mine['id']}", json={"collection_id": two})
    assert problem(response, 409, "document_duplicate")["document_id"] == there["id"]
    problem(await api.client.patch(f"/documents/{mine['id']}", json={"collection_id": "col_x"}), 404, "not_found")
    assert (await api.client.patch(f"/documents/{mine['id']}", json={"collection_id": one})).status_code == 200
    for body in ({}, {"name": ""}, {"name": " "}, {"other": 1}):
        problem(await api.client.patch(f"/documents/{mine['id']}", json=body), 422, "invalid_request")


async def test_a_failed_document_moves_too(api: Running) -> None:
    document = await api.upload("a.png", b"\x89PNG\r\n\x1a\n" + unique("x"))
    target = await make(api, "for the failed")
    moved = await api.client.patch(f"/documents/{document['id']}", json={"collection_id": target})
    assert (moved.json()["collection_id"], moved.json()["status"]) == (target, "failed")


async def test_a_document_is_renamed_also_in_the_lexical_index(fresh: Running) -> None:
    document = await fresh.upload("draft.txt", unique("Words."))
    response = await fresh.client.patch(f"/documents/{document['id']}", json={"name": "../../marmalade.txt"})
    assert response.json()["filename"] == "marmalade.txt"
    assert (await search(fresh, "words"))[0]["filename"] == "marmalade.txt"
    sql = f"SELECT count(*) FROM lexical_{document['collection_id']} WHERE lexical_{document['collection_id']} MATCH ?"
    assert rows(data_dir(fresh), sql, "about: marmalad*") == [(1,)]
    assert rows(data_dir(fresh), sql, "about: draft*") == [(0,)]
