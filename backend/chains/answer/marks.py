"""Finds citation marks in a model's stream and removes them from the text, in all the forms that models write.

`[1]`, `[1, 2]`, `[1-3]`, `[1][2]`, `[[1]]`, `[^1]`, `【1】`, `【1†source】`, `[1†L3-L5]`, `[1, p. 4]`, `[Source 1]`,
`(Passage 2)`, `fact.¹`. Text that may still become a mark is held back. Code and display math are not changed, and
neither are numbers in brackets that name no source, or that only look like marks (see `chains/text/lookalikes.py`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from backend.chains.text.lookalikes import Surroundings, is_bare, looks_like_text

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
# The beginning of a mark at the end of the text.
_MARK_PREFIX = re.compile(r"(?:\[{1,2}\^?|【|\()([^\[\]【】\n)]{0,200})\]?\Z")
_AFTER_RUN = re.compile(r"[ \t]{0,16},?[ \t]{0,2}")
_STOP = re.compile(rf"[\[【(]|[{_SUPERS}]|`{{1,200}}|~{{3,200}}|\$\$|\\[\[(]")
_CODE_PREFIX = re.compile(r"(?:`+|~+|\$|\\)\Z")

# Without the mark these phrases would be incomplete: "according to [1]".
_NEEDS_MARK = re.compile(
    rf"\b(?:in|to|from|by|per|see|of|under|both|and|or|within|{_WORD}|laut|nach|siehe|aus|selon|según)[ \t]*\Z", re.I
)
_SENTENCE_END = re.compile(r"[.!?…][\"'”’»)*_]*[ \t]*\Z")
# Before a superscript that is a mark: punctuation, or a word that is not a unit.
_BEFORE_SUPERSCRIPT = re.compile(r"(?:[.,;:!?。\"”’»]|[^\W\d_]{4,})\Z")
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
    """A mark in the stream, with the numbers of the passages that it names."""

    numbers: tuple[int, ...]


class MarkFilter:
    """Removes marks from a stream of text. The model was given `count` passages: a bare `[n]` beyond them stays. The
    result doesn't depend on how the stream cuts the text."""

    def __init__(self, count: int = 99) -> None:
        self._count = count
        self._buffer: str = ""
        self._code: _Code | None = None
        self._line = ""  # the beginning of the line
        self._before = ""  # the last text of the line
        self._previous_end = ""  # the last character of the line before

    def feed(self, text: str) -> Iterator[str | Mark]:
        """Text and marks in order. Text at the end that may begin a mark is held back for the next call."""
        return self._scan(text, closing=False)

    def close(self) -> Iterator[str | Mark]:
        """The text and marks that were held back, without blanks; the text has ended."""
        return (piece for piece in self.flush() if isinstance(piece, Mark) or piece.strip())

    def flush(self) -> Iterator[str | Mark]:
        """The text and marks that were held back, with blanks; text without marks follows."""
        return self._scan("", closing=True)

    def _scan(self, text: str, *, closing: bool) -> Iterator[str | Mark]:
        text = self._buffer + text
        self._buffer = ""
        position = 0
        while position < len(text):
            if self._code is not None:
                end = self._code.end_of_code(text, position, closing)
                if self._code.closed:
                    self._code = None
                elif not closing:
                    self._buffer = text[end:]
                if end > position:
                    yield self._text(text[position:end])
                if self._buffer:
                    return
                position = end
                continue
            outcome = self._plain(text, position, closing)
            yield from outcome.pieces
            if outcome.must_wait:
                self._buffer = text[outcome.end :]
                return
            position = outcome.end

    def _plain(self, text: str, position: int, closing: bool) -> "_Outcome":
        """The text up to the next mark, and the mark; or the text up to the code that begins next."""
        match = _STOP.search(text, position)
        if match is None:
            end = len(text) if closing else len(text) - _undecided_length(text, position)
            return _Outcome(self._pieces(text[position:end]), end, must_wait=end < len(text))
        start = match.start()
        first = text[start]
        if first in "`~$\\":
            if match.end() == len(text) and first != "$" and first != "\\" and not closing:
                return _Outcome(self._pieces(text[position:start]), start, must_wait=True)
            self._code = _Code(match.group())
            return _Outcome(self._pieces(text[position : match.end()]), match.end())
        return self._mark(text, position, start, closing)

    def _mark(self, text: str, position: int, start: int, closing: bool) -> "_Outcome":
        """The text up to `start`, and the mark that begins there, if it is a mark."""
        blank = max(position, start - _BLANKS)
        blank += len(text[blank:start].rstrip(" \t"))
        run = (_SUPER if text[start] in _SUPERS else _run_pattern()).match(text, start)
        if run is not None and all(m.end() - m.start() <= _LONGEST for m in _mark_pattern().finditer(run.group())):
            if not closing and _undecided(text, run.end(), is_attached=blank == start):
                return _Outcome(self._pieces(text[position:blank]), blank, must_wait=True)
            pieces = self._pieces(text[position:blank])
            return _Outcome([*pieces, *self._decide(text, blank, run)], run.end())
        if not closing and _may_become(text[start:]):
            return _Outcome(self._pieces(text[position:blank]), blank, must_wait=True)
        return _Outcome(self._pieces(text[position : start + 1]), start + 1)

    def _decide(self, text: str, blank: int, run: re.Match[str]) -> list[str | Mark]:
        """The marks of a run, and their text too if the sentence needs it; or only their text if they are no marks."""
        whole = text[blank : run.end()]
        around = Surroundings(
            line=self._line,
            before=self._before,
            after=text[run.end() : run.end() + _BLANKS + 2],
            is_attached=blank == run.start() and self._before[-1:].strip() != "",
            previous_line_end=self._previous_end,
        )
        if text[run.start()] in _SUPERS:
            numbers = self._superscript_numbers(run.group())
            return [Mark(numbers)] if numbers and around.is_attached else self._pieces(whole)
        marks = [(mark, tuple(dict.fromkeys(_numbers(mark.group())))) for mark in _mark_pattern().finditer(run.group())]
        numbers = tuple(dict.fromkeys(n for _, named in marks for n in named))
        if looks_like_text(run.group(), numbers, around):
            return self._pieces(whole)
        if not all(1 <= n <= self._count for n in numbers) and (is_bare(run.group()) or "[^" in run.group()):
            return self._only_sources(whole, run.start() - blank, marks)
        if not around.is_attached and (
            _NEEDS_MARK.search(self._before) or (_SENTENCE_END.search(self._before) and around.following.islower())
        ):
            return [*self._pieces(whole), Mark(numbers)]
        return [Mark(numbers)]

    def _only_sources(
        self, whole: str, start: int, marks: list[tuple[re.Match[str], tuple[int, ...]]]
    ) -> list[str | Mark]:
        """The marks of a run that name sources, and the other brackets as text. `whole` has `start` blanks before the
        run. If one of the brackets holds several numbers, all of them are text: the rows of a matrix."""
        if any(len(numbers) > 1 for _, numbers in marks):
            return self._pieces(whole)
        pieces: list[str | Mark] = []
        before = whole[:start]
        for mark, (number,) in marks:
            if 1 <= number <= self._count:
                pieces.append(Mark((number,)))
            else:
                pieces += self._pieces(before + mark.group())
                before = ""
        return pieces

    def _superscript_numbers(self, run: str) -> tuple[int, ...]:
        """The passages that a superscript names; none if it is an exponent."""
        if not _BEFORE_SUPERSCRIPT.search(self._before) or _UNIT.search(self._before):
            return ()
        numbers: list[int] = []
        for group in re.findall(r"\d+", run.translate(_TO_DIGITS)):
            # ¹² may be twelve, or one and two.
            numbers += [int(group)] if int(group) <= self._count else [int(digit) for digit in group]
        return tuple(dict.fromkeys(numbers)) if all(1 <= n <= self._count for n in numbers) else ()

    def _pieces(self, text: str) -> list[str | Mark]:
        return [self._text(text)] if text else []

    def _text(self, text: str) -> str:
        """The same text. It is also recorded as the text before the next mark."""
        line = text.rfind("\n")
        if line >= 0:
            self._previous_end = (self._before + text[:line]).rstrip()[-1:] or self._previous_end
            self._line = self._before = ""
        rest = text[line + 1 :]
        if len(self._line) < _LONGEST:
            self._line = (self._line + rest)[:_LONGEST]
        self._before = (self._before + rest)[-_LONGEST:]
        return text


@dataclass(slots=True)
class _Outcome:
    """Pieces to emit, the position after the text that they come from, and whether the rest must wait for more text."""

    pieces: list[str | Mark]
    end: int
    must_wait: bool = False


class _Code:
    """Code or math after its opening characters. If it isn't closed in time, it ends at its limit."""

    def __init__(self, opening: str) -> None:
        self._close = {"\\[": "\\]", "\\(": "\\)"}.get(opening, opening)
        fence = opening[0] in "`~" and len(opening) >= 3
        self._limit = None if fence else "\n\n" if opening in ("$$", "\\[") else "\n"
        self.closed = False

    def end_of_code(self, text: str, position: int, closing: bool) -> int:
        """The position up to which the text certainly belongs to the code. Sets `closed` if the code ends there."""
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
        # The closing characters may be cut in two.
        undecided = len(text) - len(text[position:].rstrip(self._close[0])) - position if self._close[0] in "`~" else 0
        if not undecided and text[-1] in (self._close[0], (self._limit or " ")[0]) and len(self._close) > 1:
            undecided = 1
        return len(text) - min(undecided, len(self._close) - 1)


def _undecided_length(text: str, position: int) -> int:
    """How many characters at the end of a text without marks must wait, since a mark or code may begin there."""
    if (match := _CODE_PREFIX.search(text, max(position, len(text) - _LONGEST))) is not None:
        return len(text) - match.start()
    last = text[max(position, len(text) - _BLANKS) :]
    return len(last) - len(last.rstrip(" \t"))


def _undecided(text: str, end: int, *, is_attached: bool) -> bool:
    """Whether more text is needed after a run of marks: another mark may follow, or text that makes it no mark."""
    after = text[end : end + _LONGEST + _BLANKS + 4]
    if not after.strip(" \t") or (is_attached and after == "."):
        return len(after) <= _BLANKS
    gap = _AFTER_RUN.match(after)
    rest = after[gap.end() :] if gap is not None else after
    return not rest or (rest[0] in "[【(" and not _run_pattern().match(rest) and _may_become(rest))


def _may_become(rest: str) -> bool:
    """Whether this may become a mark if more text follows."""
    if len(rest) > _LONGEST:
        return False
    if rest[0] in _SUPERS:
        return True
    prefix = _MARK_PREFIX.fullmatch(rest)
    if prefix is None:
        return False
    inside = prefix[1].partition("†")[0].strip().casefold()
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
    """The passages that one mark names; a range names each passage in it."""
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
