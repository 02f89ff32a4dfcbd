"""Hostile file names: shown, never used."""

import re

import pytest

from tests.api.helpers import data_dir, document_events, multipart, problem, stored, unique
from tests.support.harness import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAMES: dict[bytes, str | None] = {
    b"../../x": "x",
    b"../../../etc/passwd": "passwd",
    b"..\\\\..\\\\boot.ini": "boot.ini",
    b"/etc/shadow": "shadow",
    b"a\x00b.txt": "ab.txt",
    "invoice\u202efdp.exe".encode(): "invoicefdp.exe",
    b"...": "unnamed",
    b" . ": "unnamed",
    b"%2e%2e%2fx": "%2e%2e%2fx",
    b"<img src=x onerror=alert(1)>.txt": "<img src=x onerror=alert(1)>.txt",
    b"{{7*7}}.txt": "{{7*7}}.txt",
    b"\xff\xfe.txt": None,
    b"a" * 2000 + b".txt": "a" * 250 + "….txt",
    "名前 🚢.txt".encode(): "名前 🚢.txt",
}


@pytest.mark.parametrize(("name", "shown"), NAMES.items(), ids=[repr(n[:24]) for n in NAMES])
async def test_a_hostile_name_is_display_only(api: Running, name: bytes, shown: str | None) -> None:
    before = await stored(api)
    body, headers = multipart(name, data := unique("Named."))
    response = await api.client.post("/documents/upload", params={"wait": "true"}, content=body, headers=headers)
    assert response.status_code == 200, response.text
    document = (await api.client.get(f"/documents/{response.json()['id']}")).json()
    if shown is not None:
        assert document["filename"] == shown
    assert not re.search(r"[\x00-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", document["filename"])
    assert 1 <= len(document["filename"]) <= 255
    folder = data_dir(api) / "files"
    assert (await stored(api))["files"] == sorted([*before["files"], document["version"]])
    assert (folder / document["version"]).read_bytes() == data
    download = await api.client.get(f"/documents/{document['id']}/content")
    assert download.content == data
    assert re.fullmatch(r"attachment; filename\*=UTF-8''[\w.%~-]+", download.headers["content-disposition"], re.A)
    assert len(await document_events(api, document["id"])) == 1


async def test_a_name_of_5000_bytes_is_refused_or_shortened(api: Running) -> None:
    before = await stored(api)
    body, headers = multipart(b"a" * 5000 + b".txt", unique("Named."))
    response = await api.client.post("/documents/upload", params={"wait": "true"}, content=body, headers=headers)
    if response.status_code == 200:
        assert len(response.json()["documents"][0]["filename"]) == 255
    else:
        problem(response, 400, "bad_request")
        assert await stored(api) == before


async def test_line_breaks_in_a_name_reach_no_header_and_no_event(api: Running) -> None:
    name = 'a"; name="other\r\nX-Injected: 1\r\n\r\ndata: {"type":"run.completed"}\r\n\r\n.txt'
    response = await api.client.post("/documents/upload", params={"wait": "true"}, files={"file": (name, unique("N."))})
    assert response.status_code == 200, response.text
    document_id = response.json()["id"]
    for path in (f"/documents/{document_id}/content", f"/documents/{document_id}/events"):
        assert "x-injected" not in (await api.client.get(path)).headers
    (event,) = await document_events(api, document_id)
    assert "\n" not in event["document"]["filename"] and "\r" not in event["document"]["filename"]


async def test_an_empty_name_is_no_file(api: Running) -> None:
    """A browser's form sends a file field without a file like this: it is refused, and nothing is stored."""
    before = await stored(api)
    body, headers = multipart(b"", b"words")
    response = await api.client.post("/documents/upload", content=body, headers=headers)
    assert response.status_code in (202, 422)
    if response.status_code == 422:
        assert await stored(api) == before
    else:
        assert response.json()["documents"][0]["filename"] == "unnamed"
