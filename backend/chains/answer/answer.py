"""The answer chain: question in, events out. Retrieves, grounds the prompt, streams the model, ties the citations.

It knows no database and no HTTP; what it needs comes in through `AnswerInput`.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from backend import events as ev
from backend.chains.answer.compose import Composer, source_id
from backend.chains.answer.grounding import grounded_message, system_prompt
from backend.chains.answer.upper_bounds import prompt_at_most
from backend.chains.answer.urls import KnownUrls
from backend.chains.calling.call import prompt_was_billed
from backend.chains.calling.fallback import Attempts, ModelCandidate, Switched, attempt
from backend.chains.history.follow_up import (
    REWRITE_SYSTEM,
    REWRITING,
    related_queries,
    rewrite_request,
    standalone_question,
)
from backend.chains.history.images import IMAGE_TOKENS
from backend.chains.history.summary import shorten_history
from backend.chains.models.prompt import Grounding, Image, Message, Prompt, Tokens
from backend.chains.passages import Passage, Retriever
from backend.chains.text.tokens import estimate_bytes, estimate_tokens
from backend.errors import RunError

_SNIPPET = 280


@dataclass(frozen=True, slots=True)
class AnswerInput:
    """One question to answer, by the first of the candidates that does. `retriever` is None when documents are off.
    `wrapped` is the question as the models see it, `examples` are turns before the conversation's own; the first
    `covered` messages of the history are told by `summary`. `link_hosts` (host, port): an answer from passages may link
    to them, whatever stands there. `quoted_before`: an earlier answer was given passages, and what they told the model
    to do may still stand in the conversation. `input_limit`: tokens that the prompt may have at most; passages are left
    out for that."""

    candidates: tuple[ModelCandidate, ...]
    attempts: Attempts
    question: str
    history: tuple[Message, ...]
    retriever: Retriever | None
    system: str | None
    history_tokens: int
    wrapped: str | None = None
    examples: tuple[Message, ...] = ()
    summary: str | None = None
    covered: int = 0
    images: tuple[Image, ...] = ()
    link_hosts: frozenset[tuple[str, int]] = frozenset()
    quoted_before: bool = False
    input_limit: int | None = None
    first: ModelCandidate = field(init=False)
    """The model that is expected to answer: the first one that doesn't rest."""

    @property
    def told(self) -> str:
        """The question as the models see it."""
        return self.question if self.wrapped is None else self.wrapped

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", self.attempts.health.order(self.candidates)[0])


@dataclass(frozen=True, slots=True)
class Finished:
    """Last item of an answer: why the model stopped."""

    reason: str


async def answer(ask: AnswerInput) -> AsyncGenerator[ev.AnyEvent | Finished]:
    """Events of the answer, `Finished` last. Raises RunError."""
    grounding: Grounding = "off"
    passages: list[Passage] = []
    meant = ask.question
    if ask.retriever is not None:
        yield ev.Status(phase="retrieving")
        if not await ask.retriever.has_documents():
            grounding = "no_documents"
        else:
            try:
                queries, used = await _queries(ask)
            except asyncio.CancelledError:
                if ask.history and ask.first.model.writes:
                    yield _condensing(ask, None, "cancelled")
                raise
            meant = ask.question if ask.first.model.writes else _meant(queries)
            if used is not None:
                yield used
            passages = _fitting(ask, await ask.retriever.retrieve(queries), meant)
            grounding = "passages" if passages else "nothing_relevant"
    if passages:
        yield ev.Sources(items=[_source(n, p) for n, p in enumerate(passages, 1)])
    yield ev.Status(phase="generating")
    prompts_of = _Prompts(ask, grounding, passages, meant)
    guarded = bool(passages) or ask.quoted_before
    weave = Composer(passages, ask.retriever, _known(ask, passages) if guarded else None)
    now = ask.candidates[0]
    try:
        async with aclosing(attempt(ask.candidates, prompts_of, ask.attempts)) as outputs:
            async for output in outputs:
                if isinstance(output, Switched):
                    if output.asked:
                        for event in _broken_off(weave, now, prompts_of, output.error):
                            yield event
                    now = output.now
                    yield ev.ModelSwitched(before=output.before.name, now=now.name, reason=output.error.code)
                    continue
                async for event in weave.take(output):
                    yield event
        async for event in weave.close():
            yield event
    except (asyncio.CancelledError, RunError) as error:
        for event in _broken_off(weave, now, prompts_of, error):
            yield event
        raise
    yield _spent(weave, now, prompts_of(now))
    yield Finished(weave.reason)


def _broken_off(
    weave: Composer, candidate: ModelCandidate, prompts_of: "_Prompts", why: RunError | asyncio.CancelledError
) -> list[ev.AnyEvent]:
    """The end of what a model wrote until it failed or was stopped, and what it read: it was paid for."""
    if not weave.length and weave.tokens is None and not prompt_was_billed(why):
        return []
    how: ev.CallStatus = "failed" if isinstance(why, RunError) else "cancelled"
    events = [*weave.stop(), _spent(weave, candidate, prompts_of(candidate), how)]
    weave.forget()
    return events


async def _queries(ask: AnswerInput) -> tuple[list[tuple[str, float]], ev.Usage | None]:
    """What to look for: the question, and what a follow-up means in its conversation."""
    if not ask.history:
        return [(ask.question, 1.0)], None
    rewritten, used = None, None
    if ask.first.model.writes:
        try:
            async with asyncio.timeout(ask.attempts.limits.first_token):
                rewritten, tokens = await standalone_question(ask.first.model, ask.history, ask.question)
        except TimeoutError:
            used = _condensing(ask, None, "failed")
        else:
            if tokens is not None:
                used = _usage(ask.first.name, tokens, "condense")
            elif rewritten is not None:
                used = _condensing(ask, rewritten)
    if rewritten is not None:
        return [(rewritten, 1.0), (ask.question, 0.5)], used
    return related_queries(ask.history, ask.question), used


def _condensing(ask: AnswerInput, wrote: str | None, how: ev.CallStatus = "completed") -> ev.Usage:
    """What that call took, when the provider doesn't say."""
    told = REWRITE_SYSTEM + rewrite_request(ask.history, ask.question)
    return ev.Usage(
        model=ask.first.name,
        purpose="condense",
        status=how,
        input_tokens=estimate_tokens(told),
        output_tokens=_written(ask.first, estimate_tokens(wrote or ""), REWRITING.max_tokens, how),
        estimated=True,
    )


def _meant(queries: list[tuple[str, float]]) -> str:
    """What a model that doesn't read the conversation is to answer: the question, with what it follows if it must."""
    return queries[1][0] if len(queries) > 1 and queries[1][1] >= 1.0 else queries[0][0]


def _fitting(ask: AnswerInput, passages: list[Passage], meant: str) -> list[Passage]:
    """The best passages with which the prompt keeps to its limit."""
    while passages and ask.input_limit is not None:
        if prompt_at_most(_Prompts(ask, "passages", passages, meant)(ask.first)) <= ask.input_limit:
            break
        passages = passages[:-1]
    return passages


class _Prompts:
    """What each candidate is asked: the same, but for its parameters."""

    def __init__(self, ask: AnswerInput, grounding: Grounding, passages: list[Passage], meant: str) -> None:
        self._prompt = Prompt(
            system=system_prompt(ask.system, grounding),
            history=(*ask.examples, *shorten_history(ask.summary, ask.history[ask.covered :], ask.history_tokens)),
            content=grounded_message(ask.told, passages) if passages else ask.told,
            question=meant,
            parameters=ask.first.parameters,
            images=ask.images,
            grounding=grounding,
            passages=tuple(passages),
            similarity=ask.retriever.similarity if ask.retriever is not None else None,
        )

    def __call__(self, candidate: ModelCandidate) -> Prompt:
        prompt = replace(self._prompt, parameters=candidate.parameters)
        return prompt if candidate.sees else prompt.without_images()


def _known(ask: AnswerInput, passages: list[Passage]) -> KnownUrls:
    """The URLs that an answer may hold: those that the passages hold, or that the user wrote."""
    found = (text for p in passages for text in (p.document_name, p.heading, p.context, p.text) if text)
    wrote = (m.text for m in ask.history if m.role == "user")
    ours = (ask.system or "", *(m.text for m in ask.examples))
    return KnownUrls([*found, *wrote, ask.question, ask.told, *ours], ask.link_hosts)


def _source(n: int, passage: Passage) -> ev.Source:
    snippet = passage.text if len(passage.text) <= _SNIPPET else passage.text[: _SNIPPET - 1].rstrip() + "…"
    return ev.Source(
        source_id=source_id(n),
        n=n,
        title=passage.document_name,
        document_id=passage.document_id,
        version=passage.version,
        chunk_id=passage.chunk_id,
        page=passage.page,
        heading=passage.heading,
        score=round(passage.score, 4),
        snippet=snippet,
    )


def _spent(weave: Composer, candidate: ModelCandidate, prompt: Prompt, how: ev.CallStatus = "completed") -> ev.Usage:
    """What the provider counted, or an estimate."""
    if weave.tokens is not None:
        return _usage(candidate.name, weave.tokens, "answer", how)
    told = "".join([prompt.system, *(message.text_for_model for message in prompt.messages)])
    return ev.Usage(
        model=candidate.name,
        status=how,
        input_tokens=estimate_tokens(told) + IMAGE_TOKENS * prompt.image_count,
        output_tokens=_written(candidate, estimate_bytes(weave.length), prompt.parameters.max_tokens, how),
        estimated=True,
    )


def _written(candidate: ModelCandidate, shown: int, most: int, how: ev.CallStatus) -> int:
    """Tokens that nobody counted, never more than were allowed."""
    return min(candidate.wrote(shown, most, whole=how == "completed"), most)


def _usage(model: str, tokens: Tokens, purpose: ev.Purpose, how: ev.CallStatus = "completed") -> ev.Usage:
    return ev.Usage(
        model=model,
        purpose=purpose,
        status=how,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        reasoning_tokens=tokens.reasoning,
        cached_tokens=tokens.cached,
    )
