"""A document as text, with its pages, headings and tables by offset; and how formats build it."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property

import msgspec

# Characters. A longer heading is text that only looks like one.
MAX_HEADING = 300
# Characters. The header of a table with a thousand columns would be longer than its rows.
MAX_CONTEXT = 300

_NEWLINES = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Controls other than tab and newline, surrogates, byte order marks, and code points that are never characters.
_FORBIDDEN = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")


class PageStart(msgspec.Struct, frozen=True):
    """Page `page`, counted from 1, begins at the code point `start`. An empty page begins where the next one begins."""

    page: int
    start: int


class Heading(msgspec.Struct, frozen=True):
    """A heading that begins at the code point `start`, at the beginning of a line; level 1 is the highest.

    An empty title only ends the sections of its level and below: the text after it belongs to the heading above them.
    """

    start: int
    level: int
    title: str


class Context(msgspec.Struct, frozen=True):
    """Lines text[start:end] that are independent of each other, like the rows of a table: no line is cut.

    `text` is needed to understand them: the table's header; it is put in front of chunks that begin in these lines. If
    the rows have numbers, `row` is that of the first line, from 1; the following lines have the following numbers.
    """

    start: int
    end: int
    text: str = ""
    row: int | None = None


class ParsedDocument(msgspec.Struct, frozen=True, dict=True):
    """A document as text.

    `text` is canonical (see `canonical`). Citations point into it and never change, so it is stored unchanged. All
    offsets are code points, that is indexes of a Python string. `pages`, `headings` and `contexts` are sorted by
    `start`; `pages` is empty if the document has no pages; contexts don't overlap.
    """

    text: str
    media_type: str
    title: str | None = None
    pages: list[PageStart] = []
    headings: list[Heading] = []
    contexts: list[Context] = []

    def page_at(self, offset: int) -> int | None:
        """The page that contains the code point, counted from 1; None if there are no pages."""
        place = bisect_right(self._page_starts, offset)
        return self.pages[max(place - 1, 0)].page if self.pages else None

    def heading_at(self, offset: int) -> str | None:
        """The path of headings above the code point, `Part > Chapter`; None above the first heading."""
        place = bisect_right(self._heading_starts, offset)
        return self._heading_paths[place - 1] if place else None

    def context_at(self, offset: int) -> Context | None:
        """The context that contains the code point."""
        place = bisect_right(self._context_starts, offset)
        context = self.contexts[place - 1] if place else None
        return context if context is not None and offset < context.end else None

    @cached_property
    def _page_starts(self) -> list[int]:
        return [page.start for page in self.pages]

    @cached_property
    def _heading_starts(self) -> list[int]:
        return [heading.start for heading in self.headings]

    @cached_property
    def _context_starts(self) -> list[int]:
        return [context.start for context in self.contexts]

    @cached_property
    def _heading_paths(self) -> list[str | None]:
        paths: list[str | None] = []
        above: list[Heading] = []
        for heading in self.headings:
            while above and above[-1].level >= heading.level:
                above.pop()
            if heading.title:
                above.append(heading)
            paths.append(" > ".join(parent.title for parent in above) or None)
        return paths


def canonical(text: str) -> str:
    """The text with newlines as the only line ends, without NUL and other controls except tab, without surrogates and
    byte order marks.
    """
    return _FORBIDDEN.sub("", _NEWLINES.sub("\n", text))


def one_line(text: str) -> str | None:
    """A title or heading on one line, cut to MAX_HEADING characters; None if nothing is left."""
    return " ".join(canonical(text[: 4 * MAX_HEADING]).split())[:MAX_HEADING].rstrip() or None


def row_text(cells: Sequence[str]) -> str:
    """A row of a table as one line, `Name | Year | Price`; empty if all cells are empty."""
    folded = [" ".join(canonical(cell).split()) for cell in cells]
    while folded and not folded[-1]:
        folded.pop()
    return " | ".join(folded)


class TextBuilder:
    """Builds a canonical text piece by piece, with the places of its headings, pages and tables."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.length = 0
        self.headings: list[Heading] = []
        self.pages: list[PageStart] = []
        self.contexts: list[Context] = []
        self._rows = 0  # in the last context

    def add(self, piece: str, separator: str = "\n\n") -> None:
        """Append a piece, in canonical form and without newlines around it. An empty one changes nothing.

        `separator` is put between the piece and the text before it.
        """
        piece = canonical(piece).strip("\n")
        if not piece.strip():
            return
        if self._pieces:
            piece = separator + piece
        self._pieces.append(piece)
        self.length += len(piece)

    def heading(self, title: str, level: int) -> None:
        """Append a heading as a paragraph of its own."""
        line = one_line(title)
        if line:
            start = self.length + (2 if self._pieces else 0)
            self.headings.append(Heading(start, level, line))
            self.add(" ".join(canonical(title).split()))

    def end_headings(self) -> None:
        """The text that is added next has no heading."""
        if self.headings:
            self.headings.append(Heading(self.length + (2 if self._pieces else 0), 1, ""))

    def row(self, cells: Sequence[str], header: str = "", number: int | None = None) -> None:
        """Append a table's row as a line; an empty one changes nothing.

        `header` is the table's header as `row_text`, empty for the header row itself. `number`: see `Context.row`; if
        numbers are missing between two rows, they are separated by an empty line.
        """
        line = row_text(cells)
        if not line:
            return
        header = header[:MAX_CONTEXT]
        table = self.contexts[-1] if self.contexts and self.contexts[-1].end == self.length else None
        follows = table is not None and (table.row is None if number is None else table.row == number - self._rows)
        self.add(line, "\n" if follows else "\n\n")
        if table is not None and follows and table.text == header:
            self.contexts[-1] = Context(table.start, self.length, header, table.row)
            self._rows += 1
        else:
            self.contexts.append(Context(self.length - len(line), self.length, header, number))
            self._rows = 1

    def page(self, number: int) -> None:
        """The text that is added next is on this page."""
        self.pages.append(PageStart(number, self.length + (2 if self._pieces else 0)))

    def build(self, media_type: str, title: str | None) -> ParsedDocument:
        """The document. Pages after the last text begin at its end."""
        pages = [PageStart(page.page, min(page.start, self.length)) for page in self.pages]
        return ParsedDocument("".join(self._pieces), media_type, title, pages, self.headings, self.contexts)
