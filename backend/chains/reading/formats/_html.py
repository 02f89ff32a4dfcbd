"""Reads HTML as lines: what a person sees, without menus, scripts and footers. For all formats that contain HTML."""

import re
from collections import Counter
from collections.abc import Iterator, Set
from typing import Any

from backend.chains.reading.decoding import NotTextError, decode
from backend.chains.reading.parsed import MAX_CONTEXT, TextBuilder, row_text
from backend.errors import DocumentUnreadable

# The sum over all tags of the elements above each: 31,000 nested elements have this sum.
_MAX_STEPS = 500_000_000
_MAX_ATTRIBUTES = 1_000
_TAG = re.compile(rb"<(/?)([a-z][a-z0-9]*+)([^<>]*+)", re.IGNORECASE)
# Without elements that are usually left open: the parser closes those when the next one begins.
_NESTING = frozenset(
    b"""
    abbr address applet article aside b big blockquote caption center code details dialog dir div dl em fieldset
    figcaption figure font footer header hgroup i ins label main mark marquee menu nav object ol pre q s section small
    span strike strong sub summary sup table template tt u ul
    """.split()
)
_VALUES = re.compile(rb"\"[^\"]*+\"|'[^']*+'")
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
_HIDDEN_STYLE = re.compile(r"\b(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
BLOCKS = _words(
    """
    address article blockquote body caption dd details div dl dt fieldset figcaption figure header
    hgroup hr html li main ol p pre section summary table tbody tfoot thead tr ul
    """
)
_TIGHT = _words("li tr dt dd")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CELLS = frozenset(("td", "th"))
# A table with one of these in a cell is not data.
_NOT_IN_DATA = _words("table h1 h2 h3 h4 form article section pre")


def parse_html(raw: bytes, declared: str | None = None) -> Any:
    """The tree (selectolax) of a page. `declared` is its encoding, if it is declared outside of the page.

    Raises DocumentUnreadable.
    """
    from selectolax.lexbor import LexborHTMLParser, SelectolaxError

    _check_tags(raw)
    meta = _CHARSET.search(raw[:4096])
    try:
        source = decode(raw, declared=declared or (meta[1].decode("ascii") if meta else None))
        return LexborHTMLParser(source.replace("\0", "").encode("utf-8", "replace"))
    except NotTextError:
        raise DocumentUnreadable("document_unsupported", "This is no HTML but binary data.") from None
    except SelectolaxError:
        raise DocumentUnreadable("document_corrupt", "The HTML of this page cannot be read.") from None


def _check_tags(raw: bytes) -> None:
    """Refuse pages that take the parser minutes, like a megabyte of `<div>`. Raises DocumentUnreadable.

    For each tag, the parser may look at all elements around it, and it compares the attributes of an element with each
    other. A closing tag only closes an element of its own kind: the parser ignores all others.
    """
    opened: Counter[bytes] = Counter()
    depth = steps = 0
    for closes, tag, rest in _TAG.findall(raw):
        name = tag.lower()
        if len(rest) > 2 * _MAX_ATTRIBUTES and len(_VALUES.sub(b"", rest).split()) > _MAX_ATTRIBUTES:
            raise DocumentUnreadable(
                "document_corrupt",
                f"An element of this page has more than {_MAX_ATTRIBUTES:,} attributes. Save it as PDF, or as text.",
            )
        if name in _NESTING and not (closes and not opened[name]):
            step = -1 if closes else 1
            opened[name] += step
            depth += step
        steps += depth
        if steps > _MAX_STEPS:
            raise DocumentUnreadable(
                "document_corrupt", "The elements of this page are nested too deep. Save it as PDF, or as text."
            )


def add_html(out: TextBuilder, root: Any, dropped: Set[int] = frozenset()) -> None:
    """Append the visible text below `root`, without the elements whose ids (`mem_id`) are in `dropped`."""
    _Reader(out).read(root, dropped)


class _Reader:
    """Collects lines while it walks through the tree.

    The gap between two pieces of text is the widest one that the borders of elements between them need: an empty line
    for blocks, a newline for rows and list items.
    """

    def __init__(self, out: TextBuilder) -> None:
        self._out = out
        self._line: list[str] = []
        self._solid = False  # more than white space is in the line
        self._bullet = ""
        self._gap = "\n\n"
        self._pre = 0

    def read(self, root: Any, dropped: Set[int]) -> None:
        tables = _data_tables(root) if root.css_first("table") else set[int]()
        for node, entering in walk(root, tables, dropped):
            tag = node.tag
            if tag == "-text":
                self._text(node.text_content or "", entering)
            elif tag in _HEADINGS:
                self._flush("\n\n")
                if entering:
                    self._out.heading(node.text().replace("\xad", "").rstrip("#¶ \n"), _HEADINGS[tag])
            elif node.mem_id in tables:
                self._flush("\n\n")
                if entering:
                    _add_table(self._out, node)
            elif tag in BLOCKS:
                self._flush("\n" if tag in _TIGHT else "\n\n")
                self._pre += (tag == "pre") * (1 if entering else -1)
                if tag == "li":
                    self._bullet = "- " if entering else ""
            elif entering and tag == "br":
                self._line.append("\n")
            elif entering and tag in _CELLS and self._solid:
                self._line.append(" ")
        self._flush("")

    def _text(self, text: str, entering: bool) -> None:
        if entering:
            text = text.replace("\xad", "")
            self._line.append(text if self._pre else _SPACES.sub(" ", text))
            self._solid = self._solid or not text.isspace()

    def _flush(self, gap: str) -> None:
        text = "".join(self._line)
        self._line.clear()
        self._solid = False
        if not self._pre:
            text = "\n".join(_SPACES.sub(" ", line).strip() for line in text.split("\n"))
        if text.strip():
            self._out.add(self._bullet + text, self._gap or " ")
            self._gap = self._bullet = ""
        if not self._bullet:  # a paragraph in a list item stays beside its bullet
            self._gap = max(self._gap, gap)


def _data_tables(root: Any) -> set[int]:
    """The ids of the tables with data. Other tables only lay out a page or a mail."""
    data_tables: set[int] = set()
    inside: list[list[str]] = []
    for node, entering in walk(root):
        if entering and inside:
            inside[-1].append(node.tag if node.tag in _NOT_IN_DATA or node.tag in _CELLS else "")
        if node.tag != "table" or not node.is_element_node:
            continue
        if entering:
            inside.append([])
        else:
            tags = inside.pop()
            cells = sum(tag in _CELLS for tag in tags)
            layout = node.attributes.get("role") in ("presentation", "none") or not _NOT_IN_DATA.isdisjoint(tags)
            if cells > 1 and not layout:
                data_tables.add(node.mem_id)
    return data_tables


def _add_table(out: TextBuilder, table: Any) -> None:
    """Append a table. Its header is the row in a `<thead>`, or the first rows if all of their cells are `<th>`."""
    header = ""
    body = False
    for row in table.css("tr"):
        if any(_is_noise(node) for node in (row, row.parent)):
            continue
        cells = [node for node in row.iter() if node.tag in _CELLS]
        is_header = not body and (row.parent.tag == "thead" or all(cell.tag == "th" for cell in cells))
        body = body or not is_header
        text = [_cell(cell) for cell in cells]
        out.row(text, "" if is_header else header)
        if is_header and len(header) < MAX_CONTEXT:
            header = " / ".join(filter(None, (header, row_text(text))))


def _cell(cell: Any) -> str:
    pieces: list[str] = []
    for node, entering in walk(cell):
        if node.tag == "-text":
            pieces.append((node.text_content or "").replace("\xad", "") if entering else "")
        elif node.tag == "br" or node.tag in BLOCKS:
            pieces.append(" ")
        elif node.tag in _HEADINGS and entering:
            pieces.append(node.text())
    return "".join(pieces)


def walk(root: Any, closed: Set[int] = frozenset(), dropped: Set[int] = frozenset()) -> Iterator[tuple[Any, bool]]:
    """Every node below `root`, once on entering (True) and once on leaving (False).

    Noise and the nodes whose ids are in `dropped` are skipped; headings and nodes in `closed` are not entered. A loop
    and no recursion: hostile pages nest deeper than Python's stack.
    """
    node, depth = root.child, 1
    while node is not None:
        noise = _is_noise(node) or node.mem_id in dropped
        if not noise:
            yield node, True
            if node.tag not in _HEADINGS and node.mem_id not in closed and (child := node.child) is not None:
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
    if "hidden" in attributes or attributes.get("aria-hidden") == "true" or attributes.get("role") in _NOISE_ROLES:
        return True
    return _HIDDEN_STYLE.search(attributes.get("style") or "") is not None
