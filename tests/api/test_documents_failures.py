"""Files that can't become documents: the reason in words, and nothing left behind."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api.helpers import data_dir, document_events, problem, rows, search, stored, unique
from tests.support import samples
from tests.support.harness import Running, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

Make = Callable[[Path], Path]


def corrupt_pdf(path: Path) -> Path:
    data = samples.pdf(path, [samples.PARAGRAPH]).read_bytes()
    path.write_bytes(data[: len(data) // 3])
    return path


def corrupt_docx(path: Path) -> Path:
    data = samples.docx(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def blanks(path: Path) -> Path:
    path.write_text(" \n\t\n ")
    return path


FAILURES: list[tuple[str, Make, str, str]] = [
    ("secret.pdf", samples.encrypted_pdf, "document_encrypted", "password"),
    ("cut.pdf", corrupt_pdf, "document_corrupt", "damaged"),
    ("cut.docx", corrupt_docx, "document_corrupt", "damaged"),
    ("blank.txt", blanks, "document_empty", "no text"),
    ("blank.pdf", samples.blank_pdf, "document_empty", "no text"),
    ("archive.zip", samples.plain_zip, "document_unsupported", "PDF"),
    ("bomb.docx", samples.docx_bomb, "document_too_large", "large"),
]
if shutil.which("tesseract") is None:  # else they are read
    FAILURES.append(("scan.pdf", samples.scanned_pdf, "document_scanned", "tesseract"))


@pytest.mark.parametrize(("name", "make", "code", "words"), FAILURES, ids=[f[0] for f in FAILURES])
async def test_a_bad_file_fails_with_its_reason_in_words(
    api: Running, tmp_path: Path, name: str, make: Make, code: str, words: str
) -> None:
    document = await api.upload(name, make(tmp_path / name).read_bytes())
    assert (document["status"], document["reason_code"]) == ("failed", code), document
    assert words.lower() in document["reason"].lower()
    assert document["chunks"] is None
    version = document["version"]
    assert rows(data_dir(api), "SELECT count(*) FROM chunks WHERE version_id = ?", version) == [(0,)]
    assert rows(data_dir(api), "SELECT stage FROM jobs WHERE version_id = ?", version) == [("failed",)]
    (event,) = await document_events(api, document["id"])
    assert event["document"]["reason"] == document["reason"]


async def test_an_empty_file_is_refused_and_leaves_nothing(api: Running) -> None:
    before = await stored(api)
    body = problem(await api.client.post("/documents/upload", files={"file": ("a.txt", b"")}), 422, "document_empty")
    assert "a.txt" in body["detail"]
    assert await stored(api) == before


async def test_a_file_over_the_limit_is_413_and_leaves_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", max_upload_mb=1) as running:
        before = await stored(running)
        data = b"x" * 1_000_001
        response = await running.client.post("/documents/upload", files={"file": ("big.txt", data)})
        body = problem(response, 413, "document_too_large")
        assert "MAX_UPLOAD_MB" in body["detail"] and "1 MB" in body["detail"]
        assert await stored(running) == before
        # Exactly the limit is allowed; of several files only the large one fails.
        files = [("file", ("big.txt", data)), ("file", ("fits.txt", unique("Fits.")))]
        response = await running.client.post("/documents/upload", params={"wait": "true"}, files=files)
        assert response.status_code == 200, response.text
        assert [d["status"] for d in response.json()["documents"]] == ["failed", "ready"]
        assert response.json()["documents"][0]["reason_code"] == "document_too_large"
        edge = await running.client.post("/documents/upload", files={"file": ("edge.bin", b"\x00" * 1_000_000)})
        assert edge.status_code == 202


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_endless_upload_is_cut_at_a_limit(tmp_path: Path, chunked: bool) -> None:
    async with serving(tmp_path / "data", max_upload_mb=1, max_upload_files=2) as running:
        before = await stored(running)
        body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 30_000_000

        async def pieces():
            for at in range(0, len(body), 1_000_000):
                yield body[at : at + 1_000_000]

        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        content = pieces() if chunked else body
        response = await running.client.post("/documents/upload", content=content, headers=headers)
        problem(response, 413, "too_large")
        assert await stored(running) == before


async def test_a_failed_file_uploaded_again_is_tried_again(api: Running, tmp_path: Path) -> None:
    data = samples.encrypted_pdf(tmp_path / "a.pdf").read_bytes()
    first = await api.upload("again.pdf", data)
    before = await stored(api)
    again = await api.client.post("/documents/upload", files={"file": ("again.pdf", data)})
    entry = again.json()["documents"][0]
    assert (entry["id"], entry["duplicate"]) == (first["id"], True)
    assert entry["status"] != "failed" and entry["reason"] is None
    last = (await document_events(api, entry["id"]))[-1]["document"]
    assert (last["status"], last["reason_code"]) == ("failed", "document_encrypted")
    assert await stored(api) == before


async def test_failed_documents_do_not_count_as_documents(fresh: Running, tmp_path: Path) -> None:
    """A question is then answered as if nothing had been uploaded."""
    document = await fresh.upload("a.pdf", samples.encrypted_pdf(tmp_path / "a.pdf").read_bytes())
    assert document["status"] == "failed"
    assert await search(fresh, "anything") == []
    assert not await fresh.services.library.search.has_documents("local")


async def test_a_failed_document_can_be_deleted_and_downloaded(api: Running, tmp_path: Path) -> None:
    data = samples.plain_zip(tmp_path / "a.zip").read_bytes()
    document = await api.upload("a.zip", data)
    assert document["status"] == "failed"
    assert (await api.client.get(f"/documents/{document['id']}/content")).content == data
    assert (await api.client.delete(f"/documents/{document['id']}")).status_code == 200


async def test_reasons_hold_no_path_of_the_server(api: Running, tmp_path: Path) -> None:
    for name, make, _, _ in FAILURES[:6]:
        document = await api.upload(name, make(tmp_path / name).read_bytes() + b" ")
        assert str(data_dir(api)) not in str(document)
        assert document["version"] not in (document["reason"] or "")
