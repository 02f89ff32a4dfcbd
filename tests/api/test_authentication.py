"""API_KEYS: who may call, and that nobody sees what is somebody else's."""

import asyncio
import base64
import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from tests.api.helpers import ALICE, BOB, KEYS, bearer, problem, stored, unique
from tests.api.routes import PRIVATE, PUBLIC, Endpoint, endpoints, make_app
from tests.support.harness import Running, read_events

pytestmark = pytest.mark.asyncio(loop_scope="session")

WRONG_HEADERS: list[dict[str, str]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer wrong"},
    {"Authorization": f"Bearer {ALICE}x"},
    {"Authorization": f"Bearer {ALICE[:-1]}"},
    {"Authorization": f"Bearer {ALICE.upper()}"},
    {"Authorization": f"Bearer alice:{ALICE}"},
    {"Authorization": f"Bearer {KEYS}"},
    {"Authorization": f"Basic {ALICE}"},
    {"Authorization": ALICE},
    {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9."},
    {"X-API-Key": ALICE},
    {"Cookie": f"Authorization=Bearer {ALICE}"},
]


async def test_every_route_is_classified() -> None:
    found = endpoints(make_app())
    assert found - PUBLIC - PRIVATE == set(), "decide who may call these, and put them into tests/api/routes.py"
    assert (PUBLIC | PRIVATE) - found == set(), "these are gone: take them out of tests/api/routes.py"


@pytest.mark.parametrize("endpoint", sorted(PRIVATE), ids=" ".join)
async def test_a_private_route_wants_a_key(keyed: Running, endpoint: Endpoint) -> None:
    before = await stored(keyed)
    for headers in ({}, bearer("wrong-key-wrong-key-wrong-key")):
        response = await keyed.client.request(endpoint.method, endpoint.url, headers=headers)
        body = problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer" in body["detail"]
    assert await stored(keyed) == before


@pytest.mark.parametrize("endpoint", sorted(PRIVATE), ids=" ".join)
async def test_a_private_route_takes_a_key(keyed: Running, endpoint: Endpoint) -> None:
    response = await keyed.client.request(endpoint.method, endpoint.url, headers=bearer(BOB))
    assert response.status_code in (200, 201, 400, 404, 422), response.text


@pytest.mark.parametrize("endpoint", sorted(PUBLIC), ids=" ".join)
async def test_a_public_route_wants_none(keyed: Running, endpoint: Endpoint) -> None:
    url = "/docs/static/swagger-ui.css" if endpoint.path == "/docs/static" else endpoint.url
    assert (await keyed.client.request(endpoint.method, url)).status_code == 200


@pytest.mark.parametrize("headers", WRONG_HEADERS, ids=repr)
async def test_a_wrong_key_is_401(keyed: Running, headers: dict[str, str]) -> None:
    problem(await keyed.client.get("/sessions", headers=headers), 401, "unauthorized")


@pytest.mark.parametrize("path", ["/sessions?key=", "/sessions?api_key=", "/sessions?access_token="])
async def test_a_key_in_the_url_is_not_looked_at(keyed: Running, path: str) -> None:
    problem(await keyed.client.get(path + ALICE), 401, "unauthorized")


async def test_without_a_key_the_body_is_not_judged(keyed: Running) -> None:
    """Who has no key learns nothing about what would be a right request."""
    for content in (b"{", b'{"message": ""}', b'{"base_url": "x"}'):
        headers = {"Content-Type": "application/json"}
        problem(await keyed.client.post("/chat", content=content, headers=headers), 401, "unauthorized")


async def test_without_a_key_a_large_body_is_not_even_waited_for(keyed: Running) -> None:
    """Else anybody can fill the disk with uploads that are refused at their end."""
    host, _, port = keyed.base[7:].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /documents/upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 40000000\r\n"
        'Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\nContent-Disposition: form-data; name="file"; '
        'filename="a.txt"\r\n\r\nfirst bytes'
    )
    writer.write(head.encode())
    try:
        status = await asyncio.wait_for(reader.readline(), 5)
    finally:
        writer.close()
    assert b" 401 " in status


async def test_no_key_is_in_the_api_description_or_the_settings_text(keyed: Running) -> None:
    texts = [
        (await keyed.client.get("/openapi.json")).text,
        (await keyed.client.get("/docs")).text,
        repr(keyed.services.settings),
        str(keyed.services.settings),
        keyed.services.settings.model_dump_json(),
    ]
    for text in texts:
        assert ALICE not in text and BOB not in text


async def test_no_key_is_in_the_representation_of_the_servers_insides(keyed: Running) -> None:
    """A traceback, or a debug line, shows these."""
    assert ALICE not in repr(keyed.services)


Things = dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def alices(keyed: Running) -> AsyncGenerator[Things]:
    """What alice has: a document, a session with one run, and a prompt."""
    data = unique("The vault opens with the word marmalade.")
    files = {"file": ("alice.txt", data)}
    upload = await keyed.client.post("/documents/upload", params={"wait": "true"}, files=files, headers=bearer(ALICE))
    document = upload.json()["id"]
    (collection,) = (await keyed.client.get("/collections", headers=bearer(ALICE))).json()["items"]
    body = {"message": "Which word opens the vault?"}
    async with keyed.client.stream("POST", "/chat", json=body, headers=bearer(ALICE)) as response:
        events = await read_events(response)
    assert [e for e in events if e["type"] == "citation"]
    prompt = {"name": "vault", "system": "Guard the vault.", "labels": ["production"]}
    assert (await keyed.client.post("/prompts", json=prompt, headers=bearer(ALICE))).status_code == 201
    started = events[0]
    yield {
        "image_id": await _picture(keyed),
        "document_id": document,
        "collection_id": collection["id"],
        "session_id": started["session_id"],
        "run_id": started["run_id"],
        "message_id": started["message_id"],
        "name": "vault",
        "n": "1",
        "label": "production",
        "last": events[-2]["_id"],
        "bytes": data.decode(),
    }


async def _picture(keyed: Running) -> str:
    """The id of a picture in another session of alice's."""
    moment, png = "2026-11-25T12:00:00Z", base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    parts = [{"type": "image", "media_type": "image/png", "data": png}]
    said = [{"id": "m", "role": "user", "parts": parts, "created_at": moment}]
    file = {"title": "A picture", "created_at": moment, "messages": said}
    made = (await keyed.client.post("/sessions/import", json=file, headers=bearer(ALICE))).json()
    stored = await keyed.client.get(f"/sessions/{made['id']}/messages", headers=bearer(ALICE))
    return stored.json()["items"][0]["parts"][0]["image_id"]


BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("PATCH", "/sessions/{session_id}"): {"json": {"title": "Mine now"}},
    ("PATCH", "/documents/{document_id}"): {"json": {"name": "mine.txt"}},
    ("PUT", "/documents/{document_id}/content"): {"files": {"file": ("mine.txt", b"Mine now.")}},
    ("PATCH", "/collections/{collection_id}"): {"json": {"name": "mine"}},
    ("PUT", "/sessions/{session_id}/head"): {"json": {"message_id": "msg_x"}},
    ("PUT", "/messages/{message_id}/feedback"): {"json": {"rating": "up"}},
    ("POST", "/messages/{message_id}/regenerate"): {"json": {}},
    ("POST", "/messages/{message_id}/edit"): {"json": {"message": "Mine now"}},
    ("POST", "/prompts/{name}/versions"): {"json": {"system": "Mine now."}},
    ("PUT", "/prompts/{name}/labels/{label}"): {"json": {"version": 1}},
    ("GET", "/prompts/{name}/diff"): {"params": {"from": 1, "to": 1}},
    ("POST", "/prompts/{name}/render"): {"json": {}},
    ("POST", "/collections/{collection_id}/embed"): {"json": {"model": "minilm/all-MiniLM-L6-v2"}},
}
OTHERS = sorted(e for e in PRIVATE if "{" in e.path)


@pytest.mark.parametrize("endpoint", OTHERS, ids=" ".join)
async def test_somebody_elses_thing_is_404(keyed: Running, alices: Things, endpoint: Endpoint) -> None:
    unknown_ids = set(re.findall(r"{(\w+)}", endpoint.path)) - alices.keys()
    assert not unknown_ids, f"{unknown_ids}: let alice have such a thing in the fixture `alices`"
    path = endpoint.path.format(**alices)
    before = await stored(keyed)
    body = BODIES.get((endpoint.method, endpoint.path), {})
    response = await keyed.client.request(endpoint.method, path, headers=bearer(BOB), **body)
    problem(response, 404, "not_found")
    unknown = await keyed.client.request(endpoint.method, endpoint.url, headers=bearer(BOB), **body)
    assert response.json()["detail"] == unknown.json()["detail"], "the answer tells that it exists"
    assert await stored(keyed) == before
    if endpoint.method == "GET":
        assert (await keyed.client.get(path, headers=bearer(ALICE), **body)).status_code == 200


async def test_bobs_lists_and_search_are_empty(keyed: Running, alices: Things) -> None:
    assert (await keyed.client.get("/documents", headers=bearer(BOB))).json()["items"] == []
    found = await keyed.client.post("/search", json={"query": "vault word marmalade"}, headers=bearer(BOB))
    assert found.json()["passages"] == []
    sessions = (await keyed.client.get("/sessions", params={"q": "vault"}, headers=bearer(BOB))).json()
    assert sessions["items"] == []
    (own,) = (await keyed.client.get("/collections", headers=bearer(BOB))).json()["items"]
    assert (own["name"], own["id"] == alices["collection_id"]) == ("default", False)
    swept = (await keyed.client.post("/documents/sweep", headers=bearer(BOB))).json()
    assert set(swept.values()) == {0}
    mine = await keyed.client.post("/search", json={"query": "vault word marmalade"}, headers=bearer(ALICE))
    assert mine.json()["passages"][0]["document_id"] == alices["document_id"]


async def test_bob_cannot_use_alices_document_session_or_run(keyed: Running, alices: Things) -> None:
    before = await stored(keyed)
    chats: list[dict[str, Any]] = [
        {"message": "Which word?", "documents": [alices["document_id"]]},
        {"message": "Which word?", "collections": [alices["collection_id"]]},
        {"message": "Which word?", "session_id": alices["session_id"]},
        {"message": "Which word?", "session_id": alices["session_id"], "if_busy": "replace"},
        {"message": "Which word?", "session_id": alices["session_id"], "parent_id": alices["message_id"]},
    ]
    for chat in chats:
        response = await keyed.client.post("/chat", json=chat, headers=bearer(BOB))
        problem(response, 404, "not_found")
        assert "marmalade" not in response.text
    found = {"query": "vault", "documents": [alices["document_id"]]}
    problem(await keyed.client.post("/search", json=found, headers=bearer(BOB)), 404, "not_found")
    params = {"collection": alices["collection_id"]}
    files = {"file": ("bob.txt", unique("Bob was here."))}
    for response in (
        await keyed.client.post("/documents/upload", params=params, files=files, headers=bearer(BOB)),
        await keyed.client.get("/documents", params=params, headers=bearer(BOB)),
    ):
        problem(response, 404, "not_found")
    resumed = await keyed.client.post(
        "/chat", json={"message": "x"}, headers={**bearer(BOB), "Last-Event-ID": alices["last"]}
    )
    problem(resumed, 404, "not_found")
    assert await stored(keyed) == before


async def test_bobs_answers_do_not_know_alices_documents(keyed: Running, alices: Things) -> None:
    del alices
    body = {"message": "Which word opens the vault?"}
    response = await keyed.client.post("/chat", json=body, headers={**bearer(BOB), "Accept": "application/json"})
    assert "marmalade" not in response.text
    assert response.json()["sources"] == []


async def test_bob_cannot_branch_from_alices_message_in_a_session_of_his_own(keyed: Running, alices: Things) -> None:
    headers = {**bearer(BOB), "Accept": "application/json"}
    own = (await keyed.client.post("/chat", json={"message": "Hello"}, headers=headers)).json()["session_id"]
    body = {"message": "And?", "session_id": own, "parent_id": alices["message_id"]}
    problem(await keyed.client.post("/chat", json=body, headers=headers), 404, "not_found")


async def test_the_same_bytes_are_a_document_of_each(keyed: Running, alices: Things) -> None:
    files = {"file": ("bob.txt", alices["bytes"].encode())}
    response = await keyed.client.post("/documents/upload", params={"wait": "true"}, files=files, headers=bearer(BOB))
    entry = response.json()["documents"][0]
    assert entry["duplicate"] is False
    assert entry["id"] != alices["document_id"]
    deleted = await keyed.client.delete(f"/documents/{entry['id']}", headers=bearer(BOB))
    assert deleted.status_code == 200
    path = f"/documents/{alices['document_id']}/content"
    assert (await keyed.client.get(path, headers=bearer(ALICE))).text == alices["bytes"]
    found = await keyed.client.post("/search", json={"query": "vault marmalade"}, headers=bearer(ALICE))
    assert found.json()["passages"]
