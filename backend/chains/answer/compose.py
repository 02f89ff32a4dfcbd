"""Turns a model's outputs into events: parts, deltas and citations. Removes citation marks and breaks unknown links."""

from collections.abc import AsyncIterator, Iterator
from typing import Literal

from backend import events as ev
from backend.chains.answer.cited_sentences import CitedSentence, SentenceTracker
from backend.chains.answer.evidence import Evidence
from backend.chains.answer.links import LinkFilter
from backend.chains.answer.marks import Mark, MarkFilter
from backend.chains.answer.urls import KnownUrls
from backend.chains.models.prompt import Finish, Output, Quote, Reasoning, Text, ThoughtEnd, Tokens
from backend.chains.passages import Passage, Retriever
from backend.kit.text import clean_text

_MAX_REASON = 100
"""Characters of a finish reason that are kept. A provider may send any text."""


def source_id(n: int) -> str:
    """The id of the answer's nth source."""
    return f"s{n}"


class Composer:
    """Turns a model's outputs into events. One part is open at a time. `known` are the URLs that may stay links; with
    None, all links stay. With `is_json`, the text follows a schema: it is left as it is."""

    def __init__(
        self,
        passages: list[Passage],
        retriever: Retriever | None,
        known: KnownUrls | None = None,
        *,
        is_json: bool = False,
    ) -> None:
        self._passages = passages
        self._retriever = retriever
        self._is_json = is_json
        self._known = known if not is_json else None
        self._evidence = Evidence(passages, retriever.similarity) if retriever is not None else None
        self._unmarked_text: list[str] | None = []
        self._open: Literal["text", "reasoning"] | None = None
        self._part_id = ""
        self._count = 0
        self._marks = MarkFilter(len(passages))
        self._links: LinkFilter[Mark] | None = None
        self._tracker = SentenceTracker()
        self._sent_citations: set[tuple[int, int, int]] = set()
        self._dropped = 0
        self.tokens: Tokens | None = None
        self.reason = "stop"
        self.length = 0
        """Bytes of text and reasoning that the model wrote."""
        self.earlier_length = 0
        """Bytes that earlier models of the same answer wrote."""

    async def add(self, output: Output) -> AsyncIterator[ev.AnyEvent]:
        """The deltas and citations of one output. If its part is not open yet, the end of the open part and the start
        of a new one come first."""
        kind = "text" if isinstance(output, Text | Quote) else "reasoning" if isinstance(output, Reasoning) else None
        if kind is not None and kind != self._open:
            async for event in self.close():
                yield event
            yield self._begin(kind)
        match output:
            case Tokens():
                self.tokens = output
            case Finish(reason):
                self.reason = clean_text(reason)[:_MAX_REASON]
            case ThoughtEnd():
                for event in self._end_thought():
                    yield event
            case Quote():
                async for event in self._quote(output):
                    yield event
            case Reasoning(text) | Text(text):
                self.length += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
                for piece in self._pieces(clean_text(text)):
                    async for event in self._piece(piece):
                        yield event

    def _begin(self, kind: Literal["text", "reasoning"]) -> ev.AnyEvent:
        self._count += 1
        self._open, self._part_id = kind, f"p{self._count}"
        self._marks, self._tracker = MarkFilter(len(self._passages)), SentenceTracker()
        self._links = LinkFilter(self._known) if self._known is not None else None
        self._sent_citations.clear()
        self._dropped = 0
        if self._unmarked_text:
            self._unmarked_text = []
        return ev.TextStart(part_id=self._part_id) if kind == "text" else ev.ReasoningStart(part_id=self._part_id)

    @property
    def _cites(self) -> bool:
        """Whether the open part may hold marks."""
        return self._open == "text" and bool(self._passages) and not self._is_json

    def _pieces(self, text: str) -> Iterator[str | Mark]:
        """The next text of the open part, without marks and unknown links. Marks are removed first, since that may
        join the two halves of a link."""
        for piece in self._marks.feed(text) if self._cites else [text] if text else []:
            yield from self._links.feed(piece) if self._links is not None else [piece]

    def _buffered(self, *, blanks: bool = False) -> Iterator[str | Mark]:
        """The text of the open part that was held back. `blanks`: with the blanks at its end, because more text
        follows."""
        if self._cites:
            for piece in self._marks.flush() if blanks else self._marks.close():
                yield from self._links.feed(piece) if self._links is not None else [piece]
        if self._open is not None and self._links is not None:
            yield from self._links.close()

    async def close(self) -> AsyncIterator[ev.AnyEvent]:
        """The text that was held back, the last citations, and the end of the part."""
        for piece in self._buffered():
            async for event in self._piece(piece):
                yield event
        if self._cites:
            async for event in self._cite(self._tracker.close()):
                yield event
        if self._open == "text":
            async for event in self._matched_citations():
                yield event
        for event in self._end():
            yield event

    def stop(self) -> list[ev.AnyEvent]:
        """The end of an answer that was stopped: the text that was held back, but no more citations."""
        return [*(self._delta(piece) for piece in self._buffered() if isinstance(piece, str)), *self._end()]

    def reset(self) -> None:
        """Forget the usage and the finish reason of the last model, since another model takes over."""
        self.earlier_length += self.length
        self.tokens, self.reason, self.length = None, "stop", 0
        self._unmarked_text = []

    def _end_thought(self) -> list[ev.AnyEvent]:
        """The end of a text part that turned out to be reasoning, without citations."""
        if self._open != "text":
            return []
        pieces = [self._delta(piece) for piece in self._buffered() if isinstance(piece, str)]
        unlinked = self._links.broken if self._links is not None else 0
        self._open, self._unmarked_text = None, []
        return [*pieces, ev.TextEnd(part_id=self._part_id, unlinked=unlinked, thought=True)]

    def _end(self) -> list[ev.AnyEvent]:
        """The end of the open part."""
        kind, self._open = self._open, None
        broken = self._links.broken if self._links is not None else 0
        if kind is None:
            return []
        if kind == "reasoning":
            return [ev.ReasoningEnd(part_id=self._part_id, unlinked=broken)]
        return [ev.TextEnd(part_id=self._part_id, dropped=self._dropped, unlinked=broken)]

    def _delta(self, text: str) -> ev.AnyEvent:
        if self._open == "reasoning":
            return ev.ReasoningDelta(part_id=self._part_id, text=text)
        return ev.TextDelta(part_id=self._part_id, text=text)

    async def _piece(self, piece: str | Mark) -> AsyncIterator[ev.AnyEvent]:
        if isinstance(piece, Mark):
            self._unmarked_text = None
            for n in piece.numbers:
                if 1 <= n <= len(self._passages):
                    async for event in self._cite(self._tracker.mark(n)):
                        yield event
                else:
                    self._dropped += 1
            return
        if self._open == "text" and self._passages and self._unmarked_text is not None:
            self._unmarked_text.append(piece)
        if not self._cites:
            yield self._delta(piece)
            return
        for text, sentences in self._tracker.add(piece):
            if text:
                yield self._delta(text)
            async for event in self._cite(sentences):
                yield event

    async def _cite(self, sentences: list[CitedSentence]) -> AsyncIterator[ev.AnyEvent]:
        for sentence in sentences:
            if (sentence.n, sentence.start, sentence.end) in self._sent_citations:
                continue
            assert self._evidence is not None
            offsets = await self._evidence.quote(sentence.text, sentence.n)
            if offsets is None:
                self._dropped += 1
                continue
            self._sent_citations.add((sentence.n, sentence.start, sentence.end))
            yield await self._citation(sentence.n, sentence.start, sentence.end, *offsets)

    async def _matched_citations(self) -> AsyncIterator[ev.AnyEvent]:
        """The citations of a part without marks. They are found when the part is complete."""
        if self._unmarked_text and self._evidence is not None:
            for match in await self._evidence.match("".join(self._unmarked_text), is_json=self._is_json):
                yield await self._citation(match.n, match.start, match.end, *match.quote, matched=True)

    async def _quote(self, quote: Quote) -> AsyncIterator[ev.AnyEvent]:
        for piece in self._buffered(blanks=True):
            async for event in self._piece(piece):
                yield event
        self._unmarked_text = None
        self.length += len(quote.text)
        start = self._tracker.length
        for _ in self._tracker.add(quote.text):
            pass
        yield ev.TextDelta(part_id=self._part_id, text=quote.text)
        yield await self._citation(quote.n, start, start + len(quote.text), quote.start, quote.end)

    async def _citation(
        self, n: int, start: int, end: int, quote_start: int, quote_end: int, *, matched: bool = False
    ) -> ev.Citation:
        passage = self._passages[n - 1]
        assert self._retriever is not None
        page = await self._retriever.page_at(passage.version, quote_start) if passage.page is not None else None
        return ev.Citation(
            part_id=self._part_id,
            source_id=source_id(n),
            n=n,
            start=start,
            end=end,
            quote=passage.text[quote_start - passage.start : quote_end - passage.start],
            document=ev.Place(
                document_id=passage.document_id, version=passage.version, page=page, start=quote_start, end=quote_end
            ),
            matched=matched,
        )
