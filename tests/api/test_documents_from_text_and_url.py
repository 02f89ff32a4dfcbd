"""POST /documents/text and POST /documents/url: what isn't uploaded as a file becomes a document like one."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from backend.routers.documents.uploads import _name_of
from tests.api.helpers import ALICE, BOB, KEYS, bearer, data_dir, document_events, problem, search, stored, unique
from tests.support import samples
from tests.support.harness import Running, free_port, serving
from tests.support.site_server import Site, answer, site

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXT = "Harbour pilots board arriving ships two miles out. They know every sandbank by heart."


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def web() -> AsyncGenerator[Site]:
    """A site that `reader` may fetch from."""
    async with site() as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reader(web: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A server that may fetch from `web`, by two spellings of its address; its largest file is 1 MB."""
    allowed = f"127.0.0.1:{web.port}, LocalHost:{web.port}"
    folder = tmp_path_factory.mktemp("reader") / "data"
    async with serving(folder, url_allowed_hosts=allowed, max_upload_mb=1, url_timeout=1.0) as running:
        yield running


# --- text


async def test_a_text_becomes_searchable(api: Running) -> None:
    body = {"text": unique(f"# Pilots\n\n{TEXT}").decode(), "name": "pilots.md"}
    response = await api.client.post("/documents/text", params={"wait": "true"}, json=body)
    assert (response.status_code, response.json()["status"]) == (200, "ready"), response.text
    (entry,) = response.json()["documents"]
    assert (entry["filename"], entry["duplicate"]) == ("pilots.md", False)
    document = (await api.client.get(f"/documents/{entry['id']}")).json()
    assert (document["media_type"], document["title"]) == ("text/markdown", "Pilots")
    assert (await api.client.get(f"/documents/{entry['id']}/content")).text == body["text"]
    assert any(p["document_id"] == entry["id"] for p in await search(api, "Who knows every sandbank?", top_k=100))


async def test_without_wait_a_text_is_ready_later(api: Running) -> None:
    response = await api.client.post("/documents/text", json={"text": unique(TEXT).decode()})
    assert response.status_code == 202
    assert response.json()["status"] in ("queued", "parsing")
    assert (await document_events(api, response.json()["id"]))[-1]["document"]["status"] == "ready"


async def test_the_same_text_is_the_same_document_also_as_an_upload(api: Running) -> None:
    data = unique(TEXT)
    first = await api.upload("first.txt", data)
    before = await stored(api)
    for _ in range(2):
        entry = (await api.client.post("/documents/text", json={"text": data.decode()})).json()["documents"][0]
        assert (entry["id"], entry["duplicate"], entry["status"]) == (first["id"], True, "ready")
    assert await stored(api) == before


@pytest.mark.parametrize(
    ("name", "media_type"), [("a.txt", "text/plain"), ("a.md", "text/markdown"), (None, "text/markdown")]
)
async def test_the_names_ending_decides_markdown_or_text(api: Running, name: str | None, media_type: str) -> None:
    body = {"text": unique(TEXT).decode(), "name": name}
    response = await api.client.post("/documents/text", params={"wait": "true"}, json=body)
    document = (await api.client.get(f"/documents/{response.json()['id']}")).json()
    assert (document["status"], document["media_type"]) == ("ready", media_type)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Opening hours\n\nFrom 8.", "Opening hours.md"),
        ("\n\n## Opening *hours*\n", "Opening hours.md"),
        ("---\n\n- Input/output of C:\\pilots", "Input-output of C:-pilots.md"),
        ("Гавань открыта", "Гавань открыта.md"),
        ("word " * 40, f"{'word ' * 11}word….md"),
        ("x" * 500, f"{'x' * 60}….md"),
        ("# \n***\n", "text.md"),
    ],
)
async def test_a_text_without_a_name_is_called_by_its_first_line(text: str, name: str) -> None:
    assert _name_of(text) == name


async def test_curl_d_needs_no_header(api: Running) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = json.dumps({"text": unique(TEXT).decode()})
    response = await api.client.post("/documents/text", params={"wait": "true"}, content=body, headers=headers)
    assert response.status_code == 200
    body = json.dumps({"url": "http://127.0.0.1/"})
    problem(await api.client.post("/documents/url", content=body, headers=headers), 422, "url_refused")


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"text": ""}, {"text": " \n"}, {"text": None}, {"text": 1}, {"text": ["a"]}, {"text": "a\0b"}),
        *({"text": "a", "name": ""}, {"text": "a", "name": "\0"}, {"text": "a", "name": "n" * 256}),
        *({"text": "a", "title": "b"}, {"text": "a", "wait": True}, [], "text"),
    ],
)
async def test_a_bad_request_stores_nothing(api: Running, body: object) -> None:
    before = await stored(api)
    problem(await api.client.post("/documents/text", json=body), 422, "invalid_request")
    assert await stored(api) == before


async def test_a_lone_surrogate_is_said(api: Running) -> None:
    headers = {"Content-Type": "application/json"}
    response = await api.client.post("/documents/text", content=b'{"text": "a\\ud800"}', headers=headers)
    problem(response, 422, "invalid_request")


async def test_a_text_of_several_megabytes_is_taken(api: Running) -> None:
    """The limit is that of texts, not that of other JSON bodies. It begins like a PDF, to fail at once and be quick."""
    text = "%PDF-1.7\n" + "x" * 9_000_000
    response = await api.client.post("/documents/text", json={"text": text, "name": "big.txt"})
    assert response.status_code == 202, response.text
    assert (await document_events(api, response.json()["id"]))[-1]["document"]["size"] == len(text)


async def test_larger_texts_are_refused(api: Running, reader: Running) -> None:
    before = await stored(api)
    problem(await api.client.post("/documents/text", json={"text": "x" * 10_000_001}), 413, "too_large")
    assert await stored(api) == before
    response = await reader.client.post("/documents/text", json={"text": "x" * 1_000_001})
    assert "MAX_UPLOAD_MB" in problem(response, 413, "document_too_large")["detail"]


# --- url


async def test_a_page_becomes_searchable(reader: Running, web: Site, tmp_path: Path) -> None:
    web.pages["/guide"] = answer(302, Location="/pilots.html")
    web.pages["/pilots.html"] = answer(body=samples.html(tmp_path / "a.html").read_bytes(), Content_Type="text/plain")
    response = await reader.client.post("/documents/url", params={"wait": "true"}, json={"url": web.url("/guide")})
    assert (response.status_code, response.json()["status"]) == (200, "ready"), response.text
    (entry,) = response.json()["documents"]
    assert entry["filename"] == "pilots.html"
    document = (await reader.client.get(f"/documents/{entry['id']}")).json()
    assert document["media_type"] == "text/html"
    text = (await reader.client.get(f"/documents/{document['id']}/text")).json()["text"]
    assert "They know every sandbank" in text


async def test_without_wait_a_page_is_ready_later(reader: Running, web: Site) -> None:
    web.pages["/later.txt"] = answer(body=unique(TEXT))
    response = await reader.client.post("/documents/url", json={"url": web.url("/later.txt"), "name": "mine.md"})
    assert response.status_code == 202
    document = (await document_events(reader, response.json()["id"]))[-1]["document"]
    assert (document["status"], document["filename"], document["media_type"]) == ("ready", "mine.md", "text/markdown")


async def test_the_same_page_is_the_same_document_and_a_changed_one_is_new(reader: Running, web: Site) -> None:
    async def fetch(host: str) -> tuple[str, bool]:
        body = {"url": web.url("/page.txt", host)}
        response = await reader.client.post("/documents/url", params={"wait": "true"}, json=body)
        (entry,) = response.json()["documents"]
        return entry["id"], entry["duplicate"]

    web.pages["/page.txt"] = answer(body=unique(TEXT))
    (first, new), again = await fetch("127.0.0.1"), await fetch("localhost")
    assert (new, again) == (False, (first, True))
    web.pages["/page.txt"] = answer(body=unique(TEXT))
    changed, duplicate = await fetch("127.0.0.1")
    assert (changed != first, duplicate) == (True, False)


async def test_a_name_that_a_site_gives_is_cleaned(reader: Running, web: Site) -> None:
    web.pages["/x"] = answer(body=unique(TEXT), Content_Disposition='attachment; filename="../../etc/pass\u202ewd.txt"')
    response = await reader.client.post("/documents/url", params={"wait": "true"}, json={"url": web.url("/x")})
    assert response.json()["documents"][0]["filename"] == "passwd.txt"


async def test_what_cannot_be_fetched_leaves_nothing(reader: Running, web: Site) -> None:
    async def slow(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    web.pages |= {
        "/big": answer(body=b"x" * 1_000_001),
        "/empty": answer(),
        "/inner": answer(302, Location="http://127.0.0.1:80/"),
        "/slow": slow,
        "/cut": b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nx",
    }
    before = await stored(reader)
    folder = sorted(p.name for p in data_dir(reader).iterdir())
    for path, status, code in (
        ("/gone", 502, "url_http_error"),
        ("/big", 413, "document_too_large"),
        ("/empty", 422, "document_empty"),
        ("/inner", 422, "url_refused"),
        ("/slow", 504, "url_timeout"),
        ("/cut", 502, "url_unreachable"),
    ):
        body = problem(await reader.client.post("/documents/url", json={"url": web.url(path)}), status, code)
        assert body.get("upstream_status") == (404 if path == "/gone" else None)
    assert await stored(reader) == before
    assert sorted(p.name for p in data_dir(reader).iterdir()) == folder


async def test_private_addresses_are_refused_by_default(api: Running) -> None:
    before = await stored(api)
    for url in (
        "http://127.0.0.1/",
        f"{api.base}/health",
        "http://localhost/",
        "http://[::1]/",
        "http://169.254.169.254/",
    ):
        problem(await api.client.post("/documents/url", json={"url": url}), 422, "url_refused")
    assert await stored(api) == before


@pytest.mark.parametrize(
    "body", [{}, {"url": ""}, {"url": 1}, {"url": "http://a/" + "a" * 4000}, {"url": "http://a/", "x": 1}]
)
async def test_a_bad_url_request_is_refused(api: Running, body: object) -> None:
    problem(await api.client.post("/documents/url", json=body), 422, "invalid_request")


async def test_fetching_can_be_turned_off(tmp_path: Path, web: Site) -> None:
    web.requests.clear()
    web.pages["/page.txt"] = answer(body=unique(TEXT))
    async with serving(tmp_path / "data", url_fetch=False, url_allowed_hosts=f"127.0.0.1:{web.port}") as running:
        response = await running.client.post("/documents/url", json={"url": web.url("/page.txt")})
        assert "URL_FETCH" in problem(response, 403, "url_fetch_off")["detail"]
        assert (await running.client.post("/documents/text", json={"text": TEXT})).status_code == 202
    assert web.requests == []


async def test_a_fetched_page_is_its_owners(web: Site, tmp_path: Path) -> None:
    web.pages["/page.txt"] = answer(body=unique(TEXT))
    async with serving(tmp_path / "data", api_keys=KEYS, url_allowed_hosts=f"127.0.0.1:{web.port}") as running:
        body = {"url": web.url("/page.txt")}
        response = await running.client.post("/documents/url", json=body, headers=bearer(ALICE))
        document = response.json()["id"]
        assert (await running.client.get(f"/documents/{document}", headers=bearer(ALICE))).status_code == 200
        problem(await running.client.get(f"/documents/{document}", headers=bearer(BOB)), 404, "not_found")
        response = await running.client.post("/documents/url", json=body, headers=bearer(BOB))
        assert response.json()["documents"][0]["duplicate"] is False


async def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    port = free_port()
    async with serving(tmp_path / "data", url_allowed_hosts=f"127.0.0.1:{port}") as running:
        response = await running.client.post("/documents/url", json={"url": f"http://127.0.0.1:{port}/"})
        assert problem(response, 502, "url_unreachable")["retryable"]
