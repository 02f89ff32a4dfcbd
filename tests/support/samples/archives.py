"""Files that are zip archives."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.samples.texts import PARAGRAPH


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
    """A small Word document whose text has so many megabytes when it is unpacked."""
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
    field = size.to_bytes(4, "little")
    at = raw.rfind(b"PK\x01\x02", 0, raw.rfind(b"word/document.xml"))
    assert raw[at + 24 : at + 28] == field
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
    """A book whose chapters are (name in the table of contents, HTML of the body). The files are numbered backwards."""
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


def plain_zip(path: Path) -> Path:
    """A zip archive that is not a document."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", PARAGRAPH)
    return path
