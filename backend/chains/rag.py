"""The answer chain: question in, events out. Retrieves, grounds the prompt, streams the model, ties the citations.

It knows no database and no HTTP; what it needs comes in through `Ask`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from backend import events as ev
from backend.chains import prompts
from backend.chains.conversation import estimate_tokens, fit, related_queries, standalone_question
from backend.chains.fallback import Attempts, Candidate, Switched, attempt
from backend.chains.models.base import Grounding, Image, Message, Prompt, Tokens
from backend.chains.passages import Passage, Retriever
from backend.chains.urls import KnownUrls
from backend.chains.weave import Weave, source_id
from backend.errors import RunError

_SNIPPET = 280


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to answer, by the first of the candidates that does. `retriever` is None when documents are off.
    `link_hosts` (host, port): an answer from passages may link to them, whatever stands there."""

    candidates: tuple[Candidate, ...]
    attempts: Attempts
    question: str
    history: tuple[Message, ...]
    retriever: Retriever | None
    system: str | None
    history_tokens: int
    images: tuple[Image, ...] = ()
    link_hosts: frozenset[tuple[str, int]] = frozenset()

    first: Candidate = field(init=False)
    """The model that is expected to answer: the first one that doesn't rest."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", self.attempts.health.order(self.candidates)[0])


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
            meant = ask.question if ask.first.model.writes else _meant(queries)
            if used is not None:
                yield _usage(ask.first.name, used)
            passages = await ask.retriever.retrieve(queries)
            grounding = "passages" if passages else "nothing_relevant"
    if passages:
        yield ev.Sources(items=[_source(n, p) for n, p in enumerate(passages, 1)])
    yield ev.Status(phase="generating")
    prompts_of = _Prompts(ask, grounding, passages, meant)
    weave = Weave(passages, ask.retriever, _known(ask, passages) if passages else None)
    now = ask.candidates[0]
    try:
        async with aclosing(attempt(ask.candidates, prompts_of, ask.attempts)) as outputs:
            async for output in outputs:
                if isinstance(output, Switched):
                    for event in _broken_off(weave, now, prompts_of):
                        yield event
                    now = output.now
                    yield ev.ModelSwitched(before=output.before.name, now=now.name, reason=output.error.code)
                    continue
                async for event in weave.take(output):
                    yield event
        async for event in weave.close():
            yield event
    except (asyncio.CancelledError, RunError):
        for event in _broken_off(weave, now, prompts_of):
            yield event
        raise
    yield _spent(weave, now.name, prompts_of(now))
    yield Finished(weave.reason)


def _broken_off(weave: Weave, candidate: Candidate, prompts_of: "_Prompts") -> list[ev.AnyEvent]:
    """The end of what a model wrote until it failed or was stopped: it was paid for."""
    if not weave.length:
        return []
    events = [*weave.stop(), _spent(weave, candidate.name, prompts_of(candidate))]
    weave.forget()
    return events


async def _queries(ask: Ask) -> tuple[list[tuple[str, float]], Tokens | None]:
    """What to look for: the question, and what a follow-up means in its conversation."""
    if not ask.history:
        return [(ask.question, 1.0)], None
    rewritten, used = None, None
    if ask.first.model.writes:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ask.attempts.limits.first_token):
                rewritten, used = await standalone_question(ask.first.model, ask.history, ask.question)
    if rewritten is not None:
        return [(rewritten, 1.0), (ask.question, 0.5)], used
    return related_queries(ask.history, ask.question), used


def _meant(queries: list[tuple[str, float]]) -> str:
    """What a model that doesn't read the conversation is to answer: the question, with what it follows if it must."""
    return queries[1][0] if len(queries) > 1 and queries[1][1] >= 1.0 else queries[0][0]


class _Prompts:
    """What each candidate is asked: the same, but for its parameters."""

    def __init__(self, ask: Ask, grounding: Grounding, passages: list[Passage], meant: str) -> None:
        self._prompt = Prompt(
            system=prompts.system_prompt(ask.system, grounding),
            history=fit(ask.history, ask.history_tokens),
            content=prompts.grounded_message(ask.question, passages) if passages else ask.question,
            question=meant,
            parameters=ask.first.parameters,
            images=ask.images,
            grounding=grounding,
            passages=tuple(passages),
            similarity=ask.retriever.similarity if ask.retriever is not None else None,
        )

    def __call__(self, candidate: Candidate) -> Prompt:
        return replace(self._prompt, parameters=candidate.parameters)


def _known(ask: Ask, passages: list[Passage]) -> KnownUrls:
    """The URLs that an answer may hold: those that the passages hold, or that the user wrote."""
    found = (text for p in passages for text in (p.title, p.heading, p.context, p.text) if text)
    wrote = (m.text for m in ask.history if m.role == "user")
    return KnownUrls([*found, *wrote, ask.question, ask.system or ""], ask.link_hosts)


def _source(n: int, passage: Passage) -> ev.Source:
    snippet = passage.text if len(passage.text) <= _SNIPPET else passage.text[: _SNIPPET - 1].rstrip() + "…"
    return ev.Source(
        source_id=source_id(n),
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


def _spent(weave: Weave, model: str, prompt: Prompt) -> ev.Usage:
    """What the provider counted, or an estimate."""
    return _usage(model, weave.tokens) if weave.tokens else _estimated(model, prompt, weave.length)


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
