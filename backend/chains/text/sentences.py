"""Finds the sentences of a text: by rules, without a model, in linear time, for languages with Western or CJK stops.

Offsets are code points.
"""

import re

# A stop with the closing marks after it, or a line break. Each match is consumed, whether it ends a sentence or not, so
# that a megabyte of dots is one step and not a quadratic search.
_CANDIDATE = re.compile(r"[.!?…]+[\"'”’»)\]*_]*|[。！？｡]+[」』”’）】]*|\n[ \t\n]*")
_WIDE = frozenset("。！？｡")
# Characters before a full stop that are checked for an abbreviation.
_LOOK_BACK = 24
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Abbreviations that never end a sentence.
_BOUND = _words(
    """
    e.g i.e dr mr mrs ms prof rev hon gen col capt lt sgt st vs cf ca approx resp incl fig figs eq eqs
    sec chap ch vol vols ed eds pp p al viz z.b d.h u.a bzw usw nr abb vgl
    """
)
# Abbreviations only if a number follows; otherwise they end a sentence.
_BEFORE_NUMBER = _words(
    """
    no nos jan feb mar apr jun jul aug sep sept oct nov dec art par tab sect ver min max
    """
)
_CLOCK = frozenset(("a.m", "p.m"))

# The beginning of a line that doesn't continue the line before it: a bullet, a number, a heading, a table, a quotation,
# code.
_OWN_LINE = re.compile(r"(?:[-*+•●◦▪‣·–—]|\(?\w{1,3}[.)])\s|#{1,6}\s|[|>]|```|~~~")
_FENCE_OR_HEADING = re.compile(r"#{1,6}\s|\||```|~~~")


def sentences(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """The offsets (start, end) of the sentences in text[start:end], in order, without white space around them.

    They don't overlap, and everything except white space is in one of them. A heading, a list item and a table's row
    count as a sentence. A newline inside of a paragraph ends a sentence only if the line was not too long for the next
    word.
    """
    end = len(text) if end is None else min(end, len(text))
    offsets: list[tuple[int, int]] = []
    begin = start
    lines = _Lines(text, start, end)
    for match in _CANDIDATE.finditer(text, start, end):
        first = match[0][0]
        if first == "\n":
            stop = lines.is_end(match.start(), match.end())
        else:
            stop = first in _WIDE or _is_end(text, begin, match.start(), match.end(), end)
        if stop:
            _append(offsets, text, begin, match.end())
            begin = match.end()
    _append(offsets, text, begin, end)
    return offsets


def _append(offsets: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    stripped = piece.strip()
    if stripped:
        start += len(piece) - len(piece.lstrip())
        offsets.append((start, start + len(stripped)))


def _is_end(text: str, begin: int, stop: int, after: int, end: int) -> bool:
    """Whether the stop at `stop` ends the sentence that began at `begin`. `after` is the offset behind the stop."""
    if after >= end:
        return True
    if not text[after].isspace():
        return False
    following = text[after : after + 80].lstrip()[:2].lstrip("\"'“‘«([*_")[:1]
    if following.islower():
        return False
    if text[stop] != "." or text[stop + 1 : stop + 2] == ".":
        return True
    return not _is_abbreviation(text[max(begin, stop - _LOOK_BACK) : stop], stop - begin, following)


def _is_abbreviation(before: str, length: int, following: str) -> bool:
    """Whether a full stop belongs to an abbreviation.

    `before` is the text before the stop, `length` the length of the sentence up to it, `following` the next character.
    """
    words = before.split()
    word = words[-1].lstrip("\"'“‘«([*_") if words and not before[-1].isspace() else ""
    lowered = word.lower()
    if lowered in _BOUND:
        return True
    if lowered in _BEFORE_NUMBER or (word.isdigit() and length <= len(before) and len(words) == 1 and len(word) < 4):
        return following.isdigit() if lowered in _BEFORE_NUMBER else True
    if len(word) == 1 and word.isalpha():
        return word != "I"
    return lowered not in _CLOCK and _DOTTED.fullmatch(word) is not None


class _Lines:
    """Distinguishes line breaks that end a sentence from breaks that only keep lines short.

    A break ends a sentence if the first word of the next line would still have fitted: if the line with that word is
    not longer than the longest line of its paragraph. Before bullets, headings and tables, it always does.
    """

    def __init__(self, text: str, start: int, end: int) -> None:
        self._text = text
        self._end = end
        self._line = start
        self._paragraph_end = -1
        self._width = 0

    def is_end(self, at: int, after: int) -> bool:
        """Whether the white space from `at` to `after`, which begins with a newline, ends a sentence.

        Call this in the order of the text.
        """
        text = self._text
        line, self._line = self._line, after
        line = max(line, text.rfind("\n", line, at) + 1)
        if after >= self._end or text.find("\n", at + 1, after) >= 0:
            return True
        if _OWN_LINE.match(text, after, self._end) or _FENCE_OR_HEADING.match(text, line, at):
            return True
        if text[after].islower():
            return False
        if at > self._paragraph_end:
            self._measure(line)
        word_end = after
        while word_end < self._end and word_end - after < self._width and not text[word_end].isspace():
            word_end += 1
        return at - line + 1 + word_end - after <= self._width

    def _measure(self, line: int) -> None:
        end = self._text.find("\n\n", line, self._end)
        self._paragraph_end = self._end if end < 0 else end
        self._width = max(map(len, self._text[line : self._paragraph_end].split("\n")))
