"""Citation marks in a model's text: found in the stream, taken out of it, tied to sentences.

Models write `[1]`, `[1, 2]`, `[[1]]`, `[^1]` or `【1】`, sometimes cut in two by the stream. `MarkFilter` holds back
what may become a mark, `SentenceTracker` knows which sentence a mark supports and when it is complete. Whether the
passage supports it is for `evidence.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from backend.chains.retrieval.sentences import sentences

_TERMINALS = frozenset(".!?…。！？:")
_WINDOW = 4_000


@dataclass(frozen=True, slots=True)
class Cited:
    """Sentence `[start:end]` of the part (code points) and the passage number that a mark gave it."""

    n: int
    start: int
    end: int
    text: str


class SentenceTracker:
    """Follows a part's text and says which sentence each mark supports, once that sentence is complete."""

    def __init__(self) -> None:
        self._text = ""
        self._offset = 0
        self._pending: list[tuple[int, int]] = []

    @property
    def length(self) -> int:
        """Code points of the part so far."""
        return self._offset + len(self._text)

    def add(self, text: str) -> Iterator[tuple[str, list[Cited]]]:
        """The text again, cut where a cited sentence ends, each piece with the citations that come after it."""
        before = self.length
        self._text += text
        given = before
        for end, cited in self._completed():
            cut = max(end, given)
            yield self._between(given, cut), cited
            given = cut
        if given < self.length:
            yield self._between(given, self.length), []
        self._forget()

    def mark(self, n: int) -> list[Cited]:
        """A mark for passage `n` stands here. The citation, if its sentence is complete already."""
        spans = sentences(self._text)
        if not spans:
            return []
        start, end = spans[-1]
        if self._text[:end].rstrip("\"')”’»*_ ")[-1:] in _TERMINALS:
            return [self._cited(n, start, end)]
        self._pending.append((n, self._offset + start))
        return []

    def close(self) -> list[Cited]:
        """The citations of the last sentence, which has no end but the text's."""
        spans = sentences(self._text)
        cited = [
            self._cited(n, start - self._offset, _end_from(spans, start - self._offset)) for n, start in self._pending
        ]
        self._pending.clear()
        return cited

    def _completed(self) -> list[tuple[int, list[Cited]]]:
        """(end of sentence, its citations) of all pending marks whose sentence has been left behind."""
        if not self._pending:
            return []
        spans = sentences(self._text)
        done: dict[int, list[Cited]] = {}
        waiting: list[tuple[int, int]] = []
        for n, start in self._pending:
            local = start - self._offset
            end = _end_from(spans, local)
            if end < len(self._text.rstrip()) or "\n" in self._text[end:]:
                done.setdefault(self._offset + end, []).append(self._cited(n, local, end))
            else:
                waiting.append((n, start))
        self._pending = waiting
        return sorted(done.items())

    def _cited(self, n: int, start: int, end: int) -> Cited:
        return Cited(n, self._offset + start, self._offset + end, self._text[start:end])

    def _between(self, start: int, end: int) -> str:
        return self._text[start - self._offset : end - self._offset]

    def _forget(self) -> None:
        """Keep a window only, so that a long answer stays linear."""
        if len(self._text) > 2 * _WINDOW:
            first = min((start for _, start in self._pending), default=self.length)
            cut = min(len(self._text) - _WINDOW, first - self._offset)
            if cut > 0:
                self._text, self._offset = self._text[cut:], self._offset + cut


def _end_from(spans: list[tuple[int, int]], start: int) -> int:
    for _, end in spans:
        if end > start:
            return end
    return start
