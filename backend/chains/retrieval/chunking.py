"""Cuts a document into chunks: what is embedded, found and quoted as one."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

import msgspec

from backend.chains.reading.parsed import Context, ParsedDocument
from backend.chains.text.sentences import sentences

# A chunk may end early at a paragraph's end once it has this share of its size.
_EARLY = 0.6
# A smaller rest goes with the chunk before it, as long as that does not grow beyond _OVERFULL.
_TINY = 0.3
_OVERFULL = 1.3

Offsets = tuple[int, int]


class Chunk(msgspec.Struct, frozen=True):
    """A passage: text[start:end] of the canonical text, in code points, without white space around it.

    `page` is the page where it starts, `heading` the path of headings above it (`Part > Chapter`), and in a
    sheet the rows in it (`Budget > rows 12-18`). `context` is what it needs before it to be understood: the
    header of the table that it begins in.
    """

    ordinal: int
    start: int
    end: int
    page: int | None
    heading: str | None
    context: str | None = None


def chunk(parsed: ParsedDocument, size: int) -> list[Chunk]:
    """Chunks of about `size` code points, in order, without overlap; together they hold all but white space.

    A chunk ends where a sentence or a row ends; only one that is longer than `size` is cut. A section (a
    heading and what is under it) never shares a chunk with another one, except that headings with nothing
    under them go with the next.
    """
    if size < 1:
        raise ValueError("size must be positive")
    chunks: list[Chunk] = []
    rows = _Rows(parsed)
    for section, heading in _sections(parsed):
        for start, end in _packed(parsed, section, size):
            path = " > ".join(filter(None, (heading, rows.of(start, end)))) or None
            context = parsed.context_at(start)
            above = context.text or None if context else None
            chunks.append(Chunk(len(chunks), start, end, parsed.page_at(start), path, above))
    return chunks


class _Rows:
    """Says which rows of a sheet a span holds. Ask in order: it counts on from the last place."""

    def __init__(self, parsed: ParsedDocument) -> None:
        self._parsed = parsed
        self._at = -1
        self._row = 0

    def of(self, start: int, end: int) -> str | None:
        """`rows 12-18`; None where there are none, or they have no numbers."""
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
    """Spans between headings, with the path above; a heading without any text of its own is left to the next
    section.
    """
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
    """Where the line of each heading ends, by its start. A setext heading's underline is white space for
    this.
    """
    ends: dict[int, int] = {}
    for heading in parsed.headings:
        if not heading.title:
            continue
        match = _HEADING_LINES.match(parsed.text, heading.start)
        ends[heading.start] = match.end() if match else heading.start
    return ends


_HEADING_LINES = re.compile(r"[^\n]*(?:\n[ ]{0,3}(?:=+|-+)[ \t]*(?=\n|\Z))?")


def _packed(parsed: ParsedDocument, section: Offsets, size: int) -> list[Offsets]:
    """The spans of a section's chunks: sentences and rows put together greedily."""
    packed: list[list[Offsets]] = []
    for span in _pieces(parsed, section, size):
        current = packed[-1] if packed else None
        if current is None or _is_full(parsed.text, current, span, size):
            packed.append([span])
        else:
            current.append(span)
    spans = [(each[0][0], each[-1][1]) for each in packed]
    return _without_tiny(spans, size)


def _is_full(text: str, current: list[Offsets], following: Offsets, size: int) -> bool:
    start, end = current[0][0], current[-1][1]
    if following[1] - start > size:
        return True
    paragraph_ends = "\n\n" in text[end : following[0]]
    return paragraph_ends and end - start >= _EARLY * size and len(current) > 1


def _without_tiny(spans: list[Offsets], size: int) -> list[Offsets]:
    """A chunk too small to mean anything goes with the one before it, or the first one with the one behind
    it.
    """
    merged: list[Offsets] = []
    for start, end in spans:
        if merged:
            before = merged[-1]
            tiny = min(end - start, before[1] - before[0]) < _TINY * size
            if tiny and end - before[0] <= _OVERFULL * size:
                merged[-1] = (before[0], end)
                continue
        merged.append((start, end))
    return merged


def _pieces(parsed: ParsedDocument, section: Offsets, size: int) -> Iterator[Offsets]:
    """The sentences and rows; one that is longer than `size` is cut at the best place."""
    text = parsed.text
    for span, in_context in _stretches(parsed, section):
        if not in_context:
            yield from _bounded(text, sentences(text, *span), size)
            continue
        for row in _lines(text, *span):
            yield from [row] if row[1] - row[0] <= size else _bounded(text, sentences(text, *row), size)


def _stretches(parsed: ParsedDocument, section: Offsets) -> Iterator[tuple[Offsets, bool]]:
    """The section in spans that are in a context, or in none."""
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
    while start < end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        line = text[start:stop]
        if solid := line.strip():
            first = start + len(line) - len(line.lstrip())
            yield first, first + len(solid)
        start = stop + 1


def _bounded(text: str, spans: Iterable[Offsets], size: int) -> Iterator[Offsets]:
    for start, end in spans:
        while end - start > size:
            cut = _cut(text, start, start + size)
            yield start, start + len(text[start:cut].rstrip())
            rest = _SOLID.search(text, cut, end)
            start = rest.start() if rest else end
        if start < end:
            yield start, end


_SOLID = re.compile(r"\S")
_PLACES = (re.compile(r"\n"), re.compile(r"[;:,|、，；]\s?"), re.compile(r"\s"))


def _cut(text: str, start: int, limit: int) -> int:
    """Where to cut text[start:limit]: after the last newline, else clause, else word in its second half, else
    anywhere.
    """
    middle = start + (limit - start) // 2
    for place in _PLACES:
        ends = [match.end() for match in place.finditer(text, middle, limit)]
        if ends:
            return ends[-1]
    return limit
