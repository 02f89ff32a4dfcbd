"""Scans and pictures, with a Tesseract that is there, that is not, and that hangs."""

import os
import shutil
from pathlib import Path

import pytest

from backend.chains.reading.formats import _ocr, parse_file
from backend.chains.reading.parser import Parser
from backend.errors import DocumentUnreadable
from tests.support import samples

pytestmark = pytest.mark.slow

FOUND = "First line of\nthe page.\n\nSecond paragraph.\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    _ocr._languages.cache_clear()
    return folder


@pytest.mark.parametrize("make", [samples.scanned_pdf, samples.picture])
def test_without_tesseract_a_picture_is_refused_with_what_to_do(tmp_path: Path, folder: Path, make) -> None:
    with pytest.raises(DocumentUnreadable, match="apt install tesseract-ocr") as caught:
        parse_file(make(tmp_path / "a"), "a")
    assert caught.value.code == "document_scanned"


def test_scanned_pages_are_read_and_others_left_alone(tmp_path: Path, folder: Path) -> None:
    import pypdf

    samples.tesseract(folder, FOUND)
    writer = pypdf.PdfWriter()
    for part in (
        samples.pdf(tmp_path / "1", ["Typed."]),
        samples.scanned_pdf(tmp_path / "2"),
        samples.blank_pdf(tmp_path / "3"),
    ):
        writer.append(part)
    writer.write(tmp_path / "a.pdf")
    parsed = parse_file(tmp_path / "a.pdf", "a.pdf")
    assert parsed.text == "Typed.\n\nFirst line of the page.\n\nSecond paragraph."
    assert [parsed.page_at(parsed.text.index(word)) for word in ("Typed", "First", "Second")] == [1, 2, 2]
    assert [page.page for page in parsed.pages] == [1, 2, 3]


def test_tesseract_is_given_the_page_as_a_picture(tmp_path: Path, folder: Path) -> None:
    from PIL import Image

    samples.tesseract(folder, FOUND)
    parse_file(samples.scanned_pdf(tmp_path / "a.pdf"), "a.pdf")
    with Image.open(folder / "tesseract.seen") as seen:
        assert seen.format == "PPM" and seen.size == (1250, 1667)
        histogram = seen.histogram()
    assert sum(histogram[:100]) > 0 and histogram[255] > sum(histogram) // 2


def test_a_picture_is_a_document(tmp_path: Path, folder: Path) -> None:
    samples.tesseract(folder, FOUND)
    parsed = parse_file(samples.picture(tmp_path / "a"), "photo.jpg")
    assert (parsed.text, parsed.media_type) == ("First line of the page.\n\nSecond paragraph.", "image/png")


def test_nothing_found_is_said(tmp_path: Path, folder: Path) -> None:
    samples.tesseract(folder, " \n")
    with pytest.raises(DocumentUnreadable, match="OCR found no text"):
        parse_file(samples.scanned_pdf(tmp_path / "a.pdf"), "a.pdf")


def test_a_page_that_takes_too_long_costs_only_itself(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.tesseract(folder, FOUND, seconds=60)
    monkeypatch.setattr(_ocr, "_TIMEOUT", 0.5)
    with pytest.raises(DocumentUnreadable, match="OCR found no text"):
        parse_file(samples.scanned_pdf(tmp_path / "a.pdf"), "a.pdf")


async def test_the_child_finds_it_and_it_ends_with_the_child(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.tesseract(folder, FOUND)
    parser = Parser(workers=1)
    path = samples.scanned_pdf(tmp_path / "a.pdf")
    assert (await parser.parse(path, "a.pdf")).text.startswith("First line")
    await parser.aclose()

    samples.tesseract(folder, FOUND, seconds=100)
    (folder / "tesseract.seen").unlink()
    parser = Parser(workers=1, timeout=6)
    with pytest.raises(DocumentUnreadable, match="longer than 6 seconds"):
        await parser.parse(path, "a.pdf")
    await parser.aclose()
    assert (folder / "tesseract.seen").exists()
    if os.path.isdir("/proc"):
        running = [entry.read_bytes() for entry in Path("/proc").glob("[0-9]*/cmdline") if os.access(entry, os.R_OK)]
        assert not any(str(folder / "tesseract").encode() in line for line in running)


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="needs Tesseract")
def test_the_real_one(tmp_path: Path) -> None:
    _ocr._languages.cache_clear()
    assert "Harbour pilots board" in parse_file(samples.picture(tmp_path / "a.png"), "a.png").text
