"""The answer chain: question in, events out. Retrieves, grounds the prompt, streams the model, ties the citations.

It knows no database and no HTTP; what it needs comes in through `Ask`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from backend import events as ev
from backend.chains import prompts
from backend.chains.calls import CallLimits, call
from backend.chains.citations import Cited, SentenceTracker
from backend.chains.conversation import estimate_tokens, fit, related_queries, standalone_question
from backend.chains.evidence import Evidence
from backend.chains.marks import Mark, MarkFilter
from backend.chains.models.base import (
    ChatModel,
    Finish,
    Grounding,
    Message,
    Output,
    Prompt,
    Quote,
    Reasoning,
    Text,
    Tokens,
)
from backend.chains.passages import Passage, Retriever
from backend.errors import RunError

_SNIPPET = 280


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to answer. `retriever` is None when documents are off."""

    model_name: str
    model: ChatModel
    question: str
    history: tuple[Message, ...]
    retriever: Retriever | None
    system: str | None
    temperature: float
    max_tokens: int
    history_tokens: int
    limits: CallLimits


@dataclass(frozen=True, slots=True)
class Finished:
    """Last item of an answer: why the model stopped."""

    reason: str


async def answer(ask: Ask) -> AsyncGenerator[ev.AnyEvent | Finished]:
    """Events of the answer, `Finished` last. Raises RunError."""
    grounding: Grounding = "off"
    passages: list[Passage] = []
    meant = ask.question
    if ask.retriever is not None:
        yield ev.Status(phase="retrieving")
        if not await ask.retriever.has_documents():
            grounding = "no_documents"
        else:
            queries, used = await _queries(ask)
            meant = queries[-1] if not ask.model.writes else ask.question
            if used is not None:
                yield _usage(ask.model_name, used)
            passages = await ask.retriever.retrieve(queries)
            grounding = "passages" if passages else "nothing_relevant"
    if passages:
        yield ev.Sources(items=[_source(n, p) for n, p in enumerate(passages, 1)])
    yield ev.Status(phase="generating")
    prompt = _prompt(ask, grounding, passages, meant)
    weave = _Weave(passages, ask.retriever)
    try:
        async with aclosing(call(ask.model, prompt, ask.limits)) as outputs:
            async for output in outputs:
                async for event in weave.take(output):
                    yield event
        async for event in weave.close():
            yield event
    except (asyncio.CancelledError, RunError):
        # What was generated until a stop or a failure was paid for.
        if weave.length:
            for event in [*weave.end(), weave.usage(ask.model_name, prompt)]:
                yield event
        raise
    yield weave.usage(ask.model_name, prompt)
    yield Finished(weave.reason)


async def _queries(ask: Ask) -> tuple[list[str], Tokens | None]:
    """What to look for: the question, and what a follow-up means in its conversation."""
    if not ask.history:
        return [ask.question], None
    rewritten, used = None, None
    if ask.model.writes:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ask.limits.first_token):
                rewritten, used = await standalone_question(ask.model, ask.history, ask.question)
    if rewritten is not None:
        return [rewritten, ask.question], used
    return related_queries(ask.history, ask.question), used


def _prompt(ask: Ask, grounding: Grounding, passages: list[Passage], meant: str) -> Prompt:
    return Prompt(
        system=prompts.system_prompt(ask.system, grounding),
        history=fit(ask.history, ask.history_tokens),
        content=prompts.grounded_message(ask.question, passages) if passages else ask.question,
        question=meant,
        temperature=ask.temperature,
        max_tokens=ask.max_tokens,
        grounding=grounding,
        passages=tuple(passages),
        similarity=ask.retriever.similarity if ask.retriever is not None else None,
    )


class _Weave:
    """Turns a model's outputs into parts, deltas and citations. One part is open at a time."""

    def __init__(self, passages: list[Passage], retriever: Retriever | None) -> None:
        self._passages = passages
        self._retriever = retriever
        self._evidence = Evidence(passages, retriever.similarity) if retriever is not None else None
        self._unmarked: list[str] | None = []
        self._open: str | None = None
        self._part_id = ""
        self._count = 0
        self._marks = MarkFilter()
        self._tracker = SentenceTracker()
        self._given: set[tuple[int, int, int]] = set()
        self.tokens: Tokens | None = None
        self.reason = "stop"
        self.length = 0
        self._dropped = 0

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
            case Reasoning(text):
                if text := self._clean(text):
                    yield ev.ReasoningDelta(part_id=self._part_id, text=text)
            case Text(text):
                if not (text := self._clean(text)):
                    return
                if not self._passages:
                    yield ev.TextDelta(part_id=self._part_id, text=text)
                    return
                for piece in self._marks.feed(text):
                    async for event in self._piece(piece):
                        yield event

    def _begin(self, kind: Literal["text", "reasoning"]) -> ev.AnyEvent:
        self._count += 1
        self._open, self._part_id = kind, f"p{self._count}"
        self._marks, self._tracker = MarkFilter(), SentenceTracker()
        self._given.clear()
        self._dropped = 0
        if self._unmarked:
            self._unmarked = []
        return ev.TextStart(part_id=self._part_id) if kind == "text" else ev.ReasoningStart(part_id=self._part_id)

    def _clean(self, text: str) -> str:
        self.length += len(text)
        return ev.clean_text(text)

    async def close(self) -> AsyncIterator[ev.AnyEvent]:
        """What was held back, the last citations, the end of the part."""
        if self._open == "text" and self._passages:
            for piece in self._marks.close():
                async for event in self._piece(piece):
                    yield event
            async for event in self._cite(self._tracker.close()):
                yield event
            async for event in self._match():
                yield event
        for event in self.end():
            yield event

    def usage(self, model: str, prompt: Prompt) -> ev.Usage:
        """What the provider counted, or an estimate."""
        return _usage(model, self.tokens) if self.tokens else _estimated(model, prompt, self.length)

    def end(self) -> list[ev.AnyEvent]:
        """The end of the open part."""
        kind, self._open = self._open, None
        if kind is None:
            return []
        if kind == "reasoning":
            return [ev.ReasoningEnd(part_id=self._part_id)]
        return [ev.TextEnd(part_id=self._part_id, dropped=self._dropped)]

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
        if self._unmarked is not None:
            self._unmarked.append(piece)
        for text, cited in self._tracker.add(piece):
            if text:
                yield ev.TextDelta(part_id=self._part_id, text=text)
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
        for piece in self._marks.flush():
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
            source_id=_source_id(n),
            n=n,
            start=start,
            end=end,
            quote=passage.text[quote_start - passage.start : quote_end - passage.start],
            document=ev.Place(
                document_id=passage.document_id, version=passage.version, page=page, start=quote_start, end=quote_end
            ),
            matched=matched,
        )


def _source_id(n: int) -> str:
    return f"s{n}"


def _source(n: int, passage: Passage) -> ev.Source:
    snippet = passage.text if len(passage.text) <= _SNIPPET else passage.text[: _SNIPPET - 1].rstrip() + "…"
    return ev.Source(
        source_id=_source_id(n),
        n=n,
        title=passage.title,
        document_id=passage.document_id,
        version=passage.version,
        chunk_id=passage.chunk_id,
        page=passage.page,
        heading=passage.heading,
        score=round(passage.score, 4),
        snippet=snippet,
    )


def _usage(model: str, tokens: Tokens) -> ev.Usage:
    return ev.Usage(
        model=model,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        reasoning_tokens=tokens.reasoning,
        cached_tokens=tokens.cached,
    )


def _estimated(model: str, prompt: Prompt, output_chars: int) -> ev.Usage:
    told = "".join([prompt.system, *(m.text for m in prompt.history), prompt.content])
    return ev.Usage(
        model=model, input_tokens=estimate_tokens(told), output_tokens=output_chars // 4 + 1, estimated=True
    )
