"""POST /documents/upload: every format, several at once, the same bytes again."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api.helpers import data_dir, document_events, problem, rows, stored, unique
from tests.support import samples
from tests.support.harness import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXT = "Harbour pilots board arriving ships two miles out. They know every sandbank by heart."


async def test_a_pdf_becomes_searchable_with_its_pages(api: Running, tmp_path: Path) -> None:
    path = samples.pdf(tmp_path / "a.pdf", ["The tariff is 40 crowns.", "The pilot is Anna."], title="Handbook")
    document = await api.upload("a.pdf", path.read_bytes())
    assert document["status"] == "ready"
    assert (document["media_type"], document["pages"], document["title"]) == ("application/pdf", 2, "Handbook")
    assert document["chunks"] >= 1
    assert document["size"] == path.stat().st_size


@pytest.mark.parametrize(
    ("name", "make", "media_type"),
    [
        ("a.docx", samples.docx, "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a.md", samples.markdown, "text/markdown"),
        ("a.html", samples.html, "text/html"),
        ("a.txt", samples.text, "text/plain"),
    ],
)
async def test_every_other_format_becomes_searchable(
    api: Running, tmp_path: Path, name: str, make: Callable[[Path], Path], media_type: str
) -> None:
    document = await api.upload(name, make(tmp_path / name).read_bytes())
    assert document["status"] == "ready", document
    assert document["media_type"] == media_type
    text = (await api.client.get(f"/documents/{document['id']}/text")).json()["text"]
    assert "They know every sandbank" in text


async def test_a_mislabelled_file_is_read_as_what_it_is(api: Running, tmp_path: Path) -> None:
    data = samples.pdf(tmp_path / "a.pdf", ["A ferry to the island leaves at noon."]).read_bytes()
    document = await api.upload("notes.txt", data)
    assert (document["status"], document["media_type"]) == ("ready", "application/pdf")
    document = await api.upload("report.pdf", unique("Only words, no PDF at all."))
    assert (document["status"], document["media_type"]) == ("ready", "text/plain")


async def test_without_wait_it_answers_202_and_is_ready_later(api: Running) -> None:
    response = await api.client.post("/documents/upload", files={"file": ("later.txt", unique(TEXT))})
    assert response.status_code == 202
    body = response.json()
    assert body["status"] in ("queued", "parsing")
    assert body["documents"][0] | {"status": ""} == {
        "id": body["id"],
        "name": "later.txt",
        "filename": "later.txt",
        "status": "",
        "duplicate": False,
        "reason_code": None,
        "reason": None,
    }
    last = (await document_events(api, body["id"]))[-1]
    assert last["document"]["status"] == "ready"


async def test_with_wait_it_answers_200_when_searchable(api: Running) -> None:
    response = await api.client.post(
        "/documents/upload", params={"wait": "true"}, files={"file": ("now.txt", unique(TEXT))}
    )
    assert (response.status_code, response.json()["status"]) == (200, "ready")


async def test_the_collection_may_be_a_field_and_nothing_else(api: Running) -> None:
    made = (await api.client.post("/collections", json={"name": unique("Fields").decode()[:40]})).json()["id"]
    for fields, params in (({"collection": made}, {}), ({}, {"collection": made})):
        files = {"file": ("there.txt", unique(TEXT))}
        response = await api.client.post("/documents/upload", data=fields, params=params, files=files)
        document = (await api.client.get(f"/documents/{response.json()['id']}")).json()
        assert document["collection_id"] == made
    files = {"file": ("typo.txt", unique(TEXT))}
    refused = await api.client.post("/documents/upload", data={"colection": made}, files=files)
    assert "colection: is no field" in problem(refused, 422, "invalid_request")["detail"]


async def test_a_file_of_several_megabytes_is_taken(api: Running) -> None:
    """The limit is MAX_UPLOAD_MB, not that of JSON bodies. The file is one that fails at once, to be quick."""
    data = b"%PDF-1.7\n" + bytes(range(256)) * 20_000
    response = await api.client.post("/documents/upload", files={"file": ("big.pdf", data)})
    assert response.status_code == 202, response.text
    last = (await document_events(api, response.json()["id"]))[-1]
    assert last["document"]["size"] == len(data)


async def test_several_files_and_one_bad_one_does_not_lose_the_others(api: Running) -> None:
    files = [
        ("file", ("one.txt", unique(TEXT))),
        ("file", ("empty.txt", b"")),
        ("file", ("program.exe", b"MZ" + bytes(100))),
        ("file", ("two.txt", unique(TEXT))),
    ]
    response = await api.client.post("/documents/upload", params={"wait": "true"}, files=files)
    assert response.status_code == 200, response.text
    entries = response.json()["documents"]
    assert [e["filename"] for e in entries] == ["one.txt", "empty.txt", "program.exe", "two.txt"]
    assert [e["status"] for e in entries] == ["ready", "failed", "failed", "ready"]
    assert [e["reason_code"] for e in entries] == [None, "document_empty", "document_unsupported", None]
    assert all(e["reason"] for e in entries if e["status"] == "failed")


async def test_no_file_at_all_is_said(api: Running) -> None:
    body = problem(await api.client.post("/documents/upload", files={"other": ("a.txt", b"x")}), 422, "invalid_request")
    assert "file" in body["detail"]
    problem(await api.client.post("/documents/upload"), 422, "invalid_request")
    problem(await api.client.post("/documents/upload", json={"file": "a"}), 422, "invalid_request")


async def test_more_files_than_allowed_are_refused_whole(api: Running) -> None:
    before = await stored(api)
    files = [("file", (f"{n}.txt", unique(TEXT))) for n in range(21)]
    body = problem(await api.client.post("/documents/upload", files=files), 422, "invalid_request")
    assert "MAX_UPLOAD_FILES" in body["detail"]
    assert await stored(api) == before


async def test_the_same_bytes_are_the_same_document(api: Running) -> None:
    data = unique(TEXT)
    first = await api.upload("first.txt", data)
    before = await stored(api)
    response = await api.client.post("/documents/upload", files={"file": ("second name.txt", data)})
    entry = response.json()["documents"][0]
    assert (entry["id"], entry["duplicate"], entry["status"]) == (first["id"], True, "ready")
    assert await stored(api) == before


async def test_twenty_uploads_of_the_same_bytes_at_once_are_one_document(api: Running) -> None:
    data, before = unique(TEXT), await stored(api)

    async def send() -> str:
        files = {"file": ("same.txt", data)}
        response = await api.client.post("/documents/upload", params={"wait": "true"}, files=files)
        assert response.json()["status"] == "ready", response.text
        return response.json()["id"]

    assert len(set(await asyncio.gather(*(send() for _ in range(20))))) == 1
    after = await stored(api)
    assert after["documents"] == before["documents"] + 1
    assert after["jobs"] == before["jobs"] + 1
    assert len(after["files"]) == len(before["files"]) + 1


async def test_the_same_name_with_other_bytes_is_another_document(api: Running) -> None:
    one, two = await api.upload("README.md", unique("# One")), await api.upload("README.md", unique("# Two"))
    assert one["id"] != two["id"]
    assert one["filename"] == two["filename"] == "README.md"


async def test_files_on_disk_have_the_servers_own_names(api: Running) -> None:
    document = await api.upload("telling-name.txt", unique(TEXT))
    folder = data_dir(api) / "files"
    assert (folder / document["version"]).is_file()
    assert not [p for p in folder.rglob("*") if "telling" in p.name]
    versions = {row[0] for row in rows(data_dir(api), "SELECT id FROM document_versions WHERE status != 'superseded'")}
    assert {p.name for p in folder.iterdir()} == versions
