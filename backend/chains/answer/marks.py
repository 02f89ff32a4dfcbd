"""Citation marks in a model's text, found in the stream and taken out of it, in all the forms that models write.

`[1]`, `[1, 2]`, `[1-3]`, `[1][2]`, `[[1]]`, `[^1]`, `【1】`, `【1†source】`, `[1†L3-L5]`, `[1, p. 4]`, `[Source 1]`,
`(Passage 2)`, `fact.¹`. What may still become a mark is held back; what stands in code or display math is left as it
is, and so is what only looks like a mark: an index, a link, a list of references.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

_LONGEST = 200
_BLANKS = 16
_WORD = r"(?:sources?|passages?|documents?|docs?|references?|refs?|citations?)"
_NAMES = ("sources", "passages", "documents", "docs", "references", "refs", "citations")
_INSIDE = (*_NAMES, "and", "pages", "pp", "lines", "l")
_LABEL = rf"{_WORD}\.?[ \t]{{0,2}}[:#]?[ \t]{{0,2}}"
_PLACE = r"[,:;]?[ \t]{0,2}(?:pp?\.?|pages?|lines?|L|§)[ \t]{0,2}\d{1,4}(?:[-–—]L?\d{1,4})?"
_ITEM = rf"(?:{_LABEL})?\d{{1,3}}(?!\d)(?:[ \t]?[-–—][ \t]?\d{{1,3}}(?!\d))?(?:{_PLACE})?"
_LIST = rf"{_ITEM}(?:(?:[ \t]{{0,2}}[,;&][ \t]{{0,2}}|[ \t]and[ \t]){_ITEM}){{0,19}}"
_TAIL = r"(?:†[^\]】\n]{0,80})?"
_NAMED = rf"{_LABEL}\d{{1,3}}[:,][ \t][^\[\]\n]{{1,80}}"
_MARK = (
    rf"(?:\[\[\^?[ \t]{{0,2}}{_LIST}{_TAIL}[ \t]{{0,2}}\]\]|\[\^?[ \t]{{0,2}}(?:{_LIST}{_TAIL}|{_NAMED})[ \t]{{0,2}}\]"
    rf"|【[ \t]{{0,2}}(?:\d{{1,3}}:)?{_LIST}{_TAIL}[ \t]{{0,2}}】|\({_LABEL}{_LIST}\))"
)
_SUPERS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_SUPER = re.compile(rf"[{_SUPERS}]{{1,3}}(?:[,ʼ˒][{_SUPERS}]{{1,3}}){{0,5}}(?![{_SUPERS}])")
_TO_DIGITS = str.maketrans(_SUPERS, "0123456789")
# The beginning of a mark that the text's end cut.
_BEGUN = re.compile(r"(?:\[{1,2}\^?|【|\()([^\[\]【】\n)]{0,200})\]?\Z")
_AFTER_RUN = re.compile(r"[ \t]{0,16},?[ \t]{0,2}")
_STOP = re.compile(rf"[\[【(]|[{_SUPERS}]|`{{1,200}}|~{{3,200}}|\$\$|\\[\[(]")
_UNDECIDED = re.compile(r"(?:`+|~+|\$|\\)\Z")

# Where a mark is left in the text. An index of a list: items[0], a[1] = 2, f[1](x).
_INDEXED = re.compile(r"[ \t]*(?:=|\+=)|[\w(\[{]|\.\w")
_IDENTIFIER = re.compile(r"(?:[\w.]*(?:_|\d)\w*|[\\_^{}]|[a-z]+[A-Z]\w*)\Z")
# A line that lists sources, or the beginning of one.
_LISTS = re.compile(
    r"[\W_]*(?:sources?|references?|citations?|footnotes?|bibliography|quellen?|literatur|fuentes|r[eé]f[eé]rences)"
    r"\b[\W_]{0,4}:",
    re.I,
)
_LINE_START = re.compile(r"[ \t]*(?:(?:[-*•+>]|\d{1,2}[.)])[ \t]*)?\Z")
# Without the mark these would be cut: "according to [1]".
_NEEDS = re.compile(
    rf"\b(?:in|to|from|by|per|see|of|under|both|and|or|within|{_WORD}|laut|nach|siehe|aus|selon|según)[ \t]*\Z", re.I
)
_ENDED = re.compile(r"[.!?…][\"'”’»)*_]*[ \t]*\Z")
# Before a superscript: a stop, or a word that is no unit.
_NOTED = re.compile(r"(?:[.,;:!?。\"”’»]|[^\W\d_]{4,})\Z")
_UNIT = re.compile(r"(?:met(?:er|re)s?|inch(?:es)?|feet|foot|yards?|miles?|seconds?|hours?)\Z", re.I)


# Compiled at first use: it takes 15 ms, which the server would need before its port is open.
@cache
def _run_pattern() -> re.Pattern[str]:
    return re.compile(rf"{_MARK}(?:[ \t]{{0,2}},?[ \t]{{0,2}}{_MARK}){{0,7}}", re.I)


@cache
def _mark_pattern() -> re.Pattern[str]:
    return re.compile(_MARK, re.I)


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark in the stream: the numbers of the passages it names."""

    numbers: tuple[int, ...]


class MarkFilter:
    """Takes marks out of a stream of text. `count` passages were given. However the text is cut, the outcome is one."""

    def __init__(self, count: int = 99) -> None:
        self._count = count
        self._held: str = ""
        self._code: _Code | None = None
        self._line = ""  # how the line begins
        self._before = ""  # how it goes on, up to here

    def feed(self, text: str) -> Iterator[str | Mark]:
        """Text and marks in order; a possible beginning of a mark is kept for the next call."""
        return self._scan(text, closing=False)

    def close(self) -> Iterator[str | Mark]:
        """What was held back, at the end of the text; blanks there say nothing."""
        return (piece for piece in self.flush() if isinstance(piece, Mark) or piece.strip())

    def flush(self) -> Iterator[str | Mark]:
        """What was held back, blanks too, since something that holds no mark comes next."""
        return self._scan("", closing=True)

    def _scan(self, text: str, *, closing: bool) -> Iterator[str | Mark]:
        text = self._held + text
        self._held = ""
        position = 0
        while position < len(text):
            if self._code is not None:
                end = self._code.goes_to(text, position, closing)
                if self._code.closed:
                    self._code = None
                elif not closing:
                    self._held = text[end:]
                if end > position:
                    yield self._text(text[position:end])
                if self._held:
                    return
                position = end
                continue
            outcome = self._plain(text, position, closing)
            yield from outcome.pieces
            if outcome.held:
                self._held = text[outcome.end :]
                return
            position = outcome.end

    def _plain(self, text: str, position: int, closing: bool) -> "_Outcome":
        """Up to the next mark or code, and that."""
        found = _STOP.search(text, position)
        if found is None:
            end = len(text) if closing else len(text) - _open_end(text, position)
            return _Outcome(self._pieces(text[position:end]), end, held=end < len(text))
        start = found.start()
        first = text[start]
        if first in "`~$\\":
            if found.end() == len(text) and first != "$" and first != "\\" and not closing:
                return _Outcome(self._pieces(text[position:start]), start, held=True)
            self._code = _Code(found.group())
            return _Outcome(self._pieces(text[position : found.end()]), found.end())
        return self._mark(text, position, start, closing)

    def _mark(self, text: str, position: int, start: int, closing: bool) -> "_Outcome":
        """A mark may stand at `start`."""
        blank = max(position, start - _BLANKS)
        blank += len(text[blank:start].rstrip(" \t"))
        run = (_SUPER if text[start] in _SUPERS else _run_pattern()).match(text, start)
        if run is not None and all(m.end() - m.start() <= _LONGEST for m in _mark_pattern().finditer(run.group())):
            if not closing and _undecided(text, run.end(), glued=blank == start):
                return _Outcome(self._pieces(text[position:blank]), blank, held=True)
            pieces = self._pieces(text[position:blank])
            return _Outcome([*pieces, *self._decide(text, blank, run)], run.end())
        if not closing and _may_become(text[start:]):
            return _Outcome(self._pieces(text[position:blank]), blank, held=True)
        return _Outcome(self._pieces(text[position : start + 1]), start + 1)

    def _decide(self, text: str, blank: int, run: re.Match[str]) -> list[str | Mark]:
        """The marks of a run; with their text where the text needs it, and only that where they are none."""
        whole = text[blank : run.end()]
        glued = blank == run.start() and self._before[-1:].strip() != ""
        after = text[run.end() : run.end() + _BLANKS + 2]
        following = after.lstrip(" \t")[:1]
        if text[run.start()] in _SUPERS:
            numbers = self._noted(run.group())
            return [Mark(numbers)] if numbers and glued else self._pieces(whole)
        numbers = tuple(
            dict.fromkeys(n for one in _mark_pattern().finditer(run.group()) for n in _numbers(one.group()))
        )
        begins_line = _LINE_START.fullmatch(self._line + self._before if self._line != self._before else self._line)
        listed = begins_line and following not in ("", "\n", "\r", *".,;!?)")
        link = after[:1] == "(" and run.group()[0] == "["
        index = glued and (0 in numbers or _INDEXED.match(after) or _IDENTIFIER.search(self._before))
        if listed or link or index or _LISTS.match(self._line):
            return self._pieces(whole)
        marks: list[str | Mark] = [Mark(numbers)]
        if not glued and (_NEEDS.search(self._before) or (_ENDED.search(self._before) and following.islower())):
            return [*self._pieces(whole), *marks]
        return marks

    def _noted(self, run: str) -> tuple[int, ...]:
        """The numbers of a superscript; none where it is an exponent."""
        if not _NOTED.search(self._before) or _UNIT.search(self._before):
            return ()
        numbers: list[int] = []
        for group in re.findall(r"\d+", run.translate(_TO_DIGITS)):
            # ¹² may be twelve, or one and two.
            numbers += [int(group)] if int(group) <= self._count else [int(digit) for digit in group]
        return tuple(dict.fromkeys(numbers)) if all(1 <= n <= self._count for n in numbers) else ()

    def _pieces(self, text: str) -> list[str | Mark]:
        return [self._text(text)] if text else []

    def _text(self, text: str) -> str:
        """The text, remembered as what stands before the next mark."""
        line = text.rfind("\n")
        if line >= 0:
            self._line = self._before = ""
        rest = text[line + 1 :]
        if len(self._line) < _LONGEST:
            self._line = (self._line + rest)[:_LONGEST]
        self._before = (self._before + rest)[-_LONGEST:]
        return text


@dataclass(slots=True)
class _Outcome:
    """Pieces to give, the position up to which the text is dealt with, and whether the rest must wait."""

    pieces: list[str | Mark]
    end: int
    held: bool = False


class _Code:
    """What an opening mark of code or math opens. One that nobody closes in time opens nothing."""

    def __init__(self, opening: str) -> None:
        self._close = {"\\[": "\\]", "\\(": "\\)"}.get(opening, opening)
        fence = opening[0] in "`~" and len(opening) >= 3
        self._limit = None if fence else "\n\n" if opening in ("$$", "\\[") else "\n"
        self.closed = False

    def goes_to(self, text: str, position: int, closing: bool) -> int:
        """How far the text surely belongs to it; sets `closed` when it ends there."""
        end = text.find(self._close, position)
        if self._limit is not None:
            limit = text.find(self._limit, position, end if end >= 0 else len(text))
            if limit >= 0:
                self.closed = True
                return limit + len(self._limit)
        if end >= 0:
            self.closed = True
            return end + len(self._close)
        if closing:
            return len(text)
        # A closing mark may be cut in two as well.
        cut = len(text) - len(text[position:].rstrip(self._close[0])) - position if self._close[0] in "`~" else 0
        if not cut and text[-1] in (self._close[0], (self._limit or " ")[0]) and len(self._close) > 1:
            cut = 1
        return len(text) - min(cut, len(self._close) - 1)


def _open_end(text: str, position: int) -> int:
    """Of a text without marks: how many characters at its end must wait, since a mark or code may begin there."""
    if (found := _UNDECIDED.search(text, max(position, len(text) - _LONGEST))) is not None:
        return len(text) - found.start()
    last = text[max(position, len(text) - _BLANKS) :]
    return len(last) - len(last.rstrip(" \t"))


def _undecided(text: str, end: int, *, glued: bool) -> bool:
    """Whether what follows a run of marks must be known first: another mark, or what makes it no mark."""
    after = text[end : end + _LONGEST + _BLANKS + 4]
    if not after.strip(" \t") or (glued and after == "."):
        return len(after) <= _BLANKS
    gap = _AFTER_RUN.match(after)
    rest = after[gap.end() :] if gap is not None else after
    return not rest or (rest[0] in "[【(" and not _run_pattern().match(rest) and _may_become(rest))


def _may_become(rest: str) -> bool:
    """Whether a mark may still come of this, when more text comes."""
    if len(rest) > _LONGEST:
        return False
    if rest[0] in _SUPERS:
        return True
    begun = _BEGUN.fullmatch(rest)
    if begun is None:
        return False
    inside = begun[1].partition("†")[0].strip().casefold()
    names = re.findall(r"[^\W\d_]+", inside)
    if rest[0] == "(" and not names:
        return not inside
    if names and re.match(rf"{_LABEL}\d{{1,3}}[:,]", inside):
        return len(inside) < _LONGEST - 100
    *whole, last = names or [""]
    return (
        re.match(r"\d{4}", inside) is None
        and all(any(name.startswith(w) for name in _INSIDE) for w in whole)
        and any(name.startswith(last) for name in _INSIDE)
    )


def _numbers(mark: str) -> list[int]:
    """The passages that one mark names, ranges written out."""
    body = mark.partition("†")[0]
    if body[0] == "【":
        body = body.rpartition(":")[2]
    if (named := re.match(rf"[\[^ \t]*{_LABEL}(\d{{1,3}})[:,][ \t](?![^\d]*\d)", body, re.I)) is not None:
        return [int(named[1])]
    body = re.sub(_PLACE, "", body, flags=re.I)
    numbers: list[int] = []
    for first, last in re.findall(r"(\d{1,3})(?:[ \t]?[-–—][ \t]?(\d{1,3}))?", body):
        low, high = int(first), int(last or first)
        numbers += range(low, high + 1) if low <= high <= low + 19 else [low, high]
    return numbers
