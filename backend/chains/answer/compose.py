"""A model's outputs woven into parts, deltas and citations, with the marks taken out and unknown links broken."""

from collections.abc import AsyncIterator, Iterator
from typing import Literal

from backend import events as ev
from backend.chains.answer.cited_sentences import Cited, SentenceTracker
from backend.chains.answer.evidence import Evidence
from backend.chains.answer.links import LinkFilter
from backend.chains.answer.marks import Mark, MarkFilter
from backend.chains.answer.urls import KnownUrls
from backend.chains.models.provider import Finish, Output, Quote, Reasoning, Text, Tokens
from backend.chains.passages import Passage, Retriever


def source_id(n: int) -> str:
    """The id of the answer's nth source."""
    return f"s{n}"


class Composer:
    """Turns a model's outputs into events. One part is open at a time. `known`: the URLs that may pass; None: all."""

    def __init__(self, passages: list[Passage], retriever: Retriever | None, known: KnownUrls | None = None) -> None:
        self._passages = passages
        self._retriever = retriever
        self._known = known
        self._evidence = Evidence(passages, retriever.similarity) if retriever is not None else None
        self._unmarked: list[str] | None = []
        self._open: Literal["text", "reasoning"] | None = None
        self._part_id = ""
        self._count = 0
        self._marks = MarkFilter()
        self._links: LinkFilter[Mark] | None = None
        self._tracker = SentenceTracker()
        self._given: set[tuple[int, int, int]] = set()
        self._dropped = 0
        self.tokens: Tokens | None = None
        self.reason = "stop"
        self.length = 0
        """Bytes that the model wrote, of text and reasoning."""

    async def take(self, output: Output) -> AsyncIterator[ev.AnyEvent]:
        """The deltas and citations of one output; before them the start of its part, if it isn't open."""
        kind = "text" if isinstance(output, Text | Quote) else "reasoning" if isinstance(output, Reasoning) else None
        if kind is not None and kind != self._open:
            async for event in self.close():
                yield event
            yield self._begin(kind)
        match output:
            case Tokens():
                self.tokens = output
            case Finish(reason):
                self.reason = ev.clean_text(reason)
            case Quote():
                async for event in self._quote(output):
                    yield event
            case Reasoning(text) | Text(text):
                self.length += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
                for piece in self._pieces(ev.clean_text(text)):
                    async for event in self._piece(piece):
                        yield event

    def _begin(self, kind: Literal["text", "reasoning"]) -> ev.AnyEvent:
        self._count += 1
        self._open, self._part_id = kind, f"p{self._count}"
        self._marks, self._tracker = MarkFilter(), SentenceTracker()
        self._links = LinkFilter(self._known) if self._known is not None else None
        self._given.clear()
        self._dropped = 0
        if self._unmarked:
            self._unmarked = []
        return ev.TextStart(part_id=self._part_id) if kind == "text" else ev.ReasoningStart(part_id=self._part_id)

    @property
    def _cites(self) -> bool:
        """Whether the open part may hold marks."""
        return self._open == "text" and bool(self._passages)

    def _pieces(self, text: str) -> Iterator[str | Mark]:
        """More of the open part as it is shown: marks first, since taking one out may bring a link together."""
        for piece in self._marks.feed(text) if self._cites else [text] if text else []:
            yield from self._links.feed(piece) if self._links is not None else [piece]

    def _held(self, *, blanks: bool = False) -> Iterator[str | Mark]:
        """What was held back of the open part; `blanks` at its end too when more follows."""
        if self._cites:
            for piece in self._marks.flush() if blanks else self._marks.close():
                yield from self._links.feed(piece) if self._links is not None else [piece]
        if self._open is not None and self._links is not None:
            yield from self._links.close()

    async def close(self) -> AsyncIterator[ev.AnyEvent]:
        """What was held back, the last citations, the end of the part."""
        for piece in self._held():
            async for event in self._piece(piece):
                yield event
        if self._cites:
            async for event in self._cite(self._tracker.close()):
                yield event
            async for event in self._match():
                yield event
        for event in self._end():
            yield event

    def stop(self) -> list[ev.AnyEvent]:
        """The end of an answer that was stopped: the text that was held back, but no more citations."""
        return [*(self._delta(piece) for piece in self._held() if isinstance(piece, str)), *self._end()]

    def forget(self) -> None:
        """Another model begins anew: what the one before counted and said of its end is told."""
        self.tokens, self.reason, self.length = None, "stop", 0
        self._unmarked = []

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
            self._unmarked = None
            for n in piece.numbers:
                if 1 <= n <= len(self._passages):
                    async for event in self._cite(self._tracker.mark(n)):
                        yield event
                else:
                    self._dropped += 1
            return
        if not self._cites:
            yield self._delta(piece)
            return
        if self._unmarked is not None:
            self._unmarked.append(piece)
        for text, cited in self._tracker.add(piece):
            if text:
                yield self._delta(text)
            async for event in self._cite(cited):
                yield event

    async def _cite(self, cited: list[Cited]) -> AsyncIterator[ev.AnyEvent]:
        for sentence in cited:
            if (sentence.n, sentence.start, sentence.end) in self._given:
                continue
            assert self._evidence is not None
            span = await self._evidence.quote(sentence.text, sentence.n)
            if span is None:
                self._dropped += 1
                continue
            self._given.add((sentence.n, sentence.start, sentence.end))
            yield await self._citation(sentence.n, sentence.start, sentence.end, *span)

    async def _match(self) -> AsyncIterator[ev.AnyEvent]:
        """The citations of a part whose model writes no marks: found once it is whole, in one go."""
        if self._unmarked and self._evidence is not None:
            for found in await self._evidence.match("".join(self._unmarked)):
                yield await self._citation(found.n, found.start, found.end, *found.quote, matched=True)

    async def _quote(self, quote: Quote) -> AsyncIterator[ev.AnyEvent]:
        for piece in self._held(blanks=True):
            async for event in self._piece(piece):
                yield event
        self._unmarked = None
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
