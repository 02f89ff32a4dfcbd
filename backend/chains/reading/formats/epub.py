"""Books (EPUB): the chapters in their reading order, with their titles as headings."""

import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from backend.chains.reading.formats._base import Format
from backend.chains.reading.formats._html import add_html, parse_html
from backend.chains.reading.formats._zip import Archive, contains_part, report_damage
from backend.chains.reading.parsed import ParsedDocument, TextBuilder, one_line
from backend.errors import DocumentUnreadable

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = frozenset(("application/xhtml+xml", "text/html"))
_NCX = "application/x-dtbncx+xml"
# An HTML parser ignores the slash and treats these elements as open.
_SELF_CLOSED = re.compile(rb"<(title|script|style|textarea|iframe|a|b|i|em|p|div|span|li|td|th)\b([^<>]*)/>")


def _sniff(head: bytes, path: Path, name: str) -> float:
    return (
        1.0
        if contains_part(head, path, b"application/epub+zip") or contains_part(head, path, _CONTAINER.encode())
        else 0.0
    )


def _parse(path: Path, name: str) -> ParsedDocument:
    with (
        report_damage("This book is damaged. Export or download it once more and try again."),
        Archive(path) as archive,
    ):
        parsed = _read(archive)
    if not parsed.text:
        raise DocumentUnreadable("document_empty", "There is no text in this book: its pages are pictures, or empty.")
    return parsed


def _read(archive: Archive) -> ParsedDocument:
    root = next(archive.xml(_CONTAINER).iter("{*}rootfile")).get("full-path")
    package = archive.xml(root)
    items = {item.get("id"): item for item in package.iter("{*}item")}
    chapters = [items[ref.get("idref")] for ref in package.iter("{*}itemref") if ref.get("idref") in items]
    parts = [
        part
        for chapter in chapters
        if chapter.get("media-type") in _PAGES and "nav" not in chapter.get("properties", "").split()
        if (part := _resolve(root, chapter.get("href", ""))) in archive.names
    ]
    _check_readable(archive, parts)
    titles = _titles(archive, root, list(items.values()))
    out = TextBuilder()
    for part in dict.fromkeys(parts):
        out.end_headings()
        tree = _page(archive, part)
        if tree.css_first("h1, h2, h3") is None:
            out.heading(titles.get(part, ""), 1)
        add_html(out, tree.body or tree.root)
    return out.build(PLUGIN.media_type, one_line(package.findtext(".//{http://purl.org/dc/elements/1.1/}title") or ""))


def _page(archive: Archive, part: str) -> Any:
    return parse_html(_SELF_CLOSED.sub(rb"<\1\2></\1>", archive.read(part)))


def _resolve(base: str, link: str) -> str:
    """The name of the entry to which a link in the entry `base` leads."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(base), unquote(link.split("#", 1)[0])))


def _titles(archive: Archive, root: str, items: list[Any]) -> dict[str, str]:
    """The titles of chapters in the table of contents, by the name of their entry; of several, the first one."""
    titles: dict[str, str] = {}
    for item in items:
        part = _resolve(root, item.get("href", ""))
        if part not in archive.names:
            continue
        if "nav" in item.get("properties", "").split():
            for link in _page(archive, part).css("nav a[href]"):
                titles.setdefault(_resolve(part, link.attributes["href"] or ""), link.text())
        elif item.get("media-type") == _NCX:
            for point in archive.xml(part).iter("{*}navPoint"):
                target, label = point.find("{*}content"), point.findtext("{*}navLabel/{*}text")
                if target is not None and label:
                    titles.setdefault(_resolve(part, target.get("src", "")), label)
    return titles


def _check_readable(archive: Archive, parts: list[str]) -> None:
    """Raises DocumentUnreadable if chapters are encrypted (DRM). Encrypted fonts are common and don't matter."""
    if _ENCRYPTION in archive.names:
        encrypted = {
            unquote(reference.get("URI", "")) for reference in archive.xml(_ENCRYPTION).iter("{*}CipherReference")
        }
        if not encrypted.isdisjoint(parts):
            raise DocumentUnreadable("document_encrypted", "This book is locked (DRM). Upload a copy without the lock.")


PLUGIN = Format("epub", "EPUB", "application/epub+zip", (".epub",), _sniff, _parse)
