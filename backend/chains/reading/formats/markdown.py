"""Markdown. The text is the unchanged source, so that a citation is what the author wrote."""

import re
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from backend.chains.reading.formats._base import Format, decode_head, read_text
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

# Signs of Markdown: a heading, a fence, a link, bold text, the line below a table's header.
_SIGNS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (r"^#{1,6} \S", r"^(```|~~~)", r"\]\([^\s)]{1,500}\)", r"\*\*\w", r"^\|[ :|-]+\|$")
)
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*\n", re.DOTALL | re.MULTILINE)
# Tokens of the parser, about three per block. The text after them has no structure.
_MAX_TOKENS = 300_000
_INLINE = re.compile(r"[^\w\s,.;:?()/'\"-]|_")
_TITLE_FIELD = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)


def _sniff(head: bytes, path: Path, name: str) -> float:
    """Only the name can distinguish Markdown from plain text. Without an ending, two signs of Markdown are needed."""
    suffix = Path(name).suffix.lower()
    if suffix and suffix not in PLUGIN.suffixes:
        return 0.0
    text = decode_head(head)
    if text is None:
        return 0.0
    text = canonical(text)
    if suffix:
        return 0.6
    return 0.4 if sum(sign.search(text) is not None for sign in _SIGNS) >= 2 else 0.0


def _parse(path: Path, name: str) -> ParsedDocument:
    text = canonical(read_text(path, "This is no Markdown but binary data."))
    if not text.strip():
        raise DocumentUnreadable("document_empty", "There is no text in this file.")
    body, title = _without_front_matter(text)
    headings, tables = _structure(body)
    first = next((heading.title for heading in headings if heading.level == 1), None)
    return ParsedDocument(text, PLUGIN.media_type, title or first, headings=headings, contexts=tables)


def _without_front_matter(text: str) -> tuple[str, str | None]:
    """The text with its YAML head blanked out (its last line would look like a heading), and the head's title."""
    match = _FRONT_MATTER.match(text)
    if match is None:
        return text, None
    field = _TITLE_FIELD.search(match[1])
    title = one_line(field[1].strip(" \"'")) if field else None
    return re.sub(r"[^\n]", " ", match[0]) + text[match.end() :], title


def _structure(text: str) -> tuple[list[Heading], list[Context]]:
    """Headings and tables, in the order of the text."""
    from markdown_it import MarkdownIt

    # Blocks only: inline syntax matters only in headings, and is what makes Markdown slow on hostile input.
    blocks: Any = MarkdownIt("commonmark").enable("table")
    blocks.core.ruler.enableOnly(["normalize", "block"])
    # Link references are not needed here, and take time quadratic in their number.
    blocks.block.ruler.disable("reference")
    blocks.block.ruler.before("table", "limit_structure", _limit_structure)
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


def _limit_structure(state: Any, line: int, end: int, silent: bool) -> bool:
    """A rule of the parser: after _MAX_TOKENS, the rest of the text is one block."""
    if silent or len(state.tokens) < _MAX_TOKENS:
        return False
    state.line = end
    return True


def _table(text: str, starts: list[int], first: int, end: int) -> list[Context]:
    """A table in the lines `first` to `end`: one context for the header, one for the rows, which need the header."""
    top, body, bottom = (min(starts[line], len(text)) for line in (first, min(first + 2, end), end))
    cells = text[top : starts[first + 1]].strip().strip("|").split("|")
    contexts = [Context(top, body), Context(body, bottom, row_text(cells)[:MAX_CONTEXT])]
    return [context for context in contexts if context.start < context.end]


def _plain(tokens: list[Any]) -> str:
    """The visible text of a heading."""
    children: list[Any] = []
    for token in tokens:
        children.extend(token.children or [])
    return "".join(" " if child.type == "softbreak" else child.content for child in children)


PLUGIN = Format("markdown", "Markdown", "text/markdown", (".md", ".markdown", ".mdown", ".mkd", ".mdx"), _sniff, _parse)
