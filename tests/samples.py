"""Makes real files for tests: each function writes one to `path` and returns the path."""

import io
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
