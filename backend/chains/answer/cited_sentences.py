"""Which sentence of the answer a citation mark supports, and when that sentence is complete.

`marks.py` takes the marks out of the stream. `evidence.py` decides whether the passage supports the sentence.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from backend.chains.text.sentences import sentences

_TERMINALS = frozenset(".!?…。！？:")
_WINDOW = 2_000
"""Longest sentence, in code points."""
_SENTENCE_BREAK = re.compile(r"[\s。！？｡]")
_NEXT_WORD = re.compile(r"[\s。！？｡]\S")


@dataclass(frozen=True, slots=True)
class CitedSentence:
    """A sentence, `[start:end]` of the part in code points, with a mark for passage `n`."""

    n: int
    start: int
    end: int
    text: str


class SentenceTracker:
    """Follows the text of a part and finds the sentence of each mark, once that sentence is complete.

    The result depends on the text alone, not on how the stream cuts the text.
    """

    def __init__(self) -> None:
        self._text = ""
        self._offset = 0
        self._sentence = 0  # start of the last sentence with a mark
        self._pending: dict[int, list[int]] = {}  # by start of a sentence: the passages that its marks name

    @property
    def length(self) -> int:
        """Code points of the part so far."""
        return self._offset + len(self._text)

    def add(self, text: str) -> Iterator[tuple[str, list[CitedSentence]]]:
        """The same text in pieces that end where a cited sentence ends. Each piece has the cited sentences that end
        there."""
        emitted = position = 0
        base = self.length
        while self._pending and (check := self._next_check(text, position)) is not None:
            self._text += text[position:check]
            position = check
            for end, cited in self._completed():
                piece_end = max(end - base, emitted)
                yield text[emitted:piece_end], cited
                emitted = piece_end
        self._text += text[position:]
        if emitted < len(text):
            yield text[emitted:], []
        self._trim()

    def mark(self, n: int) -> list[CitedSentence]:
        """Add a mark for passage `n` at the end of the text so far. Returns its sentence if that is complete."""
        self._sentence = max(self._sentence, self.length - _WINDOW)
        spans = sentences(self._text, self._sentence - self._offset)
        if not spans:
            return []
        start, end = spans[-1]
        self._sentence = self._offset + start
        if self._text[start:end].rstrip("\"')”’»*_ ")[-1:] in _TERMINALS:
            return [self._cite(n, start, end)]
        marked = self._pending.setdefault(self._sentence, [])
        if n not in marked:
            marked.append(n)
        return []

    def close(self) -> list[CitedSentence]:
        """The cited sentences that end with the text."""
        cited = [self._cite(n, *self._span(start)) for start, marked in self._pending.items() for n in marked]
        self._pending.clear()
        return cited

    def _next_check(self, text: str, position: int) -> int | None:
        """The position after the next character that begins a word or follows a full stop: before that character, a
        sentence may have ended. None if the text has no such character."""
        last = self._text[-1:]
        if position == 0 and text and not text[0].isspace() and last and _SENTENCE_BREAK.match(last):
            return 1
        match = _NEXT_WORD.search(text, max(position - 1, 0))
        return match.end() if match is not None else None

    def _completed(self) -> list[tuple[int, list[CitedSentence]]]:
        """The pending sentences that are complete, by their end in the part."""
        by_end: dict[int, list[CitedSentence]] = {}
        last = len(self._text.rstrip())
        for start in list(self._pending):
            span = self._span(start)
            # A longer text is not a sentence: don't wait for its end.
            if span[1] < last or self.length - start > _WINDOW:
                cited = [self._cite(n, *span) for n in self._pending.pop(start)]
                by_end.setdefault(self._offset + span[1], []).extend(cited)
        return sorted(by_end.items())

    def _span(self, start: int) -> tuple[int, int]:
        """Start and end, in `_text`, of the sentence that begins at `start` of the part."""
        local = start - self._offset
        return sentences(self._text, local, local + _WINDOW)[0]

    def _cite(self, n: int, start: int, end: int) -> CitedSentence:
        return CitedSentence(n, self._offset + start, self._offset + end, self._text[start:end])

    def _trim(self) -> None:
        """Drop old text, so that the time for an answer grows only with its length."""
        if len(self._text) > 4 * _WINDOW:
            first = min(self._pending, default=self.length)
            cut = min(len(self._text) - _WINDOW, first - self._offset)
            if cut > 0:
                self._text, self._offset = self._text[cut:], self._offset + cut
