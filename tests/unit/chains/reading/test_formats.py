"""What each format makes of its particular trouble."""

import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.chains.reading.formats import _base, formats, parse_file
from backend.chains.reading.formats._layout import Line, PageText, lay_out
from backend.errors import DocumentUnreadable
from tests.support import samples


def reason(path: Path, name: str | None = None) -> str:
    with pytest.raises(DocumentUnreadable) as caught:
        parse_file(path, name or path.name)
    return caught.value.code


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (samples.encrypted_pdf, "document_encrypted"),
        (samples.blank_pdf, "document_empty"),
        (lambda path: samples.docx(path, [""]), "document_empty"),
        (lambda path: samples.docx_bomb(path, 201), "document_too_large"),
        (lambda path: samples.docx_bomb(path, 30), "document_too_large"),
        (lambda path: samples.lying_docx(path, 30), "document_corrupt"),
        (samples.docx_of_many_parts, "document_too_large"),
        (lambda path: samples.text(path, ""), "document_empty"),
        (lambda path: samples.text(path, " \n\ufeff "), "document_empty"),
        (lambda path: samples.text(path, "<html><body><script>x</script></body></html>"), "document_empty"),
    ],
)
def test_reasons(make: Callable[[Path], Path], code: str, tmp_path: Path) -> None:
    assert reason(make(tmp_path / "file")) == code


def test_broken_files_are_corrupt(tmp_path: Path) -> None:
    pdf = samples.pdf(tmp_path / "a.pdf", [samples.PARAGRAPH])
    pdf.write_bytes(pdf.read_bytes()[:200])
    assert reason(pdf) == "document_corrupt"
    docx = samples.docx(tmp_path / "a.docx")
    docx.write_bytes(docx.read_bytes()[:-2000])
    assert reason(docx) == "document_corrupt"


def test_an_office_file_with_a_password_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000) + "EncryptedPackage".encode("utf-16-le"))
    assert reason(path) == "document_encrypted"


def test_a_template_is_unsupported(tmp_path: Path) -> None:
    path = samples.docx(tmp_path / "a.docx")
    template = tmp_path / "b.docx"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(template, "w") as target:
        for entry in source.infolist():
            content = source.read(entry).replace(b"document.main+xml", b"template.main+xml")
            target.writestr(entry.filename, content)
    assert reason(template) == "document_unsupported"


def test_entities_of_a_docx_are_not_expanded(tmp_path: Path) -> None:
    path = samples.docx(tmp_path / "a.docx", ["PLACE"])
    evil = tmp_path / "evil.docx"
    head = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(evil, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == "word/document.xml":
                content = content.replace(b"<w:document", head + b"<w:document", 1).replace(b"PLACE", b"[&a;]")
            target.writestr(entry.filename, content)
    assert parse_file(evil, "evil.docx").text == "["


def test_docx_keeps_order_headings_lists_and_tables(tmp_path: Path) -> None:
    path = samples.docx(
        tmp_path / "a.docx",
        ["Before."],
        title="Handbook",
        headings=[(1, "One", "Under one."), (2, "Two", "Under two.")],
        items=["ladder", "lamp"],
        table=[["Ship", "Draught"], ["Anna", "7 m"]],
    )
    parsed = parse_file(path, "a.docx")
    assert parsed.title == "Handbook"
    assert parsed.text == (
        "Before.\n\nOne\n\nUnder one.\n\nTwo\n\nUnder two.\n\n- ladder\n- lamp\n\nShip | Draught\nAnna | 7 m"
    )
    assert parsed.heading_at(0) is None
    assert parsed.heading_at(parsed.text.index("Anna")) == "One > Two"


def test_pdf_pages_paragraphs_and_headings(tmp_path: Path) -> None:
    first = " ".join(["The first paragraph is long enough to be wrapped over lines."] * 4)
    path = samples.pdf(tmp_path / "a.pdf", [f"{first}\n\nSecond.", "", "Third."], title="T", headings=["Alpha"])
    parsed = parse_file(path, "a.pdf")
    assert parsed.title == "T"
    assert parsed.text == f"Alpha\n\n{first}\n\nSecond.\n\nThird."
    assert [parsed.page_at(parsed.text.index(word)) for word in ("Alpha", "Second", "Third")] == [1, 1, 3]
    assert parsed.heading_at(len(parsed.text)) == "Alpha"


def lines(*texts: str, right: float = 500) -> list[PageText]:
    return [PageText([Line(text, 50, right, 700 - 12 * number, 10) for number, text in enumerate(texts)])]


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["an infor-", "mation desk"], "an information desk"),
        (["a well-", "known fact", "is well-known"], "a well-known fact is well-known"),
        (["a soft\xad", "ware shop"], "a software shop"),
        (["between 3-", "4 of them"], "between 3- 4 of them"),
        (["the pre-", "War years"], "the pre- War years"),
    ],
)
def test_words_cut_at_a_line_end_are_mended_when_safe(texts: list[str], joined: str) -> None:
    assert [block.text for block in lay_out(lines(*texts), headings=True)[0]] == [joined]


def test_a_column_continues_a_sentence() -> None:
    page = PageText([Line("the sentence goes", 50, 250, 100, 10), Line("on over here.", 300, 500, 700, 10)])
    assert [block.text for block in lay_out([page], headings=True)[0]] == ["the sentence goes on over here."]


def test_html_keeps_content_and_drops_noise(tmp_path: Path) -> None:
    parsed = parse_file(samples.html(tmp_path / "a"), "a")
    assert parsed.title == "Harbour & handbook"
    assert parsed.text == (
        f"Pilots\n\n{samples.PARAGRAPH}\n\nBoarding\n\n- a ladder\n- a lamp\n\n"
        "Ship | Draught\nAnna | 7 m\n\ntwo\n  lines"
    )
    assert parsed.heading_at(parsed.text.index("Anna")) == "Pilots > Boarding"


def test_html_that_nests_without_end(tmp_path: Path) -> None:
    path = samples.text(tmp_path / "a.html", "<html><body>" + "<div>" * 15_000 + "deep" + "<b>" * 15_000 + "er")
    began = time.process_time()
    assert parse_file(path, "a.html").text == "deeper"
    assert time.process_time() - began < 10


def test_html_that_would_hold_the_parser_for_minutes_is_refused(tmp_path: Path) -> None:
    path = samples.text(tmp_path / "a.html", "<html><body>" + "<div>" * 200_000 + "deep")
    with pytest.raises(DocumentUnreadable, match="deep"):
        parse_file(path, "a.html")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_html_in_the_encoding_it_declares(tmp_path: Path, encoding: str) -> None:
    page = f"<html><head><meta charset='{encoding}'></head><body><p>Grüße für dich</p></body></html>"
    assert parse_file(samples.text(tmp_path / "a.html", page, encoding), "a.html").text == "Grüße für dich"


def test_markdown_is_its_own_source(tmp_path: Path) -> None:
    parsed = parse_file(samples.markdown(tmp_path / "a.md"), "a.md")
    assert parsed.text == samples.MARKDOWN
    assert parsed.title == "Harbour handbook"
    assert [(heading.level, heading.title) for heading in parsed.headings] == [
        (1, "Pilots"),
        (2, "Boarding at night"),
        (2, "Moorings"),
    ]
    assert parsed.text[parsed.headings[2].start :].startswith("Moorings\n---")


def test_markdown_without_a_name_is_told_by_its_signs(tmp_path: Path) -> None:
    assert parse_file(samples.markdown(tmp_path / "a"), "README").media_type == "text/markdown"
    assert parse_file(samples.markdown(tmp_path / "a"), "notes.txt").media_type == "text/plain"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"]
)
def test_text_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    content = "Größe und Maß der Tür,\nfür jeden Schlüssel, den es gibt.\n" * 5
    assert parse_file(samples.text(tmp_path / "a.txt", content, encoding), "a.txt").text == content


def test_newlines_and_controls_are_made_canonical(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\rthree\u2028four".encode() + b" " * 200 + b"\x07five")
    assert parse_file(path, "a.txt").text == "one\ntwo\nthree\nfour" + " " * 200 + "five"


def test_a_text_without_end_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_base, "MAX_CHARACTERS", 1000)
    assert reason(samples.text(tmp_path / "a.txt", "x" * 1001)) == "document_too_large"


def test_a_pdf_is_not_read_beyond_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_base, "MAX_CHARACTERS", 3 * len(samples.PARAGRAPH))
    path = samples.pdf(tmp_path / "a.pdf", [samples.PARAGRAPH] * 5)
    with pytest.raises(DocumentUnreadable, match="longer than"):
        formats()["pdf"].parse(path, path.name)


SITE = """<!DOCTYPE html><html><head><title>Pilots</title></head><body>
<div class="cookie-consent"><p>We value your privacy. We and our partners store cookies. Accept all of them.</p></div>
<div id="topNav"><a href="/a">Home</a> <a href="/b">Harbours</a> <a href="/c">Contact</a></div>
<div class="breadcrumbs"><a href="/">Home</a> &gt; <a href="/p">Pilots</a></div>
<div class="layout"><div class="content">
<h1>Pilots</h1><p>{text}</p>
<h2>Sources</h2><ul><li>{text}</li><li>Read <a href="/x">the harbour's book</a> as well.</li></ul>
<ol class="menu"><li>Soup of the day, with bread</li><li>Fish as it comes</li></ol></div>
<ul><li><a href="1">Ferries</a></li><li><a href="2">Tugs</a></li><li><a href="3">Buoys</a></li>
<li><a href="4">Cranes</a></li></ul>
<div class="sidebarRight"><h3>Newest</h3><p>Somebody won something somewhere.</p></div>
<p style="color: red; display: none">Loading</p>
</div><div class="page-footer">Imprint</div></body></html>"""


def test_what_stands_around_the_content_is_left_out(tmp_path: Path) -> None:
    page = SITE.format(text=samples.PARAGRAPH)
    assert parse_file(samples.text(tmp_path / "a", page), "a.html").text == (
        f"Pilots\n\n{samples.PARAGRAPH}\n\nSources\n\n- {samples.PARAGRAPH}\n- Read the harbour's book as well.\n\n"
        "- Soup of the day, with bread\n- Fish as it comes"
    )


def test_a_page_of_nothing_but_links_is_kept(tmp_path: Path) -> None:
    links = "".join(f"<li><a href='{number}'>Harbour {number}</a></li>" for number in range(9))
    page = f"<html><body><h1>Index</h1><ul class='menu'>{links}</ul></body></html>"
    assert parse_file(samples.text(tmp_path / "a", page), "a.html").text.endswith("- Harbour 7\n- Harbour 8")


def test_many_named_elements_take_linear_time(tmp_path: Path) -> None:
    page = "<html><body>" + "<div class='nav'>" * 15_000 + "deep" + "</div>" * 15_000 + "<p class='ads'>x</p>" * 50_000
    began = time.process_time()
    parse_file(samples.text(tmp_path / "a", page), "a.html")
    assert time.process_time() - began < 10
