"""Markdown. The text stays the source as it is, so that a citation is what the author wrote."""

import re
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from backend.chains.reading.decoding import NotTextError, decode
from backend.chains.reading.formats._base import Format
from backend.chains.reading.parsed import (
    MAX_CONTEXT,
    MAX_HEADING,
    Context,
    Heading,
    ParsedDocument,
    canonical,
    one_line,
    row_text,
)
from backend.errors import DocumentUnreadable

# One of each kind, at the beginning of a line: headings, fences, lists with bold or links, tables.
_SIGNS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (r"^#{1,6} \S", r"^(```|~~~)", r"\]\([^\s)]{1,500}\)", r"\*\*\w", r"^\|[ :|-]+\|$")
)
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*\n", re.DOTALL | re.MULTILINE)
# Of blocks, about three each. What comes behind them is read as text without structure.
_MAX_TOKENS = 300_000
_INLINE = re.compile(r"[^\w\s,.;:?()/'\"-]|_")
_TITLE_FIELD = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)


def _sniff(head: bytes, path: Path, name: str) -> float:
    """Markdown and plain text are told apart by the name; without an ending, by two signs of Markdown."""
    suffix = Path(name).suffix.lower()
    if suffix and suffix not in PLUGIN.suffixes:
        return 0.0
    try:
        text = canonical(decode(head, whole=False))
    except NotTextError:
        return 0.0
    if suffix:
        return 0.6
    return 0.4 if sum(sign.search(text) is not None for sign in _SIGNS) >= 2 else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    try:
        text = canonical(decode(path.read_bytes()))
    except NotTextError:
        raise DocumentUnreadable("document_unsupported", "This is no Markdown but binary data.") from None
    if not text.strip():
        raise DocumentUnreadable("document_empty", "There is no text in this file.")
    body, title = _without_front_matter(text)
    headings, tables = _structure(body)
    first = next((heading.title for heading in headings if heading.level == 1), None)
    return ParsedDocument(text, PLUGIN.media_type, title or first, headings=headings, contexts=tables)


def _without_front_matter(text: str) -> tuple[str, str | None]:
    """The text with its YAML head blanked out (else the head's last line reads as a heading), and the head's
    title.
    """
    match = _FRONT_MATTER.match(text)
    if match is None:
        return text, None
    field = _TITLE_FIELD.search(match[1])
    title = one_line(field[1].strip(" \"'")) if field else None
    return re.sub(r"[^\n]", " ", match[0]) + text[match.end() :], title


def _structure(text: str) -> tuple[list[Heading], list[Context]]:
    """Headings and tables, in the order of the text."""
    from markdown_it import MarkdownIt

    # Blocks only: inline syntax matters in headings alone, and is where Markdown gets slow on hostile input.
    blocks: Any = MarkdownIt("commonmark").enable("table")
    blocks.core.ruler.enableOnly(["normalize", "block"])
    # What links refer to matters to nothing here, and takes time quadratic in how many there are.
    blocks.block.ruler.disable("reference")
    blocks.block.ruler.before("table", "enough", _enough)
    inline: Any = MarkdownIt("commonmark")
    starts: list[int] = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    headings: list[Heading] = []
    tables: list[Context] = []
    tokens: list[Any] = blocks.parse(text)
    for opening, content in pairwise(tokens):
        if opening.type == "heading_open":
            source: str = content.content[: 2 * MAX_HEADING]
            title = one_line(_plain(inline.parseInline(source)) if _INLINE.search(source) else source)
            if title:
                line: int = opening.map[0]
                headings.append(Heading(starts[line], int(opening.tag[1:]), title))
        elif opening.type == "table_open":
            tables.extend(_table(text, starts, *opening.map))
    return headings, tables


def _enough(state: Any, line: int, end: int, silent: bool) -> bool:
    """A rule of the parser: so much of a text may be structure, the rest of it is one block."""
    if silent or len(state.tokens) < _MAX_TOKENS:
        return False
    state.line = end
    return True


def _table(text: str, starts: list[int], first: int, end: int) -> list[Context]:
    """A table in lines `first` to `end`: the header and the line under it, then the rows that need the header."""
    top, body, bottom = (min(starts[line], len(text)) for line in (first, min(first + 2, end), end))
    cells = text[top : starts[first + 1]].strip().strip("|").split("|")
    contexts = [Context(top, body), Context(body, bottom, row_text(cells)[:MAX_CONTEXT])]
    return [context for context in contexts if context.start < context.end]


def _plain(tokens: list[Any]) -> str:
    """What a reader sees of a heading."""
    children: list[Any] = []
    for token in tokens:
        children.extend(token.children or [])
    return "".join(" " if child.type == "softbreak" else child.content for child in children)


PLUGIN = Format("markdown", "Markdown", "text/markdown", (".md", ".markdown", ".mdown", ".mkd", ".mdx"), _sniff, _parse)
