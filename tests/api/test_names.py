"""One name for one thing; the names of 0.3.0 still work, and OpenAPI marks them as deprecated."""

import uuid
from typing import Any

import pytest

from tests.api.helpers import problem, unique
from tests.api.routes import make_app
from tests.support.harness import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

OLD_FIELDS = {
    ("Document", "filename", "name"),
    ("Uploaded", "filename", "name"),
    ("FoundPassage", "filename", "name"),
    ("Source", "title", "name"),
    ("Uploads", "documents", "items"),
    ("SearchResult", "passages", "items"),
    ("History", "messages", "items"),
    ("ModelList", "providers", "items"),
    ("ProviderInfo", "provider", "name"),
    ("DocumentChange", "collection_id", "collection"),
}


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    return make_app().openapi()["components"]["schemas"]


def name_of_a_collection() -> str:
    return f"Contracts {uuid.uuid4().hex[:8]}"


async def test_old_names_are_marked_as_deprecated(schemas: dict[str, Any]) -> None:
    for schema, old, new in OLD_FIELDS:
        fields = schemas[schema]["properties"]
        assert fields[old]["deprecated"] is True, (schema, old)
        assert not fields[new].get("deprecated"), (schema, new)


async def test_every_list_has_items(schemas: dict[str, Any]) -> None:
    lists = {name for name in schemas if name.endswith("List")}
    assert len(lists) >= 6
    for name in lists | {"Uploads", "SearchResult", "History", "UsageReport", "PromptDetails"}:
        assert schemas[name]["properties"]["items"]["type"] == "array", name


async def test_old_and_new_names_hold_the_same(api: Running) -> None:
    files = {"file": ("kiln.txt", unique("The kiln at Wharram is fired on the first of May."))}
    upload = (await api.client.post("/documents/upload", params={"wait": True}, files=files)).json()
    assert upload["items"] == upload["documents"]
    assert upload["items"][0]["name"] == upload["items"][0]["filename"] == "kiln.txt"
    document = (await api.client.get(f"/documents/{upload['id']}")).json()
    assert document["name"] == document["filename"] == "kiln.txt"
    query = {"query": "When is the kiln at Wharram fired?", "documents": [upload["id"]]}
    found = (await api.client.post("/search", json=query)).json()
    assert found["items"] == found["passages"]
    assert found["items"][0]["name"] == found["items"][0]["filename"] == "kiln.txt"
    models = (await api.client.get("/models")).json()
    assert models["items"] == models["providers"]
    assert [item["name"] for item in models["items"]] == [item["provider"] for item in models["items"]]
    body = {"message": query["query"], "documents": [upload["id"]]}
    answer = (await api.client.post("/chat", json=body, headers={"Accept": "application/json"})).json()
    assert answer["sources"][0]["name"] == answer["sources"][0]["title"] == "kiln.txt"
    history = (await api.client.get(f"/chat/history/{answer['session_id']}")).json()
    assert history["items"] == history["messages"] != []


async def test_a_collection_is_addressed_by_name_everywhere(api: Running) -> None:
    name = name_of_a_collection()
    made = (await api.client.post("/collections", json={"name": name})).json()
    assert (await api.client.get(f"/collections/{name}")).json() == made
    files = {"file": ("lock.txt", unique("The lock at Foxton opens at seven."))}
    params = {"collection": name, "wait": True}
    upload = (await api.client.post("/documents/upload", params=params, files=files)).json()
    listed = (await api.client.get("/documents", params={"collection": name})).json()["items"]
    assert [(d["id"], d["collection_id"]) for d in listed] == [(upload["id"], made["id"])]
    query = {"query": "When does the lock at Foxton open?", "collections": [name, made["id"]]}
    found = (await api.client.post("/search", json=query)).json()["items"]
    assert {passage["document_id"] for passage in found} == {upload["id"]}
    body = {"message": query["query"], "collections": [name]}
    answer = (await api.client.post("/chat", json=body, headers={"Accept": "application/json"})).json()
    assert {source["document_id"] for source in answer["sources"]} == {upload["id"]}
    session = f"/sessions/{answer['session_id']}"
    changed = (await api.client.patch(session, json={"collections": [name]})).json()
    assert changed["collections"] == [made["id"]], "a session keeps ids, so that renaming changes nothing"

    other = name_of_a_collection()
    await api.client.post("/collections", json={"name": other})
    moved = await api.client.patch(f"/documents/{upload['id']}", json={"collection": other})
    assert moved.status_code == 200
    back = await api.client.patch(f"/documents/{upload['id']}", json={"collection_id": made["id"]})
    assert back.json()["collection_id"] == made["id"], "the old name"
    renamed = (await api.client.patch(f"/collections/{name}", json={"name": f"{name} 2"})).json()
    assert renamed["id"] == made["id"]
    problem(await api.client.get(f"/collections/{name}"), 404, "not_found")
    receipt = (await api.client.delete(f"/collections/{name} 2")).json()
    assert (receipt["collection_id"], receipt["documents"]) == (made["id"], 1)


async def test_an_unknown_name_is_404(api: Running) -> None:
    for body in ({"query": "x", "collections": ["Nowhere"]}, {"query": "x", "collections": [""]}):
        problem(await api.client.post("/search", json=body), 404, "not_found")
    problem(await api.client.get("/documents", params={"collection": "Nowhere"}), 404, "not_found")


async def test_a_name_must_not_look_like_an_id(api: Running) -> None:
    problem(await api.client.post("/collections", json={"name": f"col_{uuid.uuid4().hex}"}), 422, "invalid_request")


async def test_an_old_and_a_new_name_together_are_refused(api: Running) -> None:
    document = await api.upload("both.txt", unique("Both names."))
    body = {"collection": "a", "collection_id": "b"}
    problem(await api.client.patch(f"/documents/{document['id']}", json=body), 422, "invalid_request")
