"""PowerPoint presentations (PPTX): a slide is a page, its title is a heading, the speaker's notes follow it."""

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.chains.reading.formats._base import Format, check_pages
from backend.chains.reading.formats._zip import Archive, contains_part, report_damage
from backend.chains.reading.parsed import ParsedDocument, TextBuilder, one_line, row_text
from backend.errors import DocumentUnreadable

_MAIN_PART = "ppt/presentation.xml"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_DC = "{http://purl.org/dc/elements/1.1/}"
# The same content a second time, for old programs.
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_TITLES = frozenset(("title", "ctrTitle"))
# Placeholders that are on every slide.
_REPEATED = frozenset(("sldNum", "dt", "ftr", "hdr"))
_JUNK_TITLES = frozenset(("PowerPoint Presentation", "PowerPoint-Präsentation", "Présentation PowerPoint"))

_Links = dict[str, tuple[str, str]]


def _sniff(head: bytes, path: Path, name: str) -> float:
    return 1.0 if contains_part(head, path, _MAIN_PART.encode()) else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    damaged = "This presentation is damaged. Open it in PowerPoint, save it again and try once more."
    with report_damage(damaged), Archive(path) as archive:
        parsed = _read(archive)
    if not parsed.text:
        raise DocumentUnreadable(
            "document_empty",
            "There is no text in this presentation. If its slides are pictures, run OCR on them first.",
        )
    return parsed


def _read(archive: Archive) -> ParsedDocument:
    out = TextBuilder()
    links = _links(archive, _MAIN_PART)
    for number, slide in enumerate(archive.xml(_MAIN_PART).iter(_P + "sldId"), 1):
        check_pages(number)
        out.page(number)
        out.end_headings()
        part = links[slide.get(_R + "id")][1]
        if part in archive.names:
            _add_slide(out, archive, part)
    return out.build(PLUGIN.media_type, _title(archive))


def _add_slide(out: TextBuilder, archive: Archive, part: str) -> None:
    slide = archive.xml(part)
    shapes = [(_kind(shape), shape) for shape in _shapes(slide)]
    for kind, shape in shapes:
        if kind in _TITLES:
            out.heading(" ".join(_paragraphs(shape)), 1)
    for kind, shape in shapes:
        if shape.tag == _P + "graphicFrame":
            for table in shape.iter(_A + "tbl"):
                _add_table(out, table)
        elif kind not in _TITLES and kind not in _REPEATED:
            out.add("\n".join(_paragraphs(shape)))
    for kind, target in _links(archive, part).values():
        if kind == "diagramData":
            out.add("\n".join(_paragraphs(archive.xml(target))))
        elif kind == "notesSlide":
            notes = [shape for shape in _shapes(archive.xml(target)) if _kind(shape) == "body"]
            text = "\n".join(line for shape in notes for line in _paragraphs(shape))
            out.add(f"Notes: {text}" if text else "")


def _shapes(slide: Any) -> Iterator[Any]:
    """The shapes of a slide in their order, including those in groups."""
    return slide.iter(_P + "sp", _P + "graphicFrame")


def _kind(shape: Any) -> str | None:
    """The kind of a placeholder; None if the shape is not a placeholder."""
    placeholder = next(shape.iter(_P + "ph"), None)
    return None if placeholder is None else placeholder.get("type", "obj")


def _paragraphs(shape: Any) -> list[str]:
    """The paragraphs that are not empty, one line each."""
    texts = ("".join(_runs(paragraph)) for paragraph in shape.iter(_A + "p") if not _is_fallback(paragraph))
    return [line for text in texts if (line := " ".join(text.split()))]


def _runs(paragraph: Any) -> Iterator[str]:
    for node in paragraph.iter(_A + "t", _A + "br", _A + "tab"):
        yield node.text or "" if node.tag == _A + "t" else " "


def _is_fallback(element: Any) -> bool:
    return next(element.iterancestors(_FALLBACK), None) is not None


def _add_table(out: TextBuilder, table: Any) -> None:
    header = ""
    for row in table.iter(_A + "tr"):
        cells = [" ".join(_paragraphs(cell)) for cell in row.iter(_A + "tc")]
        out.row(cells, header)
        header = header or row_text(cells)


def _links(archive: Archive, part: str) -> _Links:
    """The links of a part by id: (kind, name of the other part). Links out of the file or to nothing are left out."""
    folder, name = posixpath.split(part)
    rels = f"{folder}/_rels/{name}.rels"
    links: _Links = {}
    for link in archive.xml(rels) if rels in archive.names else ():
        target = posixpath.normpath(posixpath.join("/", folder, link.get("Target", ""))).lstrip("/")
        if link.get("TargetMode") != "External" and target in archive.names:
            links[link.get("Id")] = (link.get("Type", "").rsplit("/", 1)[-1], target)
    return links


def _title(archive: Archive) -> str | None:
    if "docProps/core.xml" not in archive.names:
        return None
    title = one_line(archive.xml("docProps/core.xml").findtext(_DC + "title") or "")
    return None if title in _JUNK_TITLES else title


PLUGIN = Format(
    "pptx",
    "PowerPoint (PPTX)",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    (".pptx", ".pptm", ".ppsx"),
    _sniff,
    _parse,
)
