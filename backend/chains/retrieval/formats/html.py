"""Web pages: what a reader would read, without menus, scripts and footers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.chains.retrieval.decoding import NotTextError, decode
from backend.chains.retrieval.formats._base import Format
from backend.chains.retrieval.parsed import ParsedDocument, TextBuilder, one_line
from backend.errors import DocumentUnreadable

_OPENING = re.compile(
    r"\s*(<\?xml[^>]*>\s*)?(<!--.{0,4000}?-->\s*)*<(!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_ROOT = re.compile(r"<(html|body)\b", re.IGNORECASE)
_TAG = re.compile(r"</(p|div|h[1-6]|table|ul|ol|a|span|td|body|section|article)>", re.IGNORECASE)
_MAX_DEPTH = 60_000
_CONTAINER = re.compile(rb"<(/?)(?:div|section|article|blockquote|table|span|ul|ol)\b", re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SPACES = re.compile(r"[ \t\r\n\f]+")

_NOISE = _words(
    """
    script style noscript template svg math nav footer aside form button select option iframe object
    embed canvas audio video head dialog menu
    """
)
_NOISE_ROLES = frozenset(("navigation", "banner", "contentinfo", "search", "menu", "dialog"))
_BLOCKS = _words(
    """
    address article blockquote body caption dd details div dl dt fieldset figcaption figure header
    hgroup hr html li main ol p pre section summary table tbody tfoot thead tr ul
    """
)
_TIGHT = _words("li tr dt dd")
_CELLS = frozenset(("td", "th"))
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


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
    from selectolax.lexbor import LexborHTMLParser, SelectolaxError

    raw = path.read_bytes()
    _check_depth(raw)
    declared = _CHARSET.search(raw[:4096])
    try:
        source = decode(raw, declared=declared[1].decode("ascii") if declared else None)
        tree = LexborHTMLParser(source.replace("\0", "").encode("utf-8", "replace"))
    except NotTextError:
        raise DocumentUnreadable("document_unsupported", "This is no HTML but binary data.") from None
    except SelectolaxError:
        raise DocumentUnreadable("document_corrupt", "The HTML of this page cannot be read.") from None
    title = tree.css_first("title")
    parsed = _Reader().read(_content(tree)).build(PLUGIN.media_type, one_line(title.text()) if title else None)
    if not parsed.text:
        raise DocumentUnreadable(
            "document_empty",
            "There is no text in this page. If a browser shows some, scripts make it: save the page as PDF.",
        )
    return parsed


def _check_depth(raw: bytes) -> None:
    """The parser takes time quadratic in the depth, so that a megabyte of `<div>` would hold it for minutes."""
    depth = 0
    for tag in _CONTAINER.finditer(raw):
        depth = max(0, depth - 1) if tag[1] else depth + 1
        if depth > _MAX_DEPTH:
            raise DocumentUnreadable(
                "document_corrupt",
                f"The elements of this page are nested more than {_MAX_DEPTH:,} deep. Save it as PDF, or as text.",
            )


def _content(tree: Any) -> Any:
    """`<main>` when the page says what its content is, else everything."""
    mains = tree.css("main")
    if len(mains) == 1 and len(mains[0].text(strip=True)) > 200:
        return mains[0]
    return tree.body or tree.root


class _Reader:
    """Collects lines while the tree is walked.

    Between two pieces of text stands the widest gap that any element border between them asks for: an empty
    line for blocks, a newline for rows and list items.
    """

    def __init__(self) -> None:
        self._out = TextBuilder()
        self._line: list[str] = []
        self._bullet = ""
        self._gap = ""
        self._pre = 0

    def read(self, root: Any) -> TextBuilder:
        for node, entering in _walk(root):
            tag = node.tag
            if tag == "-text":
                self._text(node.text_content or "", entering)
            elif tag in _HEADINGS:
                self._flush("\n\n")
                if entering:
                    self._out.heading(node.text().replace("\xad", "").rstrip("#¶ \n"), _HEADINGS[tag])
            elif tag in _BLOCKS:
                self._flush("\n" if tag in _TIGHT else "\n\n")
                self._pre += (tag == "pre") * (1 if entering else -1)
                if tag == "li":
                    self._bullet = "- " if entering else ""
            elif entering and tag == "br":
                self._line.append("\n")
            elif entering and tag in _CELLS and "".join(self._line).strip():
                self._line.append(" | ")
        self._flush("")
        return self._out

    def _text(self, text: str, entering: bool) -> None:
        if entering:
            text = text.replace("\xad", "")
            self._line.append(text if self._pre else _SPACES.sub(" ", text))

    def _flush(self, gap: str) -> None:
        text = "".join(self._line)
        self._line.clear()
        if not self._pre:
            text = "\n".join(_SPACES.sub(" ", line).strip() for line in text.split("\n"))
        if text.strip():
            self._out.add(self._bullet + text, self._gap or " ")
            self._gap = self._bullet = ""
        if not self._bullet:  # a paragraph in a list item stays beside its bullet
            self._gap = max(self._gap, gap)


def _walk(root: Any) -> Iterator[tuple[Any, bool]]:
    """Every node below `root`, on entering (True) and on leaving; noise is passed over, headings are not
    entered.

    A loop, since hostile pages nest deeper than Python's stack.
    """
    node, depth = root.child, 1
    while node is not None:
        noise = _is_noise(node)
        if not noise:
            yield node, True
            if node.tag not in _HEADINGS and (child := node.child) is not None:
                node, depth = child, depth + 1
                continue
            yield node, False
        while (following := node.next) is None:
            node, depth = node.parent, depth - 1
            if depth == 0:
                return
            yield node, False
        node = following


def _is_noise(node: Any) -> bool:
    if node.tag in _NOISE or node.tag == "-comment":
        return True
    if not node.is_element_node:
        return False
    attributes = node.attributes
    return "hidden" in attributes or attributes.get("role") in _NOISE_ROLES or attributes.get("aria-hidden") == "true"


PLUGIN = Format("html", "HTML", "text/html", (".html", ".htm", ".xhtml"), _sniff, _parse)
