"""GET /documents/{id}/content: what a browser may display, and how."""

from pathlib import Path

import pytest

from tests.support.harness import Running
from tests.support.samples.pages import pdf, picture

pytestmark = pytest.mark.asyncio(loop_scope="session")

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!DOCTYPE html><html><body><script>alert(1)</script><p>The gate is open.</p></body></html>"


async def content(server: Running, name: str, data: bytes, **params: str) -> tuple[str, str]:
    """The kind of disposition and the media type. Checks what is the same for every file."""
    document = await server.upload(name, data)
    response = await server.client.get(f"/documents/{document['id']}/content", params=params)
    assert response.content == data
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"].startswith("sandbox;")
    kind, _, file_name = response.headers["content-disposition"].partition("; ")
    assert file_name.startswith("filename*=UTF-8''")
    return kind, response.headers["content-type"]


@pytest.mark.parametrize("name", ["offer.pdf", "offer.html"])
async def test_a_pdf_is_displayed_whatever_its_name_says(api: Running, tmp_path: Path, name: str) -> None:
    data = pdf(tmp_path / "a.pdf", ["The offer ends in June."]).read_bytes()
    assert await content(api, name, data) == ("inline", "application/pdf")
    assert await content(api, name, data, download="1") == ("attachment", "application/octet-stream")


async def test_an_image_is_displayed(api: Running, tmp_path: Path) -> None:
    data = picture(tmp_path / "a.png").read_bytes()
    assert await content(api, "stamp.png", data) == ("inline", "image/png")
    assert await content(api, "stamp.png", data, download="true") == ("attachment", "application/octet-stream")


@pytest.mark.parametrize(
    ("name", "data"), [("a.pdf", HTML), ("a.png", SVG), ("a.svg", SVG), ("a.html", HTML), ("a.txt", b"Only text.")]
)
async def test_what_may_hold_scripts_is_a_download(api: Running, name: str, data: bytes) -> None:
    assert await content(api, name, data) == ("attachment", "application/octet-stream")


async def test_a_part_of_a_pdf_can_be_fetched(api: Running, tmp_path: Path) -> None:
    data = pdf(tmp_path / "a.pdf", ["The offer ends in July."]).read_bytes()
    document = await api.upload("part.pdf", data)
    response = await api.client.get(f"/documents/{document['id']}/content", headers={"Range": "bytes=0-3"})
    assert (response.status_code, response.content) == (206, b"%PDF")
