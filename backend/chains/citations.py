"""Citation marks in a model's text: found in the stream, taken out of it, tied to sentences, and checked.

Models write `[1]`, `[1, 2]`, `[[1]]`, `[^1]` or `【1】`, sometimes cut in two by the stream. `MarkFilter` holds back
what may become a mark, `SentenceTracker` knows which sentence a mark supports and when it is complete, and
`find_quote` looks for the sentence of the passage that says the same.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from backend.chains.passages import Passage, Similarity
from backend.chains.retrieval.sentences import sentences
from backend.chains.words import words

_NUMBERS = r"\d{1,3}(?:\s{0,2}[,;]\s{0,2}\d{1,3}){0,19}"
_MARK = re.compile(
    rf"[ \t]*(?:\[\[\^?\s{{0,2}}({_NUMBERS})\s{{0,2}}\]\]|\[\^?\s{{0,2}}({_NUMBERS})\s{{0,2}}\](?!\()"
    rf"|【\s{{0,2}}({_NUMBERS})[^】\n]{{0,20}}】)"
)
# What may still become a mark, or a link that looks like one: everything that a mark can begin with.
_PARTIAL = re.compile(r"[ \t]*(?:\[{1,2}\^?[\d\s,;]{0,160}\]?|【\s{0,2}(?:\d[^】\n]{0,180})?)\Z|[ \t]+\Z")
_CODE = re.compile(r"`+")
_TERMINALS = frozenset(".!?…。！？:")
_WINDOW = 4_000


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark in the stream: the numbers of the passages it names."""

    numbers: tuple[int, ...]


class MarkFilter:
    """Takes marks out of a stream of text. What stands in code (between backticks) is left as it is."""

    def __init__(self) -> None:
        self._held = ""
        self._fence: str | None = None

    def feed(self, text: str) -> Iterator[str | Mark]:
        """Text and marks in order; a possible beginning of a mark is kept for the next call."""
        text = self._held + text
        self._held = ""
        position = 0
        while position < len(text):
            if self._fence is not None:
                end = text.find(self._fence, position)
                line = text.find("\n", position, end if end >= 0 else len(text))
                if line >= 0 and len(self._fence) < 3:
                    # A backtick that nobody closes on its line is no code: the marks after it count again.
                    yield text[position : line + 1]
                    position, self._fence = line + 1, None
                    continue
                if end < 0:
                    # A closing fence may be cut in two as well.
                    keep = len(text) - len(text.rstrip("`"))
                    cut = len(text) - keep
                    if cut > position:
                        yield text[position:cut]
                    self._held = text[max(cut, position) :]
                    return
                end += len(self._fence)
                yield text[position:end]
                position, self._fence = end, None
                continue
            code = _CODE.search(text, position)
            stop = code.start() if code else len(text)
            yield from self._plain(text[position:stop], last=code is None)
            if code is None:
                return
            if code.end() == len(text):
                self._held += code.group()
                return
            yield code.group()
            position, self._fence = code.end(), code.group()

    def _plain(self, text: str, *, last: bool) -> Iterator[str | Mark]:
        position, until = 0, len(text)
        if last and (partial := _PARTIAL.search(text)) is not None:
            until, self._held = partial.start(), text[partial.start() :]
        for found in _MARK.finditer(text, 0, until):
            if found.start() > position:
                yield text[position : found.start()]
            yield _mark(found)
            position = found.end()
        if until > position:
            yield text[position:until]

    def close(self) -> Iterator[str | Mark]:
        """What was held back, at the end of the text; blanks there say nothing."""
        for piece in self.flush():
            if isinstance(piece, Mark) or piece.strip():
                yield piece

    def flush(self) -> Iterator[str | Mark]:
        """What was held back, blanks too, since something that holds no mark comes next."""
        held, self._held = self._held, ""
        position = 0
        if self._fence is None:
            for found in _MARK.finditer(held):
                if found.start() > position:
                    yield held[position : found.start()]
                yield _mark(found)
                position = found.end()
        if held[position:]:
            yield held[position:]


def _mark(found: re.Match[str]) -> Mark:
    numbers = next(group for group in found.groups() if group is not None)
    return Mark(tuple(dict.fromkeys(int(n) for n in re.findall(r"\d+", numbers))))


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


_SURE = 0.5
_POSSIBLE = 0.12
_CLOSE = 0.45


async def find_quote(sentence: str, passage: Passage, similarity: Similarity | None) -> tuple[int, int] | None:
    """Where in the document (canonical offsets) the passage supports the sentence; None if it doesn't.

    First by shared words (a share of the sentence's content words, numbers must agree), then, for paraphrase, by
    meaning.
    """
    spans = [s for s in sentences(passage.text) if s[1] - s[0] >= 3]
    if not spans:
        return None
    wanted = words(sentence)
    scored = sorted(((_overlap(wanted, passage.text[a:b]), -i, (a, b)) for i, (a, b) in enumerate(spans)), reverse=True)
    share, _, best = scored[0]
    if share < _SURE:
        if similarity is None:
            return None
        candidates = [span for _, _, span in scored[:6]]
        close = await similarity(sentence, [passage.text[a:b] for a, b in candidates])
        value, best = max(zip(close, candidates, strict=True))
        lexical = _overlap(wanted, passage.text[best[0] : best[1]])
        if value < _CLOSE or (value < _CLOSE + 0.1 and lexical < _POSSIBLE):
            return None
    return passage.start + best[0], passage.start + best[1]


def _overlap(wanted: list[str], text: str) -> float:
    if not wanted:
        return 0.0
    held = set(words(text))
    numbers = [w for w in wanted if w[0].isdigit()]
    if numbers and not any(n in held for n in numbers):
        return 0.0
    return sum(w in held for w in wanted) / len(wanted)
