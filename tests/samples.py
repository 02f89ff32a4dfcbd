"""Makes real files for tests: each function writes one to `path` and returns the path."""

import io
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PARAGRAPH = (
    "Harbour pilots board arriving ships two miles out. They know every sandbank, and they answer for the "
    "passage until the moorings are fast. A pilot works alone, mostly at night."
)


def pdf(
    path: Path,
    pages: Sequence[str],
    *,
    title: str | None = None,
    headings: Sequence[str] = (),
    password: str | None = None,
) -> Path:
    """A PDF with each text on a page of its own; "\\n\\n" in a text begins a paragraph, `headings` go above
    each page.
    """
    from reportlab.lib.pdfencrypt import StandardEncryption
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Spacer

    styles = getSampleStyleSheet()
    flow: list[Any] = []
    for number, text in enumerate(pages):
        if number:
            flow.append(PageBreak())
        if number < len(headings):
            flow.append(Paragraph(headings[number], styles["Heading1"]))
        flow.extend(Paragraph(part, styles["BodyText"]) for part in text.split("\n\n") if part)
        flow.append(Spacer(1, 1))
    encrypt = StandardEncryption(password, ownerPassword="owner") if password else None
    SimpleDocTemplate(str(path), title=title, encrypt=encrypt).build(flow)
    return path


def encrypted_pdf(path: Path, password: str = "secret") -> Path:
    """A PDF that does not open without its password."""
    return pdf(path, [PARAGRAPH], password=password)


def claiming_pdf(path: Path, pages: int) -> Path:
    """A PDF of one page that says it has so many."""
    content = b"BT /F1 24 Tf 20 100 Td (Hello harbour) Tj ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count %d>>" % pages,
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    numbered = b"".join(b"%d 0 obj%s endobj\n" % (number, each) for number, each in enumerate(objects, 1))
    path.write_bytes(b"%PDF-1.4\n" + numbered + b"trailer<</Root 1 0 R>>\n")
    return path


def scanned_pdf(path: Path, pages: int = 1) -> Path:
    """A PDF whose pages are pictures, as a scanner makes them."""
    from PIL import Image, ImageDraw
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(path), pagesize=(300, 400))
    for number in range(pages):
        picture = Image.new("L", (300, 400), 255)
        ImageDraw.Draw(picture).text((40, 40), f"page {number + 1}", fill=0)
        canvas.drawImage(ImageReader(picture), 0, 0, 300, 400)
        canvas.showPage()
    canvas.save()
    return path


def blank_pdf(path: Path) -> Path:
    """A PDF with one page and nothing on it."""
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(path))
    canvas.showPage()
    canvas.save()
    return path


def docx(
    path: Path,
    paragraphs: Sequence[str] = (PARAGRAPH,),
    *,
    title: str | None = None,
    headings: Sequence[tuple[int, str, str]] = (),
    items: Sequence[str] = (),
    table: Sequence[Sequence[str]] = (),
) -> Path:
    """A Word document: paragraphs, then (level, heading, text) sections, then a list, then a table."""
    import docx as library

    document = library.Document()
    if title:
        document.core_properties.title = title
    for text in paragraphs:
        document.add_paragraph(text)
    for level, heading, text in headings:
        document.add_heading(heading, level)
        document.add_paragraph(text)
    for item in items:
        document.add_paragraph(item, style="List Bullet")
    if table:
        grid = document.add_table(len(table), len(table[0]))
        for row, cells in zip(grid.rows, table, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    document.save(str(path))
    return path


def docx_bomb(path: Path, megabytes: int = 300) -> Path:
    """A small Word document whose text unpacks to that many megabytes."""
    buffer = io.BytesIO()
    docx_path = docx(path)
    with zipfile.ZipFile(docx_path) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            if entry.filename != "word/document.xml":
                target.writestr(entry.filename, source.read(entry))
        with target.open("word/document.xml", "w", force_zip64=True) as part:
            for _ in range(megabytes):
                part.write(b" " * 1024 * 1024)
    path.write_bytes(buffer.getvalue())
    return path


def docx_of_many_parts(path: Path, parts: int = 12_000) -> Path:
    """A Word document with that many entries in its archive."""
    docx(path)
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(parts):
            archive.writestr(f"word/media/{number}", b"")
    return path


def lying_docx(path: Path, megabytes: int = 300) -> Path:
    """A zip bomb whose table of contents says that the text is 1,000 bytes long."""
    docx_bomb(path, megabytes)
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("word/document.xml").file_size
    wanted = size.to_bytes(4, "little")
    at = raw.rfind(b"PK\x01\x02", 0, raw.rfind(b"word/document.xml"))
    assert raw[at + 24 : at + 28] == wanted
    raw[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(raw)
    return path


def pptx(path: Path, *, title: str | None = "Harbour", notes: str = "Say it slowly.") -> Path:
    """Three slides: title and text with notes, a table, and one without a title."""
    from pptx import Presentation
    from pptx.util import Inches

    deck: Any = Presentation()
    if title:
        deck.core_properties.title = title
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "Pilots"
    first.placeholders[1].text = PARAGRAPH
    first.notes_slide.notes_text_frame.text = notes
    second = deck.slides.add_slide(deck.slide_layouts[5])
    second.shapes.title.text = "Boarding"
    rows = [["Ship", "Draught"], ["Anna", "7 m"], ["Berta", "9 m"]]
    table = second.shapes.add_table(3, 2, Inches(1), Inches(2), Inches(6), Inches(2)).table
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            table.cell(row, column).text = cell
    third = deck.slides.add_slide(deck.slide_layouts[6])
    box = third.shapes.add_group_shape().shapes.add_textbox(0, 0, Inches(3), Inches(1))
    box.text_frame.text = "Untitled words."
    deck.save(str(path))
    return path


def xlsx(path: Path, rows: int = 3) -> Path:
    """A workbook of three sheets: a table under a title, with numbers and dates; one more table; an empty one."""
    import datetime

    from xlsxwriter import Workbook

    book: Any = Workbook(str(path))
    day = book.add_format({"num_format": "yyyy-mm-dd"})
    pilots = book.add_worksheet("Pilots")
    pilots.write(0, 0, "Harbour pilots board arriving ships")
    pilots.write_row(2, 0, ["Name", "Since", "Rate"])
    for number in range(rows):
        pilots.write(3 + number, 0, f"Pilot {number}")
        pilots.write_datetime(3 + number, 1, datetime.datetime(2020, 1, 1 + number % 28), day)
        pilots.write(3 + number, 2, 100 + number / 2)
    boarding = book.add_worksheet("Boarding")
    boarding.write_row(1, 1, ["Place", "Open"])
    boarding.write_row(2, 1, ["Quay 1", True])
    book.add_worksheet("Nothing")
    book.close()
    return path


def sparse_xlsx(path: Path) -> Path:
    """A small workbook with a cell in each corner of the largest sheet there can be."""
    from xlsxwriter import Workbook

    book: Any = Workbook(str(path))
    sheet = book.add_worksheet("Corners")
    sheet.write(0, 0, "first")
    sheet.write(1_048_575, 16_383, "last")
    book.close()
    return path


def epub(path: Path, chapters: Sequence[tuple[str, str]] = (), *, ncx: bool = False, extra: str = "") -> Path:
    """A book whose chapters are (name in the table of contents, HTML of the body), the last file being read first."""
    chapters = chapters or [("Pilots", f"<h1>Pilots</h1><p>{PARAGRAPH}</p>"), ("Boarding", "<p>A ladder.</p>")]
    names = [f"c{len(chapters) - number}.xhtml" for number in range(len(chapters))]
    page = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{}</body></html>'
    links = "".join(
        f'<li><a href="text/{name}">{title}</a></li>' for name, (title, _) in zip(names, chapters, strict=True)
    )
    points = "".join(
        f'<navPoint><navLabel><text>{title}</text></navLabel><content src="text/{name}#top"/></navPoint>'
        for name, (title, _) in zip(names, chapters, strict=True)
    )
    items = "".join(f'<item id="{name}" href="text/{name}" media-type="application/xhtml+xml"/>' for name in names)
    nav = (
        '<item id="toc" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
        if ncx
        else '<item id="toc" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
    )
    spine = "".join(f'<itemref idref="{name}"/>' for name in names)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
        )
        archive.writestr(
            "OEBPS/book.opf",
            '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
            f"<dc:title>Harbour</dc:title></metadata><manifest>{items}{nav}</manifest><spine>{spine}</spine></package>",
        )
        archive.writestr("OEBPS/nav.xhtml", page.format(f"<nav><ol>{links}</ol></nav>"))
        archive.writestr(
            "OEBPS/toc.ncx", f'<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap>{points}</navMap></ncx>'
        )
        for name, (_, body) in zip(names, chapters, strict=True):
            archive.writestr(f"OEBPS/text/{name}", page.format(body))
        if extra:
            archive.writestr("META-INF/encryption.xml", extra)
    return path


def eml(path: Path, text: str | None = PARAGRAPH, html: str | None = "<p>Not this.</p>") -> Path:
    """A mail with its text in one or two ways, and an attachment."""
    from email.message import EmailMessage

    mail = EmailMessage()
    mail["Subject"] = "Grüße vom Hafen"
    mail["From"] = "Änne Lotse <pilot@harbour.example>"
    mail["To"] = "office@harbour.example"
    mail["Date"] = "Wed, 25 Nov 2026 10:00:00 +0000"
    mail["Message-ID"] = "<1@harbour.example>"
    if text is not None:
        mail.set_content(text)
        if html is not None:
            mail.add_alternative(html, subtype="html")
    elif html is not None:
        mail.set_content(html, subtype="html")
    mail.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="Pläne.pdf")
    path.write_bytes(mail.as_bytes())
    return path


def csv(path: Path, rows: int = 6) -> Path:
    """A table with semicolons, quotes and a newline inside of a cell."""
    import csv as library

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = library.writer(file, delimiter=";")
        writer.writerow(["Name", "Note", "Price"])
        writer.writerow(["Anna", "Harbour pilots board arriving ships; two miles out.\nAt night.", "1,50"])
        writer.writerows([f"Ship {number}", "none", f"{number},00"] for number in range(rows))
    return path


def json(path: Path) -> Path:
    """A list of records with nested ones."""
    import json as library

    pilots = [
        {"name": "Anna", "ships": 12, "says": "Harbour pilots board arriving ships"},
        {"name": "Berta", "ships": 1.50, "boat": {"name": "Möwe", "seats": [2, 4]}},
    ]
    path.write_text(library.dumps({"version": "1.10", "pilots": pilots, "of the day": []}, indent=1), encoding="utf-8")
    return path


def code(path: Path) -> Path:
    path.write_text(CODE, encoding="utf-8")
    return path


def picture(path: Path) -> Path:
    """A picture of a line of text."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("L", (1400, 120), 255)
    ImageDraw.Draw(image).text((30, 30), "Harbour pilots board arriving ships", fill=0, font=ImageFont.load_default(60))
    image.save(path, "PNG")
    return path


def tesseract(folder: Path, text: str, *, seconds: float = 0) -> Path:
    """A program in `folder` with the command line of Tesseract: it finds the text in whatever picture it is given,
    and keeps the last picture beside itself.
    """
    program = folder / "tesseract"
    program.write_text(
        f"""#!{sys.executable}
import pathlib, sys, time
if sys.argv[1:] == ["--list-langs"]:
    print("List of available languages in /usr/share/tessdata/ (2):\\neng\\nosd")
elif sys.argv[1:] == ["stdin", "stdout", "-l", "eng"]:
    pathlib.Path(sys.argv[0] + ".seen").write_bytes(sys.stdin.buffer.read())
    time.sleep({seconds})
    print({text!r}, end="\\f")
else:
    sys.exit(1)
"""
    )
    program.chmod(0o755)
    return folder


def plain_zip(path: Path) -> Path:
    """An archive that is no document."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", PARAGRAPH)
    return path


def png(path: Path) -> Path:
    """A picture."""
    from PIL import Image

    Image.new("RGB", (32, 32), (200, 30, 30)).save(path, "PNG")
    return path


def markdown(path: Path) -> Path:
    path.write_text(MARKDOWN, encoding="utf-8")
    return path


def html(path: Path) -> Path:
    path.write_text(HTML, encoding="utf-8")
    return path


def text(path: Path, content: str = PARAGRAPH, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


CODE = f'''"""Boards ships."""

import os

LIMIT = 2


class Pilots(Base):
    """{PARAGRAPH}"""

    lamp = True

    @property
    def ladder(self) -> str:
        return """
not a definition:
"""


async def Boarding(
    ship: str,
) -> None:
    # def fake():
    def inner():
        return ship

    print(inner())


if __name__ == "__main__":
    Boarding("Anna")
'''

MARKDOWN = f"""---
title: "Harbour handbook"
---
# Pilots

{PARAGRAPH}

## Boarding *at night*

- a ladder
- a lamp

```
# not a heading
```

Moorings
--------

Ropes.
"""

HTML = f"""<!DOCTYPE html>
<html><head><title>Harbour &amp; handbook</title><style>p {{ color: red }}</style></head>
<body><nav><a href="/">Home</a></nav>
<h1>Pilots <a class="anchor">#</a></h1>
<p>{PARAGRAPH}</p><script>alert("no")</script>
<h2>Boarding</h2>
<ul><li>a ladder</li><li><p>a   lamp</p></li></ul>
<table><tr><th>Ship</th><th>Draught</th></tr><tr><td>Anna</td><td>7 m</td></tr></table>
<pre>two
  lines</pre>
<footer>Imprint</footer></body></html>
"""
