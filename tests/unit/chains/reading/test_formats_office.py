"""Presentations, workbooks, books and mails: what of them is read, and in which order."""

from pathlib import Path

import pytest

from backend.chains.reading.formats import parse_file
from backend.errors import DocumentUnreadable
from tests.support import samples


def test_a_slide_is_a_page_its_title_a_heading(tmp_path: Path) -> None:
    parsed = parse_file(samples.pptx(tmp_path / "a.pptx"), "a.pptx")
    assert parsed.title == "Harbour"
    assert parsed.text == (
        f"Pilots\n\n{samples.PARAGRAPH}\n\nNotes: Say it slowly.\n\n"
        "Boarding\n\nShip | Draught\nAnna | 7 m\nBerta | 9 m\n\nUntitled words."
    )
    places = [parsed.text.index(word) for word in ("Say it", "Berta", "Untitled")]
    assert [parsed.page_at(place) for place in places] == [1, 2, 3]
    assert [parsed.heading_at(place) for place in places] == ["Pilots", "Boarding", None]
    assert parsed.contexts[-1].text == "Ship | Draught"


def test_numbers_dates_and_truths_of_a_workbook(tmp_path: Path) -> None:
    text = parse_file(samples.xlsx(tmp_path / "a.xlsx"), "a.xlsx").text
    assert "Pilot 1 | 2020-01-02 | 100.5\nPilot 2 | 2020-01-03 | 101" in text
    assert text.endswith("Boarding\n\nPlace | Open\nQuay 1 | TRUE")


@pytest.mark.parametrize("ncx", [False, True])
def test_chapters_come_in_the_order_of_the_spine(tmp_path: Path, ncx: bool) -> None:
    chapters = [
        ("Not this", f"<h1>Pilots</h1><p>{samples.PARAGRAPH}</p><h2>Ladders</h2><p>Ropes.</p>"),
        ("Boarding", "<p>At <br/>night.</p><table><tr><th>Ship</th><th>Lamp</th></tr></table>"),
        ("", "<p>The end.</p>"),
    ]
    parsed = parse_file(samples.epub(tmp_path / "a.epub", chapters, ncx=ncx), "a.epub")
    assert parsed.title == "Harbour"
    assert parsed.text == (
        f"Pilots\n\n{samples.PARAGRAPH}\n\nLadders\n\nRopes.\n\nBoarding\n\nAt\nnight.\n\nShip | Lamp\n\nThe end."
    )
    places = [parsed.text.index(word) for word in ("Ropes", "At\nnight.", "The end")]
    assert [parsed.heading_at(place) for place in places] == ["Pilots > Ladders", "Boarding", None]


def test_a_locked_book_says_so_and_scrambled_fonts_do_not_matter(tmp_path: Path) -> None:
    lock = '<encryption xmlns:e="x"><e:CipherReference URI="{}"/></encryption>'
    path = samples.epub(tmp_path / "a.epub", extra=lock.format("OEBPS/fonts/a.otf"))
    assert parse_file(path, "a.epub").title == "Harbour"
    path = samples.epub(tmp_path / "b.epub", extra=lock.format("OEBPS/text/c1.xhtml"))
    with pytest.raises(DocumentUnreadable, match="locked"):
        parse_file(path, "b.epub")


HEADERS = (
    "Subject: Grüße vom Hafen\nFrom: Änne Lotse <pilot@harbour.example>\nTo: office@harbour.example\n"
    "Date: Wed, 25 Nov 2026 10:00:00 +0000"
)


def test_a_mail_has_headers_text_and_names_of_attachments(tmp_path: Path) -> None:
    parsed = parse_file(samples.eml(tmp_path / "a.eml"), "a.eml")
    assert parsed.title == "Grüße vom Hafen"
    text = " ".join(parsed.text.replace(HEADERS, "HEADERS").split())
    assert text == f"HEADERS {samples.PARAGRAPH} Attachment: Pläne.pdf (application/pdf)"


def test_a_mail_in_html_only(tmp_path: Path) -> None:
    html = "<html><body><h1>Boarding</h1><p>Grüße &amp; Küsse</p></body></html>"
    parsed = parse_file(samples.eml(tmp_path / "a", text=None, html=html), "mail")
    assert parsed.text == f"{HEADERS}\n\nBoarding\n\nGrüße & Küsse\nAttachment: Pläne.pdf (application/pdf)"
    assert parsed.media_type == "message/rfc822"


def test_a_forwarded_mail_is_named(tmp_path: Path) -> None:
    from email.message import EmailMessage

    inner, outer = EmailMessage(), EmailMessage()
    inner["Subject"] = "The old one"
    inner.set_content("Old.")
    outer["Subject"], outer["From"], outer["To"], outer["Date"] = "Fwd", "a@example.org", "b@example.org", "today"
    outer.set_content("See below.")
    outer.add_attachment(inner)
    path = tmp_path / "a.eml"
    path.write_bytes(outer.as_bytes())
    assert parse_file(path, "a.eml").text.endswith("See below.\nAttachment: The old one (message/rfc822)")


def test_a_text_that_begins_like_a_mail_is_none(tmp_path: Path) -> None:
    path = samples.text(tmp_path / "a.txt", "From: here\nIt goes: on.\nTo: the end.\n\nAnd so on. " + samples.PARAGRAPH)
    assert parse_file(path, "a.txt").media_type == "text/plain"


def test_json_says_where_each_value_stands(tmp_path: Path) -> None:
    parsed = parse_file(samples.json(tmp_path / "a.json"), "a.json")
    assert parsed.text.split("\n") == [
        "version: 1.10",
        "pilots[0]: name: Anna, ships: 12, says: Harbour pilots board arriving ships",
        "pilots[1]: name: Berta, ships: 1.5",
        "pilots[1].boat: name: Möwe",
        "pilots[1].boat.seats: 2, 4",
        '["of the day"]: []',
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    text = '{"id": 1, "price": 1.50}\n\n{"id": 2, "long": "' + "word " * 60 + '"}\n'
    parsed = parse_file(samples.text(tmp_path / "a", text), name)
    assert parsed.text.split("\n")[:2] == ["[0]: id: 1, price: 1.50", "[1].id: 2"]


def test_json_with_comments_is_kept_as_it_is(tmp_path: Path) -> None:
    text = '{\n  "port": 80, // as ever\n}'
    assert parse_file(samples.text(tmp_path / "a.json", text), "a.json").text == text
