"""Word documents (DOCX): paragraphs, headings, lists and tables in the order of the document."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.chains.reading.formats._base import Format
from backend.chains.reading.formats._zip import check_archive, contains_part, read_tail, report_damage
from backend.chains.reading.parsed import ParsedDocument, TextBuilder, one_line, row_text
from backend.errors import DocumentUnreadable

# The older container of Office: what it puts any document with a password into.
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_MAIN_PART = b"word/document.xml"

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HEADING_STYLE = re.compile(r"heading (\d)", re.IGNORECASE)
_WRAPPERS = frozenset(_WORD + tag for tag in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag"))
_BREAKS = {_WORD + "tab": "\t", _WORD + "br": "\n", _WORD + "cr": "\n", _WORD + "noBreakHyphen": "-"}
_HIDDEN = frozenset(
    (
        *(_WORD + tag for tag in ("pPr", "rPr", "del", "moveFrom", "instrText", "sdtPr")),
        # The same content a second time, for old programs.
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    )
)


def _sniff(head: bytes, path: Path, name: str) -> float:
    if head.startswith(_COMPOUND):
        return 0.9 if _ENCRYPTED in head + read_tail(path) else 0.0
    return 1.0 if contains_part(head, path, _MAIN_PART) else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    with path.open("rb") as file:
        if file.read(8) == _COMPOUND:
            raise DocumentUnreadable(
                "document_encrypted", "This document has a password. Save it without one and try again."
            )
    with report_damage("This Word document is damaged. Open it in Word, save it again and try once more."):
        check_archive(path)
        return _read(path)


def _read(path: Path) -> ParsedDocument:
    import docx

    # From memory: if it fails, python-docx doesn't close the file.
    try:
        document: Any = docx.Document(io.BytesIO(path.read_bytes()))
    except ValueError:
        raise DocumentUnreadable(
            "document_unsupported",
            "This is a Word template or a document with macros. Save it as DOCX and try again.",
        ) from None
    styles = {style.style_id: style for style in document.styles}
    levels = {style_id: _level(style) for style_id, style in styles.items()}
    lists = {style_id for style_id, style in styles.items() if (style.name or "").lower().startswith("list")}
    out = TextBuilder()
    previous = ""
    for kind, element in _blocks(document.element.body):
        level = None if kind == "table" else levels.get(element.style)
        if kind == "table":
            _add_table(out, element)
        elif level is not None:
            out.heading(_text(element), level)
            kind = "heading"
        else:
            text = _text(element)
            kind = "item" if element.style in lists else kind
            bullet = "- " if kind == "item" and text.strip() else ""
            out.add(bullet + text, "\n" if kind == previous == "item" else "\n\n")
        previous = kind
    if not out.length:
        raise DocumentUnreadable(
            "document_empty",
            "There is no text in this document. If it holds scanned pages, run OCR on them first.",
        )
    return out.build(PLUGIN.media_type, one_line(document.core_properties.title or ""))


def _level(style: Any) -> int | None:
    """The heading level of a style: by its outline level, which doesn't depend on the language, or by its name."""
    for element in style.element.iter(_WORD + "outlineLvl"):
        level = int(element.get(f"{_WORD}val", "9"))
        return level + 1 if level < 9 else None
    name = style.name or ""
    match = _HEADING_STYLE.fullmatch(name)
    return int(match[1]) if match else 1 if name == "Title" else None


def _blocks(body: Any) -> Iterator[tuple[str, Any]]:
    """The blocks of the body: (kind, element). The kind is `paragraph`, `item` (of a list) or `table`."""
    for child in _unwrap(body):
        if child.tag == _WORD + "p":
            numbered = child.find(f"{_WORD}pPr/{_WORD}numPr") is not None
            yield "item" if numbered else "paragraph", child
        elif child.tag == _WORD + "tbl":
            yield "table", child


def _add_table(out: TextBuilder, table: Any) -> None:
    """Append a table. Its first row is taken as the header: in Word that is nearly always true, even if not marked."""
    header = ""
    for row in _unwrap(table):
        if row.tag == _WORD + "tr":
            cells = [_cell(cell) for cell in _unwrap(row) if cell.tag == _WORD + "tc"]
            out.row(cells, header)
            header = header or row_text(cells)


def _cell(cell: Any) -> str:
    """The text of a cell; a table inside the cell is part of its text."""
    return " ".join(_text(paragraph) for paragraph in cell.iter(_WORD + "p"))


def _unwrap(parent: Any) -> Iterator[Any]:
    """The children; a wrapper (content control, tracked insertion) is replaced by its own children.

    lxml refuses trees deeper than 256, so recursion is safe here and in `_text`.
    """
    for child in parent:
        if child.tag in _WRAPPERS:
            yield from _unwrap(child)
        else:
            yield child


def _text(element: Any) -> str:
    """The visible text of a paragraph: with links and insertions, without deletions, text boxes only once."""
    pieces: list[str] = []
    for child in element:
        if child.tag == _WORD + "t":
            pieces.append(child.text or "")
        elif child.tag in _BREAKS:
            pieces.append(_BREAKS[child.tag])
        elif child.tag not in _HIDDEN:
            pieces.append(_text(child))
    return "".join(pieces)


PLUGIN = Format(
    "docx",
    "Word (DOCX)",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    (".docx",),
    _sniff,
    _parse,
)
