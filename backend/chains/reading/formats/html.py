"""Web pages: their content, without the menus and footers that every page of the site has."""

import re
from pathlib import Path
from typing import Any

from backend.chains.reading.formats._base import Format, decode_head
from backend.chains.reading.formats._boilerplate import find_boilerplate
from backend.chains.reading.formats._html import add_html, parse_html
from backend.chains.reading.parsed import ParsedDocument, TextBuilder, one_line
from backend.errors import DocumentUnreadable

# Possessive: with a hundred comments, backtracking would take too long.
_OPENING = re.compile(
    r"\s*+(?:<\?xml[^>]*+>\s*+)?+(?:(?><!--.*?-->)\s*+)*+<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_ROOT = re.compile(r"<(html|body)\b", re.IGNORECASE)
_TAG = re.compile(r"</(p|div|h[1-6]|table|ul|ol|a|span|td|body|section|article)>", re.IGNORECASE)
# Characters. A shorter element is only a teaser, or is filled by a script.
_MIN_CONTENT = 200


def _sniff(head: bytes, path: Path, name: str) -> float:
    text = decode_head(head)
    if text is None:
        return 0.0
    text = text.lstrip("\ufeff")
    if _OPENING.match(text):
        return 0.95
    has_suffix = Path(name).suffix.lower() in PLUGIN.suffixes
    if has_suffix and (_ROOT.search(text) or _TAG.search(text)):
        return 0.8
    return 0.35 if not Path(name).suffix and _ROOT.search(text[:1000]) else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    tree = parse_html(path.read_bytes())
    title = tree.css_first("title")
    out = TextBuilder()
    content = _content(tree)
    add_html(out, content, find_boilerplate(content))
    if not out.length:
        raise DocumentUnreadable(
            "document_empty",
            "There is no text in this page. If a browser shows some, scripts make it: save the page as PDF.",
        )
    return out.build(PLUGIN.media_type, one_line(title.text()) if title else None)


def _content(tree: Any) -> Any:
    """The element with the content: `<main>` or the only `<article>`, if the page has one; else the whole page."""
    for selector in ("main", "[role=main]", "article"):
        elements = tree.css(selector)
        if len(elements) == 1 and len(elements[0].text(strip=True)) > _MIN_CONTENT:
            return elements[0]
    return tree.body or tree.root


PLUGIN = Format("html", "HTML", "text/html", (".html", ".htm", ".xhtml"), _sniff, _parse)
