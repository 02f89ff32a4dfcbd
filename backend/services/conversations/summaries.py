"""Summaries for sessions that are longer than LLM_HISTORY_TOKENS: a stored text that replaces the oldest messages.

A summary belongs to the last message that it replaces, so every branch from that message on has it. It is written after
an answer, for the next turn. Only if no stored summary is short enough, one is written before an answer; if that takes
longer than a deadline, the oldest messages are left out instead.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from backend.chains.calling.fallback import ModelCandidate
from backend.chains.history.summary import (
    MAX_SUMMARY_TOKENS,
    MIN_HISTORY_TOKENS,
    SUMMARY_SYSTEM,
    count_older_messages,
    is_short_enough,
    shorten_summary,
    split_conversation,
    summary_request,
)
from backend.chains.models.prompt import Message
from backend.chains.text.short_texts import written_text
from backend.config.groups.conversations import ConversationSettings
from backend.errors import StreamForgeError
from backend.services.conversations.background import BackgroundWriter, ShortText
from backend.services.conversations.history import History, PastMessage, count_summarized, past_messages
from backend.services.models.open import Models
from backend.services.runs.run import Run
from backend.storage.conversations.messages import StoredMessage
from backend.storage.conversations.summaries import Summaries, SummaryRow

log = structlog.get_logger(__name__)

_MAX_FAILURES = 1_000
"""The most sessions whose failure is remembered."""


class Summarizer:
    """Makes the history of an answer short enough. `budget` is LLM_HISTORY_TOKENS."""

    def __init__(
        self,
        summaries: Summaries,
        writer: BackgroundWriter,
        models: Models,
        settings: ConversationSettings,
        budget: int,
    ) -> None:
        self._summaries = summaries
        self._writer = writer
        self._models = models
        self._settings = settings
        self._budget = budget
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """Summaries under way, by session."""
        self._failed: dict[str, None] = {}
        """Sessions whose last summary failed: their answers don't wait for the next one."""

    async def recall(self, run: Run, rows: Sequence[StoredMessage], candidate: ModelCandidate) -> History:
        """The history that the answer's model is given."""
        past: Sequence[PastMessage] = past_messages(rows, candidate.count)
        if not self._can_summarize(candidate):
            return History(past)
        if not self._fits(past):
            try:
                async with asyncio.timeout(self._settings.summary_timeout):
                    past = await self._shorten(run, past, candidate)
            except (TimeoutError, StreamForgeError) as error:
                log.warning("no_summary", session_id=run.session_id, why=type(error).__name__)
                self._failed[run.session_id] = None
                if len(self._failed) > _MAX_FAILURES:
                    del self._failed[next(iter(self._failed))]
        return History(past, count_summarized(past))

    def schedule(self, run: Run, history: History, question: Message, candidate: ModelCandidate) -> None:
        """Schedule a summary if the history is too long for the next turn: with `question`, and with the answer of the
        run, which is ending."""
        session_id = run.session_id
        if not self._can_summarize(candidate) or session_id in self._tasks:
            return
        turn = (
            PastMessage(run.started.user_message_id, replace(question, count=candidate.count)),
            PastMessage(run.started.message_id, Message("assistant", run.state.text(), count=candidate.count)),
        )
        past = [*history.past, *(new for new in turn if new.message.text_for_model)]
        if self._fits(past):
            return
        task = self._writer.schedule(lambda: self._prepare(run, past, candidate))
        if task is not None:
            self._tasks[session_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(session_id, None))

    async def _shorten(self, run: Run, past: Sequence[PastMessage], candidate: ModelCandidate) -> Sequence[PastMessage]:
        """The messages with a summary, stored or new, that makes them short enough. Raises StreamForgeError."""
        session_id = run.session_id
        can_wait = session_id not in self._failed
        if can_wait and (task := self._tasks.get(session_id)) is not None:
            await asyncio.wait((task,))
        past = await self._refresh(session_id, past)
        return await self._summarize(run, past, candidate) if can_wait and not self._fits(past) else past

    def _can_summarize(self, candidate: ModelCandidate) -> bool:
        return self._settings.summaries and candidate.model.writes and self._budget >= MIN_HISTORY_TOKENS

    def _fits(self, past: Sequence[PastMessage]) -> bool:
        summarized = count_summarized(past)
        summary = past[summarized - 1].summary if summarized else None
        return is_short_enough(summary, [after.message for after in past[summarized:]], self._budget)

    async def _prepare(self, run: Run, past: Sequence[PastMessage], candidate: ModelCandidate) -> None:
        """Make the summary for the next turn, once the answer is stored."""
        await run.log.wait_for_end()
        past = await self._refresh(run.session_id, past)
        if not self._fits(past):
            await self._summarize(run, past, candidate)

    async def _refresh(self, session_id: str, past: Sequence[PastMessage]) -> Sequence[PastMessage]:
        """The messages with all stored summaries, also those that are newer than `past`."""
        stored = await self._summaries.by_session(session_id)
        return [replace(p, summary=stored[p.id].text) if p.id in stored else p for p in past]

    async def _summarize(
        self, run: Run, past: Sequence[PastMessage], candidate: ModelCandidate
    ) -> Sequence[PastMessage]:
        """The messages with one more summary, which is stored. Raises StreamForgeError."""
        summarized = count_summarized(past)
        summary = past[summarized - 1].summary if summarized else None
        tail = [after.message for after in past[summarized:]]
        older = count_older_messages(tail, self._budget)
        if not older:
            return past
        model = self._model(candidate)
        for piece in split_conversation(tail[:older], self._budget):
            request = summary_request(summary, piece)
            short_text = ShortText(run.owner, run.session_id, "summary", SUMMARY_SYSTEM, request, MAX_SUMMARY_TOKENS)
            text = written_text(await self._writer.write(short_text, model))
            summary = shorten_summary(text, self._budget) or summary
        if summary is None:
            return past
        self._failed.pop(run.session_id, None)
        last = past[summarized + older - 1]
        with suppress(StreamForgeError):
            await self._summaries.put(SummaryRow(last.id, model.name, summary))
        return [replace(p, summary=summary) if p is last else p for p in past]

    def _model(self, candidate: ModelCandidate) -> ModelCandidate:
        """The model that writes summaries: SUMMARY_MODEL, or else TASK_MODEL, or else the one that answers."""
        return self._models.chooser.for_tasks(candidate, self._settings.summary_model)
