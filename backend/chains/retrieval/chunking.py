"""Cuts a document into chunks, the pieces that are embedded and indexed."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

import msgspec

from backend.chains.reading.parsed import Context, ParsedDocument
from backend.chains.text.sentences import sentences

# A chunk may end early at the end of a paragraph if it has at least this share of its size.
_EARLY = 0.6
# A chunk with less than this share is merged with the one before it, unless that becomes larger than _OVERFULL.
_TINY = 0.3
_OVERFULL = 1.3

Offsets = tuple[int, int]
"""(start, end) in a text, in code points."""


class Chunk(msgspec.Struct, frozen=True):
    """A chunk: text[start:end] of the canonical text, in code points, without white space around it.

    `page` is the page where the chunk starts. `heading` is the path of headings above it (`Part > Chapter`); in a sheet
    it also names the rows (`Budget > rows 12-18`). `context` is text that the chunk needs to be understood: the header
    of the table that it begins in.
    """

    ordinal: int
    start: int
    end: int
    page: int | None
    heading: str | None
    context: str | None = None


def chunk(parsed: ParsedDocument, size: int) -> list[Chunk]:
    """Chunks of about `size` code points, in order, without overlap. Together they contain everything but white space.

    A chunk ends where a sentence or a row ends; only a sentence or row that is longer than `size` is cut. Two sections
    (a heading and the text under it) never share a chunk, but a heading without text belongs to the next section.
    """
    if size < 1:
        raise ValueError("size must be positive")
    chunks: list[Chunk] = []
    rows = _RowNumbers(parsed)
    for section, heading in _sections(parsed):
        for start, end in _pack(parsed, section, size):
            path = " > ".join(filter(None, (heading, rows.label(start, end)))) or None
            context = parsed.context_at(start)
            header = context.text or None if context else None
            chunks.append(Chunk(len(chunks), start, end, parsed.page_at(start), path, header))
    return chunks


class _RowNumbers:
    """The row numbers of a sheet. Call `label` in the order of the text: it continues counting from the last place."""

    def __init__(self, parsed: ParsedDocument) -> None:
        self._parsed = parsed
        self._at = -1
        self._row = 0

    def label(self, start: int, end: int) -> str | None:
        """The rows in text[start:end], as `rows 12-18`; None if there are none, or if they have no numbers."""
        contexts = self._parsed.contexts
        top = bisect_right(contexts, start, key=lambda context: context.end)
        bottom = bisect_left(contexts, end, key=lambda context: context.start) - 1
        if top > bottom:
            return None
        first = self._number(contexts[top], max(start, contexts[top].start))
        last = self._number(contexts[bottom], min(end, contexts[bottom].end) - 1)
        if first is None or last is None:
            return None
        return f"row {first}" if first == last else f"rows {first}-{last}"

    def _number(self, context: Context, offset: int) -> int | None:
        if context.row is None:
            return None
        if self._at < context.start:
            self._at, self._row = context.start, context.row
        self._row += self._parsed.text.count("\n", self._at, offset)
        self._at = offset
        return self._row


def _sections(parsed: ParsedDocument) -> Iterator[tuple[Offsets, str | None]]:
    """The offsets between headings, with the path of headings. A heading without text belongs to the next section."""
    text = parsed.text
    borders = sorted({0, *(heading.start for heading in parsed.headings), len(text)})
    ends = _line_ends(parsed)
    start = 0
    for border, following in pairwise(borders):
        if following < len(text) and not text[ends.get(border, border) : following].strip():
            continue
        yield (start, following), parsed.heading_at(following - 1)
        start = following


def _line_ends(parsed: ParsedDocument) -> dict[int, int]:
    """The end of each heading's line, by its start. The underline of a Markdown heading belongs to its line."""
    ends: dict[int, int] = {}
    for heading in parsed.headings:
        if not heading.title:
            continue
        match = _HEADING_LINES.match(parsed.text, heading.start)
        ends[heading.start] = match.end() if match else heading.start
    return ends


_HEADING_LINES = re.compile(r"[^\n]*(?:\n[ ]{0,3}(?:=+|-+)[ \t]*(?=\n|\Z))?")


def _pack(parsed: ParsedDocument, section: Offsets, size: int) -> list[Offsets]:
    """The offsets of a section's chunks: each takes as many sentences or rows as fit."""
    packed: list[list[Offsets]] = []
    for piece in _pieces(parsed, section, size):
        current = packed[-1] if packed else None
        if current is None or _is_full(parsed.text, current, piece, size):
            packed.append([piece])
        else:
            current.append(piece)
    return _merge_tiny([(pieces[0][0], pieces[-1][1]) for pieces in packed], size)


def _is_full(text: str, current: list[Offsets], following: Offsets, size: int) -> bool:
    start, end = current[0][0], current[-1][1]
    if following[1] - start > size:
        return True
    paragraph_ends = "\n\n" in text[end : following[0]]
    return paragraph_ends and end - start >= _EARLY * size and len(current) > 1


def _merge_tiny(chunks: list[Offsets], size: int) -> list[Offsets]:
    """Merge chunks that are too small with the one before them; the first one with the one after it."""
    merged: list[Offsets] = []
    for start, end in chunks:
        if merged:
            before = merged[-1]
            tiny = min(end - start, before[1] - before[0]) < _TINY * size
            if tiny and end - before[0] <= _OVERFULL * size:
                merged[-1] = (before[0], end)
                continue
        merged.append((start, end))
    return merged


def _pieces(parsed: ParsedDocument, section: Offsets, size: int) -> Iterator[Offsets]:
    """The sentences and rows. One that is longer than `size` is cut at the best place."""
    text = parsed.text
    for stretch, in_context in _stretches(parsed, section):
        if not in_context:
            yield from _cut_long(text, sentences(text, *stretch), size)
            continue
        for row in _lines(text, *stretch):
            yield from [row] if row[1] - row[0] <= size else _cut_long(text, sentences(text, *row), size)


def _stretches(parsed: ParsedDocument, section: Offsets) -> Iterator[tuple[Offsets, bool]]:
    """The section in parts, and whether each part is in a context (a table)."""
    start, end = section
    after = bisect_right(parsed.contexts, start, key=lambda context: context.end)
    for context in islice(parsed.contexts, after, None):
        if context.start >= end:
            break
        if start < context.start:
            yield (start, context.start), False
        yield (max(start, context.start), min(end, context.end)), True
        start = min(end, context.end)
    if start < end:
        yield (start, end), False


def _lines(text: str, start: int, end: int) -> Iterator[Offsets]:
    """The offsets of the lines that are not blank, without white space around them."""
    while start < end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        line = text[start:stop]
        if solid := line.strip():
            first = start + len(line) - len(line.lstrip())
            yield first, first + len(solid)
        start = stop + 1


def _cut_long(text: str, pieces: Iterable[Offsets], size: int) -> Iterator[Offsets]:
    """The pieces; those longer than `size` in several parts."""
    for start, end in pieces:
        while end - start > size:
            cut = _best_cut(text, start, start + size)
            yield start, start + len(text[start:cut].rstrip())
            rest = _SOLID.search(text, cut, end)
            start = rest.start() if rest else end
        if start < end:
            yield start, end


_SOLID = re.compile(r"\S")
_PLACES = (re.compile(r"\n"), re.compile(r"[;:,|、，；]\s?"), re.compile(r"\s"))


def _best_cut(text: str, start: int, limit: int) -> int:
    """Where to cut text[start:limit]: after the last newline in its second half, else after the last clause, else after
    the last word, else at the limit.
    """
    middle = start + (limit - start) // 2
    for place in _PLACES:
        ends = [match.end() for match in place.finditer(text, middle, limit)]
        if ends:
            return ends[-1]
    return limit
