"""Citation marks in a model's text: found in the stream, taken out of it, tied to sentences.

Models write `[1]`, `[1, 2]`, `[[1]]`, `[^1]` or `【1】`, sometimes cut in two by the stream. `MarkFilter` holds back
what may become a mark, `SentenceTracker` knows which sentence a mark supports and when it is complete. Whether the
passage supports it is for `evidence.py`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from backend.chains.text.sentences import sentences

_TERMINALS = frozenset(".!?…。！？:")
_WINDOW = 2_000
"""Longest sentence, in code points."""
_BREAK = re.compile(r"[\s。！？｡]")
_LOOK = re.compile(r"[\s。！？｡]\S")


@dataclass(frozen=True, slots=True)
class Cited:
    """Sentence `[start:end]` of the part (code points) and the passage number that a mark gave it."""

    n: int
    start: int
    end: int
    text: str


class SentenceTracker:
    """Follows a part's text and says which sentence each mark supports, once that sentence is complete.

    When it looks depends on the text alone: however the stream cuts it, the outcome is one.
    """

    def __init__(self) -> None:
        self._text = ""
        self._offset = 0
        self._sentence = 0  # where the last sentence with a mark began
        self._pending: dict[int, list[int]] = {}  # where a sentence began, and the passages that its marks name

    @property
    def length(self) -> int:
        """Code points of the part so far."""
        return self._offset + len(self._text)

    def add(self, text: str) -> Iterator[tuple[str, list[Cited]]]:
        """The text again, cut where a cited sentence ends, each piece with the citations that come after it."""
        given = position = 0
        base = self.length
        while self._pending and (look := self._next_look(text, position)) is not None:
            self._text += text[position:look]
            position = look
            for end, cited in self._completed():
                cut = max(end - base, given)
                yield text[given:cut], cited
                given = cut
        self._text += text[position:]
        if given < len(text):
            yield text[given:], []
        self._forget()

    def mark(self, n: int) -> list[Cited]:
        """A mark for passage `n` stands here. The citation, if its sentence is complete already."""
        self._sentence = max(self._sentence, self.length - _WINDOW)
        spans = sentences(self._text, self._sentence - self._offset)
        if not spans:
            return []
        start, end = spans[-1]
        self._sentence = self._offset + start
        if self._text[start:end].rstrip("\"')”’»*_ ")[-1:] in _TERMINALS:
            return [self._cited(n, start, end)]
        marked = self._pending.setdefault(self._sentence, [])
        if n not in marked:
            marked.append(n)
        return []

    def close(self) -> list[Cited]:
        """The citations of the last sentence, which has no end but the text's."""
        cited = [self._cited(n, *self._span(start)) for start, marked in self._pending.items() for n in marked]
        self._pending.clear()
        return cited

    def _next_look(self, text: str, position: int) -> int | None:
        """Behind the next character that begins a word, or follows a stop without a blank: a sentence may be over."""
        if position == 0 and text and not text[0].isspace() and self._text[-1:] and _BREAK.match(self._text[-1]):
            return 1
        found = _LOOK.search(text, max(position - 1, 0))
        return found.end() if found is not None else None

    def _completed(self) -> list[tuple[int, list[Cited]]]:
        """(end of sentence, its citations) of all pending marks whose sentence has been left behind."""
        done: dict[int, list[Cited]] = {}
        last = len(self._text.rstrip())
        for start in list(self._pending):
            span = self._span(start)
            # What goes on for so long is no sentence.
            if span[1] < last or self.length - start > _WINDOW:
                cited = [self._cited(n, *span) for n in self._pending.pop(start)]
                done.setdefault(self._offset + span[1], []).extend(cited)
        return sorted(done.items())

    def _span(self, start: int) -> tuple[int, int]:
        """The sentence that begins at `start` of the part, as it is now."""
        local = start - self._offset
        return sentences(self._text, local, local + _WINDOW)[0]

    def _cited(self, n: int, start: int, end: int) -> Cited:
        return Cited(n, self._offset + start, self._offset + end, self._text[start:end])

    def _forget(self) -> None:
        """Keep a window only, so that a long answer stays linear."""
        if len(self._text) > 4 * _WINDOW:
            first = min(self._pending, default=self.length)
            cut = min(len(self._text) - _WINDOW, first - self._offset)
            if cut > 0:
                self._text, self._offset = self._text[cut:], self._offset + cut
