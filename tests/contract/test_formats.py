"""What every document format promises; a new one is tested by being there."""

import os
import random
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from backend.chains.reading.formats import Format, detect, formats
from backend.chains.reading.parsed import MAX_CONTEXT, ParsedDocument
from backend.errors import DocumentUnreadable
from tests.support import samples

GOOD: dict[str, Callable[[Path], Path]] = {
    "pdf": lambda path: samples.pdf(path, [samples.PARAGRAPH] * 2, title="Harbour", headings=["Pilots", "Boarding"]),
    "docx": lambda path: samples.docx(path, headings=[(1, "Pilots", "A."), (2, "Boarding", "B.")], table=[["x", "y"]]),
    "markdown": samples.markdown,
    "html": samples.html,
    "text": samples.text,
    "pptx": samples.pptx,
    "xlsx": samples.xlsx,
    "epub": samples.epub,
    "eml": samples.eml,
    "csv": samples.csv,
    "json": samples.json,
    "code": samples.code,
    "image": samples.picture,
}
HEADINGS = {
    "markdown": ["Pilots", "Boarding at night"],
    "code": ["class Pilots", "def ladder", "async def Boarding", ""],
    **{name: ["Pilots", "Boarding"] for name in ("pdf", "docx", "html", "xlsx", "pptx", "epub")},
}
# Told apart by what only their own files hold; the others are text, which a name can make something else.
SURE = ("pdf", "docx", "html", "pptx", "xlsx", "epub", "eml", "json", "image")
READ_AS_TEXT = ("text", "markdown", "html", "csv", "json", "code", "eml", "image")
UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029\ud800-\udfff\ufeff]")


@pytest.fixture(params=sorted(formats()))
def plugin(request: pytest.FixtureRequest) -> Format:
    return formats()[request.param]


@pytest.fixture(autouse=True)
def tesseract(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = samples.tesseract(tmp_path_factory.mktemp("bin"), "Harbour pilots board arriving ships")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.fixture
def good(plugin: Format, tmp_path: Path) -> Path:
    assert plugin.name in GOOD, f"add a sample of {plugin.name} to GOOD"
    return GOOD[plugin.name](tmp_path / f"good{plugin.suffixes[0]}")


def assert_canonical(parsed: ParsedDocument) -> None:
    assert not UNWANTED.search(parsed.text)
    parsed.text.encode("utf-8")
    for places in (parsed.pages, parsed.headings):
        starts = [place.start for place in places]
        assert starts == sorted(starts)
        assert all(0 <= start <= len(parsed.text) for start in starts)
    for number, page in enumerate(parsed.pages, 1):
        assert page.page == number
    contexts = parsed.contexts
    assert all(before.end <= after.start for before, after in pairwise(contexts))
    for context in contexts:
        assert 0 <= context.start < context.end <= len(parsed.text) and len(context.text) <= MAX_CONTEXT
        assert context.start == 0 or parsed.text[context.start - 1] == "\n"
    for heading in parsed.headings:
        assert heading.title == heading.title.strip() and "\n" not in heading.title and 1 <= heading.level <= 20
        assert heading.start == 0 or parsed.text[heading.start - 1] == "\n"


def test_has_a_text_that_keeps_the_invariants(plugin: Format, good: Path) -> None:
    parsed = plugin.parse(good, good.name)
    assert_canonical(parsed)
    assert "Harbour pilots board arriving ships" in parsed.text
    assert parsed.media_type == plugin.media_type


def test_headings_point_at_their_words(plugin: Format, good: Path) -> None:
    parsed = plugin.parse(good, good.name)
    for heading in parsed.headings:
        line = parsed.text[heading.start :].split("\n", 1)[0]
        assert not heading.title or heading.title.split()[0] in line or plugin.name == "code"
    titles = [heading.title for heading in parsed.headings]
    expected = HEADINGS.get(plugin.name, [])
    assert [title for title in titles if title or plugin.name == "code"][: len(expected) or None] == expected


def test_recognises_its_own_and_no_other(plugin: Format, good: Path) -> None:
    assert detect(good, good.name) is plugin


def test_a_wrong_name_changes_nothing(plugin: Format, good: Path) -> None:
    expected = plugin if plugin.name in SURE else formats()["text"]
    assert detect(good, "letter.txt") is (plugin if plugin.name == "csv" else expected)
    wrong = "letter.docx" if plugin.name == "pdf" else "letter.pdf"
    assert detect(good, wrong) is expected


@pytest.mark.parametrize(
    "content",
    [b"", b" \n\t ", b"\0" * 5000, b"\xff\xfe", b"PK\x03\x04", b"%PDF-1.7\n", bytes(range(256)) * 40],
)
def test_garbage_is_unreadable_in_words(plugin: Format, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(content)
    try:
        parsed = plugin.parse(path, path.name)
    except DocumentUnreadable as error:
        assert len(str(error)) > 20 and "Traceback" not in str(error)
    else:
        assert_canonical(parsed)
        assert plugin.name in READ_AS_TEXT


def test_survives_damage(plugin: Format, good: Path) -> None:
    """Cut off or with flipped bits: a canonical document or a reason, and nothing else."""
    raw = good.read_bytes()
    dice = random.Random(7)
    for _ in range(60):
        damaged = bytearray(raw[: dice.randrange(1, len(raw))] if dice.random() < 0.4 else raw)
        for _ in range(dice.choice((0, 1, 20, 200))):
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        good.write_bytes(damaged)
        try:
            assert_canonical(plugin.parse(good, good.name))
        except DocumentUnreadable as error:
            assert error.code.startswith("document_")


@pytest.mark.parametrize("make", [samples.plain_zip, lambda path: (path.write_bytes(b"MZ" + bytes(5000)), path)[1]])
def test_what_nobody_reads_is_refused_with_what_can_be_read(make: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(DocumentUnreadable, match=r"PDF.*Word.*plain text") as caught:
        detect(make(tmp_path / "thing"), "thing.pdf")
    assert caught.value.code == "document_unsupported"
