"""PDFs and images, and a program that pretends to be Tesseract."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.samples.texts import PARAGRAPH


def pdf(
    path: Path,
    pages: Sequence[str],
    *,
    title: str | None = None,
    headings: Sequence[str] = (),
    password: str | None = None,
) -> Path:
    """A PDF with one page per text. "\\n\\n" in a text begins a paragraph; `headings` are at the top of the pages."""
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
    """A PDF that can be opened only with its password."""
    return pdf(path, [PARAGRAPH], password=password)


def claiming_pdf(path: Path, pages: int) -> Path:
    """A PDF of one page that claims to have `pages` pages."""
    content = b"BT /F1 24 Tf 20 100 Td (Hello harbour) Tj ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count %d>>" % pages,
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    numbered = b"".join(b"%d 0 obj%s endobj\n" % (number, item) for number, item in enumerate(objects, 1))
    path.write_bytes(b"%PDF-1.4\n" + numbered + b"trailer<</Root 1 0 R>>\n")
    return path


def scanned_pdf(path: Path, pages: int = 1) -> Path:
    """A PDF whose pages are images, like those of a scanner."""
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


def picture(path: Path) -> Path:
    """A PNG image of a line of text."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("L", (1400, 120), 255)
    ImageDraw.Draw(image).text((30, 30), "Harbour pilots board arriving ships", fill=0, font=ImageFont.load_default(60))
    image.save(path, "PNG")
    return path


def tesseract(folder: Path, text: str, *, seconds: float = 0) -> Path:
    """The folder, with a program that has Tesseract's command line. It returns `text` for every image, after `seconds`
    seconds, and writes the last image into the folder.
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


def png(path: Path) -> Path:
    """A PNG image without text."""
    from PIL import Image

    Image.new("RGB", (32, 32), (200, 30, 30)).save(path, "PNG")
    return path
