"""Turns lines at places on pages into paragraphs and headings."""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

# Headings are at least this much larger than the body text.
_HEADING_SIZE = 1.15
_MAX_HEADING_LINE = 150
_BULLET = re.compile(r"(?:[•●◦▪‣·*–—-]|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)])\s")
_ENDS = re.compile(r"[.!?:;。！？…][\"'”’)\]]*$")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text; edges and size in points, `bottom` from the foot of the page. `\\xad` ends a hyphenated line."""

    text: str
    left: float
    right: float
    bottom: float
    size: float


@dataclass(frozen=True, slots=True)
class PageText:
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, or a heading when it has a level (1 is the highest)."""

    text: str
    level: int | None = None


def lay_out(pages: list[PageText], *, headings: bool) -> list[list[Block]]:
    """The blocks of each page. `headings=False` is for documents that list their headings elsewhere."""
    levels = _levels(pages) if headings else {}
    words = _LineJoiner(pages)
    return [_blocks(page.lines, levels, words) for page in pages]


def _blocks(lines: list[Line], levels: dict[float, int], words: "_LineJoiner") -> list[Block]:
    page = _PageMeasures(lines)
    blocks: list[Block] = []
    last: Line | None = None
    for line in lines:
        level = _level(line, levels)
        gap = "\n\n" if last is None else _gap(last, line, page)
        previous = blocks[-1] if blocks else None
        if level is not None:  # lines of a heading are one heading unless they are far apart
            gap = "\n\n" if last is None or last.bottom - line.bottom > 2.2 * line.size else " "
        if previous is None or level != previous.level or gap == "\n\n":
            blocks.append(Block(line.text, level))
        else:
            blocks[-1] = Block(words.join(previous.text, line.text, gap), level)
        last = line
    return [Block(block.text.replace("\xad", ""), block.level) for block in blocks]


class _PageMeasures:
    """The usual distance of lines on a page, and their usual width, in points."""

    def __init__(self, lines: list[Line]) -> None:
        steps = [above.bottom - below.bottom for above, below in pairwise(lines)]
        usual = [step for step, line in zip(steps, lines, strict=False) if 0.5 * line.size < step < 2 * line.size]
        self.leading = median(usual) if usual else 0.0
        # The upper quartile: on a page of short lines (a list, a poem), no line should count as the end of a paragraph.
        widths = sorted(line.right - line.left for line in lines)
        self.width = widths[len(widths) * 3 // 4] if widths else 0.0


def _gap(above: Line, below: Line, page: _PageMeasures) -> str:
    """The separator between two lines: a space, a newline, or an empty line between paragraphs."""
    step = above.bottom - below.bottom
    sentence_ends = _ENDS.search(above.text) is not None
    if abs(above.size - below.size) > 0.12 * max(above.size, below.size, 0.1):
        return "\n\n"
    if step < -above.size:  # the next column, or a box beside
        return "\n\n" if sentence_ends else " "
    if step > max(1.35 * page.leading, 0.5 * above.size) and page.leading:
        return "\n\n"
    if _BULLET.match(below.text):
        return "\n"
    if above.right - above.left < 0.75 * page.width and step > 0.3 * above.size:
        return "\n\n" if sentence_ends else "\n"
    return "\n\n" if sentence_ends and below.left - above.left > 0.8 * above.size else " "


def _levels(pages: list[PageText]) -> dict[float, int]:
    """The heading level of each font size that is used for headings."""
    sizes: Counter[float] = Counter()
    for page in pages:
        for line in page.lines:
            sizes[_rounded(line.size)] += len(line.text)
    body = max(sizes, key=sizes.__getitem__, default=0.0)
    larger = sorted((size for size in sizes if size >= _HEADING_SIZE * body > 0), reverse=True)
    return {size: min(level, 6) for level, size in enumerate(larger, 1)}


def _level(line: Line, levels: dict[float, int]) -> int | None:
    can_be_heading = len(line.text) <= _MAX_HEADING_LINE and not line.text.endswith((".", ",", ";"))
    return levels.get(_rounded(line.size)) if can_be_heading and any(map(str.isalpha, line.text)) else None


def _rounded(size: float) -> float:
    return round(size * 2) / 2


class _LineJoiner:
    """Joins lines. A word that is hyphenated at a line's end is joined, unless the document has it with a hyphen."""

    def __init__(self, pages: list[PageText]) -> None:
        self._known: set[str] | None = None
        self._pages = pages

    def join(self, above: str, below: str, gap: str) -> str:
        if above.endswith("\xad"):
            return above[:-1] + below if gap == " " else above[:-1] + gap + below
        tail = _WORD.search(above[-40:-1][::-1]) if above.endswith("-") else None
        head = _WORD.match(below)
        if gap != " " or tail is None or head is None or not above[-2].isalpha() or not below[0].islower():
            return above + gap + below
        first, second = tail[0][::-1], head[0]
        known = self._vocabulary()
        compound = f"{first}-{second}".casefold() in known and (first + second).casefold() not in known
        return above + below if compound or len(first) < 2 or len(second) < 2 else above[:-1] + below

    def _vocabulary(self) -> set[str]:
        if self._known is None:
            self._known = {
                word.casefold() for page in self._pages for line in page.lines for word in _WORD.findall(line.text)
            }
        return self._known
