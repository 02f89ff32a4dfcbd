"""Files that are made to hurt: read or refused with a reason, in bounded time and memory."""

import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from backend.chains.reading.formats import formats
from backend.chains.reading.parser import Parser
from backend.errors import DocumentUnreadable
from tests.support import samples

pytestmark = pytest.mark.slow

ENTITIES = (
    '<!DOCTYPE x [<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)) + "]>"
)


@pytest.fixture
async def parser() -> AsyncIterator[Parser]:
    parser = Parser(workers=1, timeout=60)
    yield parser
    await parser.aclose()


def with_part(path: Path, part: str, content: bytes) -> Path:
    """The archive with another content of one part."""
    with zipfile.ZipFile(path) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    entries[part] = content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, old in entries.items():
            target.writestr(name, old)
    return path


SLIDE = "ppt/slides/slide1.xml"
SHEET = "xl/worksheets/sheet1.xml"
BOMBS: list[tuple[str, Callable[[Path], Path], str]] = [
    ("a.pptx", lambda path: with_part(samples.pptx(path), SLIDE, b" " * 250_000_000), "document_too_large"),
    ("a.xlsx", lambda path: with_part(samples.xlsx(path), SHEET, b" " * 250_000_000), "document_too_large"),
    (
        "a.epub",
        lambda path: with_part(samples.epub(path), "OEBPS/nav.xhtml", b" " * 50_000_000),
        "document_too_large",
    ),
    ("a.pptx", lambda path: with_part(samples.pptx(path), SLIDE, f"{ENTITIES}<x>&a11;</x>".encode()), ""),
    ("a.xlsx", lambda path: with_part(samples.xlsx(path), SHEET, f"{ENTITIES}<x>&a11;</x>".encode()), ""),
    ("a.epub", lambda path: with_part(samples.epub(path), "OEBPS/book.opf", f"{ENTITIES}<x>&a11;</x>".encode()), ""),
    ("a.pptx", lambda path: with_part(samples.pptx(path), SLIDE, b"<a>" * 100_000), "document_corrupt"),
    ("a.epub", lambda path: samples.epub(path, [("x", "<div>" * 200_000)]), "document_corrupt"),
    ("a.epub", lambda path: samples.epub(path, [("x", "<p>y</p>" + "<b>" * 5_000 + "z")]), "read"),
    ("a.xlsx", samples.sparse_xlsx, ""),
    ("a.csv", lambda path: samples.text(path, ",".join("x" * 1_000_000) + "\n" + "," * 1_000_000 + "1"), "read"),
    ("a.csv", lambda path: samples.text(path, '"' * 2_000_001), ""),
    ("a.csv", lambda path: samples.text(path, 'a,"b\n' * 300_000), "read"),
    ("a.json", lambda path: samples.text(path, "[" * 10_000 + "]" * 10_000), "read"),
    ("a.json", lambda path: samples.text(path, '{"a":' * 900 + "1" + "}" * 900), "read"),
    ("a.json", lambda path: samples.text(path, '{"' + "k" * 100_000 + '":[' + "[1]," * 100_000 + "[1]]}"), "read"),
    ("a.json", lambda path: samples.text(path, '{"a": ' + "9" * 100_000 + "}"), "read"),
]


def mail(path: Path, parts: str) -> Path:
    head = "From: a@b.c\nTo: a@b.c\nDate: now\nMIME-Version: 1.0\n"
    return samples.text(path, head + parts)


def nested(depth: int) -> str:
    opened = "".join(f'Content-Type: multipart/mixed; boundary="b{n}"\n\n--b{n}\n' for n in range(depth))
    return opened + "Content-Type: text/plain\n\nThe deepest.\n"


FLAT = 'Content-Type: multipart/mixed; boundary="b"\n\n' + "--b\n\nA part.\n" * 10_000 + "--b--\n"
BOMBS += [
    ("a.eml", lambda path: mail(path, FLAT), "document_too_large"),
    ("a.eml", lambda path: mail(path, nested(5_000)), ""),
    ("a.eml", lambda path: mail(path, nested(20)), "read"),
    ("a.eml", lambda path: mail(path, "Subject: " + "=?utf-8?q?a?= " * 100_000 + "\n\nText."), "read"),
    ("a.eml", lambda path: mail(path, "Content-Type: text/plain; " + "a*0*=x; " * 20_000 + "\n\nText."), ""),
]


def page(path: Path, body: str) -> Path:
    return samples.text(path, f"<html><body>{body}")


BOMBS += [
    ("a.txt", lambda path: samples.text(path, "<!-- -->" * 100 + "hello, harbour of the north"), "read"),
    ("a.md", lambda path: samples.text(path, "<!-- -->" * 100 + "\n# Harbour\n"), "read"),
    ("a.md", lambda path: samples.text(path, "[a]: b\n" * 100_000), "read"),
    ("a.md", lambda path: samples.text(path, "# a\n" * 300_000), "read"),
    ("a.html", lambda path: page(path, "<table role=none><tr>" + "<td>a" * 200_000), "read"),
    ("a.html", lambda path: page(path, "<main>a" * 300_000), "document_corrupt"),
    ("a.html", lambda path: page(path, "<div></ul>" * 200_000), "document_corrupt"),
    ("a.html", lambda path: page(path, "<b>" * 10_000 + "</p><p>x" * 100_000), "document_corrupt"),
    ("a.html", lambda path: page(path, "<p " + "".join(f"a{n} " for n in range(300_000)) + ">x"), "document_corrupt"),
    ("a.eml", lambda path: mail(path, 'Content-Type: text/plain; a="' + ";" * 1_000_000 + "\n\nText."), "read"),
    ("a.pdf", lambda path: samples.claiming_pdf(path, 1_000_000), "document_too_large"),
]


@pytest.mark.parametrize(("name", "make", "expected"), BOMBS, ids=range(len(BOMBS)))
async def test_read_or_refused_with_a_reason(
    tmp_path: Path, parser: Parser, name: str, make: Callable[[Path], Path], expected: str
) -> None:
    """`expected` is a code, `read`, or empty where either will do."""
    path = make(tmp_path / name)
    try:
        parsed = await parser.parse(path, name)
    except DocumentUnreadable as error:
        assert error.code in ((expected,) if expected else ("document_corrupt", "document_too_large", "document_empty"))
        assert len(str(error)) > 30
    else:
        assert expected in ("", "read") and len(parsed.text) < 20_000_000
        assert "hahahahaha" not in parsed.text
    good = samples.text(tmp_path / "good.txt")
    assert (await parser.parse(good, "good.txt")).text == samples.PARAGRAPH


async def test_pages_are_those_that_are_there(tmp_path: Path, parser: Parser) -> None:
    parsed = await parser.parse(samples.claiming_pdf(tmp_path / "a.pdf", 15_000), "a.pdf")
    assert [page.page for page in parsed.pages] == [1] and "Hello harbour" in parsed.text


@pytest.mark.parametrize(("name", "line"), [("a.md", "# Title {}\n"), ("a.html", "<h1>Title {}</h1>")])
async def test_headings_are_bounded(tmp_path: Path, parser: Parser, name: str, line: str) -> None:
    """What comes behind the last one kept is under no heading."""
    path = samples.text(tmp_path / name, "<html>" * (name == "a.html") + "".join(map(line.format, range(25_000))))
    parsed = await parser.parse(path, name)
    assert len(parsed.headings) == 20_000 and "Title 24999" in parsed.text
    assert parsed.heading_at(parsed.text.index("Title 19998")) == "Title 19998"
    assert parsed.heading_at(len(parsed.text) - 1) is None


async def test_tables_are_bounded(tmp_path: Path, parser: Parser) -> None:
    path = samples.text(tmp_path / "a.csv", "Name,Year\nAnna,2020\n\n" * 30_000)
    parsed = await parser.parse(path, "a.csv")
    assert len(parsed.contexts) == 20_000 and parsed.text.count("Anna") == 30_000


async def test_paths_of_definitions_are_bounded(tmp_path: Path, parser: Parser) -> None:
    source = "".join("\t" * depth + f"class Pilot{depth}:\n" for depth in range(3_000))
    parsed = await parser.parse(samples.text(tmp_path / "a.py", source), "a.py")
    assert len(parsed.heading_at(len(source) - 1) or "") < 200


def test_markdown_behind_the_last_block_is_text(tmp_path: Path) -> None:
    path = samples.text(tmp_path / "a.md", "# First\n" + "- a\n" * 150_000 + "\n# Last\n")
    parsed = formats()["markdown"].parse(path, path.name)
    assert [heading.title for heading in parsed.headings] == ["First"] and parsed.text.rstrip().endswith("# Last")
