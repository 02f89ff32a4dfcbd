"""The answer chain makes the events of an answer: it searches passages, adds them to the prompt, streams the model's
outputs, and adds citations.

It uses no database and no HTTP. Everything that it needs is in `AnswerInput`.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from backend import events as ev
from backend.chains.answer.compose import Composer, source_id
from backend.chains.answer.grounding import grounded_message, system_prompt
from backend.chains.answer.upper_bounds import prompt_at_most
from backend.chains.answer.urls import KnownUrls
from backend.chains.calling.call import prompt_was_billed
from backend.chains.calling.fallback import Attempts, ModelCandidate, ModelSwitch, attempt
from backend.chains.calling.token_counts import settled_tokens
from backend.chains.history.follow_up import (
    REWRITE_SYSTEM,
    REWRITING,
    related_queries,
    rewrite_request,
    standalone_question,
)
from backend.chains.history.images import IMAGE_TOKENS
from backend.chains.history.summary import shorten_history
from backend.chains.models.prompt import Grounding, Image, Message, Output, Prompt, Reasoning, Text, Tokens
from backend.chains.models.written_text import WrittenText
from backend.chains.passages import Passage, Retriever, SearchTrace
from backend.chains.text.small_talk import small_talk_of
from backend.chains.text.tokens import estimate_bytes, estimate_tokens
from backend.errors import AnswerTooLong, RunError

_MAX_SNIPPET = 280
"""Characters of a passage that clients are sent with a source."""


@dataclass(frozen=True, slots=True)
class AnswerInput:
    """A question, and everything that its answer depends on."""

    candidates: tuple[ModelCandidate, ...]
    """The models that may answer, in the order in which they are tried."""
    attempts: Attempts
    question: str
    history: tuple[Message, ...]
    retriever: Retriever | None
    """None if no documents are searched."""
    system: str | None
    history_tokens: int
    """The most tokens that the history may have in a prompt."""
    wrapped: str | None = None
    """The question inside the template of a prompt; None without a template."""
    examples: tuple[Message, ...] = ()
    """Turns that come before those of the session."""
    summary: str | None = None
    """A text that replaces the first `summarized` messages of the history."""
    summarized: int = 0
    images: tuple[Image, ...] = ()
    link_hosts: frozenset[tuple[str, int]] = frozenset()
    """Hosts and ports. An answer from passages may link to every page of them."""
    quoted_before: bool = False
    """Whether an earlier answer was given passages: the history may still contain instructions from them."""
    input_limit: int | None = None
    """The most tokens that a prompt may have. Passages are left out to stay below it."""
    shows_advice: bool = True
    """Whether the answer may say which settings to change."""
    max_bytes: int = 4_000_000
    """The most bytes of text and reasoning. A longer answer is ended there."""
    rewriter: ModelCandidate | None = None
    """The model that rewrites a follow-up for the search; None: the one that answers."""
    first: ModelCandidate = field(init=False)
    """The model that will probably answer: the first one without a cooldown."""

    @property
    def wrapped_question(self) -> str:
        """The question as the models see it."""
        return self.question if self.wrapped is None else self.wrapped

    @property
    def rewriting_model(self) -> ModelCandidate:
        """The model that rewrites a follow-up for the search."""
        return self.rewriter if self.rewriter is not None else self.first

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", self.attempts.health.order(self.candidates)[0])


@dataclass(frozen=True, slots=True)
class Finished:
    """The last output of the chain. `reason` says why the model stopped."""

    reason: str


async def answer(inputs: AnswerInput) -> AsyncGenerator[ev.AnyEvent | SearchTrace | Finished]:
    """Events of the answer, `Finished` last; a `SearchTrace` after a search. Raises RunError."""
    grounding: Grounding = "off"
    passages: list[Passage] = []
    search_question = inputs.question
    small_talk = None if inputs.first.model.writes else small_talk_of(inputs.question)
    if inputs.retriever is not None and small_talk is None:
        yield ev.Status(phase="retrieving")
        if not await inputs.retriever.has_documents():
            grounding = "no_documents"
        else:
            try:
                queries, usage = await _queries(inputs)
            except asyncio.CancelledError:
                if inputs.history and inputs.rewriting_model.model.writes:
                    yield _rewrite_usage(inputs, WrittenText(), "cancelled")
                raise
            search_question = inputs.question if inputs.first.model.writes else _question_in_context(queries)
            if usage is not None:
                yield usage
            passages, trace = await inputs.retriever.retrieve(queries)
            if trace is not None:
                yield trace
            passages = _fit_passages(inputs, passages, search_question)
            grounding = "passages" if passages else "nothing_relevant"
    if passages:
        yield ev.Sources(items=[_source(n, p) for n, p in enumerate(passages, 1)])
    yield ev.Status(phase="generating")
    names = await inputs.retriever.document_names() if inputs.retriever is not None and small_talk else ()
    prompt_for = _Prompts(inputs, grounding, passages, search_question, names)
    checks_links = bool(passages) or inputs.quoted_before
    composer = Composer(
        passages,
        inputs.retriever,
        _known_urls(inputs, passages) if checks_links else None,
        is_json=inputs.first.parameters.response_schema is not None,
    )
    candidate = inputs.candidates[0]
    try:
        async with aclosing(attempt(inputs.candidates, prompt_for, inputs.attempts)) as outputs:
            async for output in outputs:
                if isinstance(output, ModelSwitch):
                    if output.was_tried:
                        for event in _end_broken_call(composer, candidate, prompt_for, output.error):
                            yield event
                    candidate = output.now
                    yield ev.ModelSwitched(before=output.before.name, now=candidate.name, reason=output.error.code)
                    continue
                cut = _cut(output, inputs.max_bytes - composer.earlier_length - composer.length)
                async for event in composer.add(cut or output):
                    yield event
                if cut is not None:
                    raise AnswerTooLong.at(inputs.max_bytes)
        async for event in composer.close():
            yield event
    except (asyncio.CancelledError, RunError) as error:
        for event in _end_broken_call(composer, candidate, prompt_for, error):
            yield event
        raise
    yield _answer_usage(composer, candidate, prompt_for(candidate))
    yield Finished(composer.reason)


def _cut(output: Output, room: int) -> Text | Reasoning | None:
    """The first `room` bytes of the output's text; None if the output has no more than that."""
    if not isinstance(output, Text | Reasoning) or len(output.text) * 4 <= room:
        return None
    encoded = output.text.encode("utf-8", "replace")
    return replace(output, text=encoded[: max(room, 0)].decode("utf-8", "ignore")) if len(encoded) > room else None


def _end_broken_call(
    composer: Composer, candidate: ModelCandidate, prompt_for: "_Prompts", error: RunError | asyncio.CancelledError
) -> list[ev.AnyEvent]:
    """The events that end the text of a call that failed or was stopped, with the usage that the provider charges."""
    if not composer.length and composer.tokens is None and not prompt_was_billed(error):
        return []
    status: ev.CallStatus = "failed" if isinstance(error, RunError) else "cancelled"
    events = [*composer.stop(), _answer_usage(composer, candidate, prompt_for(candidate), status)]
    composer.reset()
    return events


async def _queries(inputs: AnswerInput) -> tuple[list[tuple[str, float]], ev.Usage | None]:
    """Queries with weights: the question, and for a follow-up also the standalone question. And the usage of the call
    that rewrote the follow-up, if there was one."""
    if not inputs.history:
        return [(inputs.question, 1.0)], None
    rewritten, usage = None, None
    model = inputs.rewriting_model.model
    if model.writes:
        try:
            async with asyncio.timeout(inputs.attempts.limits.first_token):
                rewritten, written = await standalone_question(model, inputs.history, inputs.question)
        except TimeoutError:
            usage = _rewrite_usage(inputs, WrittenText(), "failed")
        else:
            if written.tokens is not None or written.estimated_tokens:
                usage = _rewrite_usage(inputs, written)
    if rewritten is not None:
        return [(rewritten, 1.0), (inputs.question, 0.5)], usage
    return related_queries(inputs.history, inputs.question), usage


def _rewrite_usage(inputs: AnswerInput, written: WrittenText, status: ev.CallStatus = "completed") -> ev.Usage:
    """The usage of the call that rewrites a follow-up: what the provider counted, or an estimate."""
    settled, is_estimated = settled_tokens(
        written.tokens,
        written.estimated_tokens,
        lambda: estimate_tokens(REWRITE_SYSTEM + rewrite_request(inputs.history, inputs.question)),
        lambda: _output_tokens(inputs.rewriting_model, written.estimated_tokens, REWRITING.max_tokens, status),
    )
    return _usage(inputs.rewriting_model.name, settled, "condense", status, is_estimated=is_estimated)


def _question_in_context(queries: list[tuple[str, float]]) -> str:
    """The question for a model that doesn't read the history. If the question needs the turns before it, they are
    included."""
    return queries[1][0] if len(queries) > 1 and queries[1][1] >= 1.0 else queries[0][0]


def _fit_passages(inputs: AnswerInput, passages: list[Passage], search_question: str) -> list[Passage]:
    """The best passages, as many as the limit of the prompt allows."""
    while passages and inputs.input_limit is not None:
        prompt = _Prompts(inputs, "passages", passages, search_question)(inputs.first)
        if prompt_at_most(prompt) <= inputs.input_limit:
            break
        passages = passages[:-1]
    return passages


class _Prompts:
    """Makes the prompt of each candidate. Prompts differ in their parameters; a model that can't read images gets
    none."""

    def __init__(
        self,
        inputs: AnswerInput,
        grounding: Grounding,
        passages: list[Passage],
        search_question: str,
        document_names: Sequence[str] = (),
    ) -> None:
        history = shorten_history(inputs.summary, inputs.history[inputs.summarized :], inputs.history_tokens)
        question = inputs.wrapped_question
        self._prompt = Prompt(
            system=system_prompt(inputs.system, grounding),
            history=(*inputs.examples, *history),
            content=grounded_message(question, passages) if passages else question,
            question=search_question,
            parameters=inputs.first.parameters,
            images=inputs.images,
            grounding=grounding,
            passages=tuple(passages),
            similarity=inputs.retriever.similarity if inputs.retriever is not None else None,
            document_names=tuple(document_names),
            shows_advice=inputs.shows_advice,
        )

    def __call__(self, candidate: ModelCandidate) -> Prompt:
        prompt = replace(self._prompt, parameters=candidate.parameters)
        return prompt if candidate.sees else prompt.without_images()


def _known_urls(inputs: AnswerInput, passages: list[Passage]) -> KnownUrls:
    """The URLs that an answer may contain: those of the passages, of the user's messages and of the caller's prompt."""
    passage_texts = (text for p in passages for text in (p.document_name, p.heading, p.context, p.text) if text)
    user_texts = (m.text for m in inputs.history if m.role == "user")
    own_texts = (inputs.system or "", *(m.text for m in inputs.examples))
    texts = [*passage_texts, *user_texts, inputs.question, inputs.wrapped_question, *own_texts]
    return KnownUrls(texts, inputs.link_hosts)


def _source(n: int, passage: Passage) -> ev.Source:
    text = passage.text
    snippet = text if len(text) <= _MAX_SNIPPET else text[: _MAX_SNIPPET - 1].rstrip() + "…"
    return ev.Source(
        source_id=source_id(n),
        n=n,
        title=passage.document_name,
        name=passage.document_name,
        document_id=passage.document_id,
        version=passage.version,
        chunk_id=passage.chunk_id,
        page=passage.page,
        heading=passage.heading,
        score=round(passage.score, 4),
        snippet=snippet,
    )


def _answer_usage(
    composer: Composer, candidate: ModelCandidate, prompt: Prompt, status: ev.CallStatus = "completed"
) -> ev.Usage:
    """The usage that the provider counted, or an estimate."""
    visible = estimate_bytes(composer.length)

    def input_estimate() -> int:
        text = "".join([prompt.system, *(message.text_for_model for message in prompt.messages)])
        return estimate_tokens(text) + IMAGE_TOKENS * prompt.image_count

    def output_estimate() -> int:
        return _output_tokens(candidate, visible, prompt.parameters.max_tokens, status)

    tokens, is_estimated = settled_tokens(composer.tokens, visible, input_estimate, output_estimate)
    return _usage(candidate.name, tokens, "answer", status, is_estimated=is_estimated)


def _output_tokens(candidate: ModelCandidate, visible_tokens: int, limit: int, status: ev.CallStatus) -> int:
    """An estimate of the output tokens, at most `limit`. `visible_tokens` are the tokens of the text in the stream."""
    return min(candidate.output_tokens(visible_tokens, limit, is_complete=status == "completed"), limit)


def _usage(
    model: str, tokens: Tokens, purpose: ev.Purpose, status: ev.CallStatus = "completed", *, is_estimated: bool
) -> ev.Usage:
    return ev.Usage(
        model=model,
        purpose=purpose,
        status=status,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        reasoning_tokens=tokens.reasoning,
        cached_tokens=tokens.cached,
        estimated=is_estimated,
        prompt_cut=tokens.prompt_cut,
    )
