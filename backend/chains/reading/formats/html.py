"""Web pages: what their author wrote, without what stands around it on every page of the site."""

import re
from pathlib import Path
from typing import Any

from backend.chains.reading.decoding import NotTextError, decode
from backend.chains.reading.formats._base import Format
from backend.chains.reading.formats._boilerplate import boilerplate
from backend.chains.reading.formats._html import add_html, parse_html
from backend.chains.reading.parsed import ParsedDocument, TextBuilder, one_line
from backend.errors import DocumentUnreadable

# Possessive: between a hundred comments there are more ways to try than time.
_OPENING = re.compile(
    r"\s*+(?:<\?xml[^>]*+>\s*+)?+(?:(?><!--.*?-->)\s*+)*+<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_ROOT = re.compile(r"<(html|body)\b", re.IGNORECASE)
_TAG = re.compile(r"</(p|div|h[1-6]|table|ul|ol|a|span|td|body|section|article)>", re.IGNORECASE)
# Characters; a shorter one holds a teaser, or waits for a script.
_LEAST_CONTENT = 200


def _sniff(head: bytes, path: Path, name: str) -> float:
    try:
        text = decode(head, whole=False).lstrip("\ufeff")
    except NotTextError:
        return 0.0
    if _OPENING.match(text):
        return 0.95
    named = Path(name).suffix.lower() in PLUGIN.suffixes
    if named and (_ROOT.search(text) or _TAG.search(text)):
        return 0.8
    return 0.35 if not Path(name).suffix and _ROOT.search(text[:1000]) else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    tree = parse_html(path.read_bytes())
    title = tree.css_first("title")
    out = TextBuilder()
    content = _content(tree)
    add_html(out, content, boilerplate(content))
    if not out.length:
        raise DocumentUnreadable(
            "document_empty",
            "There is no text in this page. If a browser shows some, scripts make it: save the page as PDF.",
        )
    return out.build(PLUGIN.media_type, one_line(title.text()) if title else None)


def _content(tree: Any) -> Any:
    """`<main>` or the only `<article>` when the page says so what its content is, else everything."""
    for selector in ("main", "[role=main]", "article"):
        found = tree.css(selector)
        if len(found) == 1 and len(found[0].text(strip=True)) > _LEAST_CONTENT:
            return found[0]
    return tree.body or tree.root


PLUGIN = Format("html", "HTML", "text/html", (".html", ".htm", ".xhtml"), _sniff, _parse)
