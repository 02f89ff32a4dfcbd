"""PDF, read by pdfium: lines with their places on the page, which become paragraphs and headings.

A PDF contains glyphs at places, not words or paragraphs. pdfium finds the lines. The boxes of a line's first and last
character are enough to see indents, gaps, sizes and columns; boxes of all characters would take much longer.
"""

import importlib
import re
from pathlib import Path
from typing import Any

from backend.chains.reading.formats._base import Format, check_length, check_pages
from backend.chains.reading.formats._layout import Block, Line, PageText, lay_out
from backend.chains.reading.formats._ocr import HINT, is_available, read_image
from backend.chains.reading.parsed import Heading, ParsedDocument, TextBuilder, one_line
from backend.errors import DocumentUnreadable

_HEADER = re.compile(rb"%PDF-\d\.\d")
_MAX_OUTLINE = 5_000
# The resolution that Tesseract reads best, and the pixels of an A3 page in it.
_OCR_DPI = 300
_OCR_PIXELS = 18_000_000
# Titles that were set by programs, not by the author.
_JUNK_TITLE = re.compile(
    r"(untitled.*|\(?(anonymous|unspecified)\)?|.*\.(docx?|indd|dvi|tmp|qxd|pptx?|xlsx?))", re.IGNORECASE
)
_PROGRAM = re.compile(r"^Microsoft (Word|PowerPoint|Excel) - ")
_LIGATURES = str.maketrans(
    {
        "ﬀ": "ff",
        "ﬁ": "fi",
        "ﬂ": "fl",
        "ﬃ": "ffi",
        "ﬄ": "ffl",
        "ﬅ": "st",
        "ﬆ": "st",
        "\xa0": " ",
        "\x02": "\xad",
        "\ufffe": "\xad",
    }
)


def _sniff(head: bytes, path: Path, name: str) -> float:
    """The mark is at the beginning. PDF readers also accept it after other bytes; then the file must have objects."""
    match = _HEADER.search(head[:1024])
    if match is None:
        return 0.0
    return 1.0 if match.start() == 0 or b" obj" in head else 0.0


def _pdfium(part: str = "") -> Any:
    """The library or a part of it; it has no types. Its PdfiumError is a RuntimeError."""
    return importlib.import_module(f"pypdfium2.{part}".rstrip("."))


def _parse(path: Path, name: str) -> ParsedDocument:
    try:
        pdf = _pdfium().PdfDocument(path)
    except RuntimeError as error:
        raise _open_error(error) from error
    try:
        return _read(pdf)
    except RuntimeError as error:
        raise _damage_error() from error
    finally:
        pdf.close()


def _read(pdf: Any) -> ParsedDocument:
    check_pages(len(pdf))
    pages = _pages(pdf)
    while pages and pages[-1] is None:  # a PDF may claim more pages than it has
        del pages[-1]
    if not pages:
        raise _damage_error()
    outline = _outline(pdf)
    out = TextBuilder()
    blocks = lay_out([page or PageText([]) for page in pages], headings=not outline)
    if is_available():
        for index, page in enumerate(pages):
            if page is not None and not page.lines:
                blocks[index] = [Block(paragraph) for paragraph in _read_scan(pdf, index)]
    if not any(blocks):
        raise _no_text_error(pdf)
    starts: list[list[tuple[int, str]]] = []
    for number, page_blocks in enumerate(blocks, 1):
        out.page(number)
        starts.append([])
        for block in page_blocks:
            if block.level is not None:
                out.heading(block.text, block.level)
                continue
            before = out.length
            out.add(block.text, "\n\n")
            starts[-1].append((before + 2 if before else 0, _fold(block.text[:300])))
    if outline:
        out.headings = _place_outline(outline, starts, out)
    return out.build(PLUGIN.media_type, _title(pdf))


def _pages(pdf: Any) -> list[PageText | None]:
    """All pages. The text is counted while they are read: a small file can contain the same page 20,000 times."""
    pages: list[PageText | None] = []
    characters = 0
    for index in range(len(pdf)):
        page = _page(pdf, index)
        characters += sum(len(line.text) for line in page.lines) if page else 0
        check_length(characters)
        pages.append(page)
    return pages


def _page(pdf: Any, index: int) -> PageText | None:
    """The lines of a page; None if pdfium can't read it."""
    try:
        page = pdf[index]
    except RuntimeError:
        return None
    try:
        textpage = page.get_textpage()
        try:
            return PageText(_lines(textpage))
        finally:
            textpage.close()
    except RuntimeError:
        return None
    finally:
        page.close()


def _lines(textpage: Any) -> list[Line]:
    raw = _pdfium("raw")
    text = textpage.get_text_range()
    lines: list[Line] = []
    unit = 0  # pdfium counts in UTF-16
    for piece in text.split("\r\n"):
        stripped = piece.strip()
        if stripped:
            first = unit + len(piece) - len(piece.lstrip())
            last = first + _units(stripped) - 1
            left, bottom, _, top = _box(raw, textpage, first)
            _, last_bottom, right, last_top = _box(raw, textpage, last)
            if not stripped[0].isalnum():  # a bullet is often set in another font
                bottom, top = last_bottom, last_top
            # Newlines inside of a line would look like breaks that the author made.
            content = " ".join(stripped.translate(_LIGATURES).split())
            lines.append(Line(content, left, right, bottom, top - bottom))
        unit += _units(piece) + 2
    return lines


def _units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _box(raw: Any, textpage: Any, text_index: int) -> tuple[float, float, float, float]:
    """left, bottom, right, top of a character in points; zeros if pdfium has no box."""
    rect = raw.FS_RECTF()
    index = raw.FPDFText_GetCharIndexFromTextIndex(textpage, text_index)
    if index < 0 or not raw.FPDFText_GetLooseCharBox(textpage, index, rect):
        return 0.0, 0.0, 0.0, 0.0
    return rect.left, rect.bottom, rect.right, rect.top


def _outline(pdf: Any) -> list[tuple[int, int, str]]:
    """The table of contents: (page from 1, level from 1, title), without entries that lead nowhere."""
    entries: list[tuple[int, int, str]] = []
    try:
        for bookmark in pdf.get_toc(max_depth=6):
            destination = bookmark.get_dest()
            page = destination.get_index() if destination else None
            title = one_line(bookmark.get_title())
            if title and page is not None and 0 <= page < len(pdf):
                entries.append((page + 1, bookmark.level + 1, title))
            if len(entries) >= _MAX_OUTLINE:
                break
    except (RuntimeError, ValueError):
        pass
    return entries


def _place_outline(
    outline: list[tuple[int, int, str]], starts: list[list[tuple[int, str]]], out: TextBuilder
) -> list[Heading]:
    """The outline's entries as headings: at the paragraph that begins with their words, else at their page's top."""
    headings: list[Heading] = []
    for page, level, title in outline:
        folded_title = _fold(title)
        start = next(
            (at for at, text in starts[page - 1] if folded_title and folded_title in text[: len(folded_title) + 20]),
            None,
        )
        headings.append(Heading(out.pages[page - 1].start if start is None else start, level, title))
    headings.sort(key=lambda heading: heading.start)
    return [heading for heading in headings if heading.start < out.length]


def _fold(text: str) -> str:
    return re.sub(r"\W+", "", text).casefold()


def _title(pdf: Any) -> str | None:
    title = one_line(_PROGRAM.sub("", pdf.get_metadata_value("Title") or ""))
    return None if title is None or _JUNK_TITLE.fullmatch(title) else title


def _open_error(error: Any) -> DocumentUnreadable:
    raw = _pdfium("raw")
    if error.err_code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
        return DocumentUnreadable("document_encrypted", "This PDF has a password. Save it without one and try again.")
    return _damage_error()


def _damage_error() -> DocumentUnreadable:
    return DocumentUnreadable(
        "document_corrupt", "This PDF is damaged or cut off. Export or download it once more and try again."
    )


def _read_scan(pdf: Any, index: int) -> list[str]:
    """The paragraphs of a page that is an image of text, read by OCR."""
    try:
        page = pdf[index]
        try:
            if not _has_images(page):
                return []
            width, height = page.get_size()
            scale = min(_OCR_DPI / 72, (_OCR_PIXELS / max(width * height, 1)) ** 0.5)
            bitmap = page.render(scale=scale, grayscale=True)
        finally:
            page.close()
    except (RuntimeError, ValueError):
        return []
    pixels = memoryview(bitmap.buffer).cast("B")
    rows = (pixels[at : at + bitmap.width] for at in range(0, bitmap.height * bitmap.stride, bitmap.stride))
    return read_image(b"P5 %d %d 255\n" % (bitmap.width, bitmap.height) + b"".join(rows))


def _has_images(page: Any) -> bool:
    return any(page.get_objects(filter=[_pdfium("raw").FPDF_PAGEOBJ_IMAGE], max_depth=4))


def _no_text_error(pdf: Any) -> DocumentUnreadable:
    """The error if no page has text: the pages are images of text, or they are empty."""
    for index in range(min(len(pdf), 20)):
        try:
            page = pdf[index]
            has_images = _has_images(page)
            page.close()
        except RuntimeError:
            continue
        if has_images and is_available():
            return DocumentUnreadable("document_empty", "This PDF was scanned, and OCR found no text on its pages.")
        if has_images:
            return DocumentUnreadable(
                "document_scanned", f"This PDF was scanned: it holds pictures of its pages and no text. {HINT}"
            )
    return DocumentUnreadable("document_empty", "There is no text in this PDF.")


PLUGIN = Format("pdf", "PDF", "application/pdf", (".pdf",), _sniff, _parse)
