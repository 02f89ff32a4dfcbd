"""Conversations that are longer than LLM_HISTORY_TOKENS: the older messages are summed up, and the summary is kept.

A summary belongs to the last message that it covers, so that every branch from there on finds it. It is made after an
answer, for the next turn; before an answer only where there is none that suffices, and for no longer than a deadline:
without one, the oldest messages are left out.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

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
from backend.chains.models.tokenizers import Count
from backend.config.groups.conversations import ConversationSettings
from backend.errors import StreamForgeError
from backend.messages import ImagePart, SourcesPart, decode_parts, images_of, text_of
from backend.services.conversations.background import BackgroundWriter, ShortText
from backend.services.models.choose import ModelChoice
from backend.services.models.open import Models
from backend.services.runs.hub import Run
from backend.storage.conversations.messages import StoredMessage
from backend.storage.conversations.summaries import Summaries, SummaryRow

log = structlog.get_logger(__name__)

_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class PastMessage:
    """A message of the active path, and the summary up to it where there is one. `pictures` are the user's; `quotes`:
    its model was given passages."""

    id: str
    message: Message
    summary: str | None = None
    pictures: tuple[ImagePart, ...] = ()
    quotes: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """A conversation so far. A model is told the first `covered` messages by their summary, if there is one."""

    said: Sequence[PastMessage]
    covered: int = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        """All of it."""
        return tuple(each.message for each in self.said)

    @property
    def quotes(self) -> bool:
        """Whether an answer was given passages."""
        return any(each.quotes for each in self.said)

    @property
    def summary(self) -> str | None:
        """What stands for the first `covered`."""
        return self.said[self.covered - 1].summary if self.covered else None


class Summarizer:
    """Sums up what no longer fits. `budget` is LLM_HISTORY_TOKENS."""

    def __init__(
        self, summaries: Summaries, aside: BackgroundWriter, models: Models, settings: ConversationSettings, budget: int
    ) -> None:
        self._summaries = summaries
        self._aside = aside
        self._models = models
        self._settings = settings
        self._budget = budget
        self._making: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, None] = {}
        """Sessions whose last summary failed: their answers don't wait for the next one."""

    async def recall(self, run: Run, history: Sequence[StoredMessage], candidate: ModelCandidate) -> History:
        """What the answer's model is told of the messages before."""
        said: Sequence[PastMessage] = said_of(history, candidate.count)
        if not self._sums_up(candidate):
            return History(said)
        if not self._fits(said):
            try:
                async with asyncio.timeout(self._settings.summary_timeout):
                    said = await self._mended(run, said, candidate)
            except (TimeoutError, StreamForgeError) as error:
                log.info("no_summary", session_id=run.started.session_id, why=type(error).__name__)
                self._failed[run.started.session_id] = None
                if len(self._failed) > _REMEMBERED:
                    del self._failed[next(iter(self._failed))]
        return History(said, _latest(said))

    def follow(self, run: Run, told: History, question: Message, candidate: ModelCandidate) -> None:
        """The answer to `question` is ending: if it all is too long for the next turn, sum it up once it is stored."""
        session_id = run.started.session_id
        if not self._sums_up(candidate) or session_id in self._making:
            return
        started = run.started
        new = (
            PastMessage(started.user_message_id, replace(question, count=candidate.count)),
            PastMessage(started.message_id, Message("assistant", run.state.text(), count=candidate.count)),
        )
        said = [*told.said, *(each for each in new if each.message.text_for_model)]
        if self._fits(said):
            return
        task = self._aside.later(lambda: self._prepare(run, said, candidate))
        if task is not None:
            self._making[session_id] = task
            task.add_done_callback(lambda _: self._making.pop(session_id, None))

    async def _mended(self, run: Run, said: Sequence[PastMessage], candidate: ModelCandidate) -> Sequence[PastMessage]:
        """The conversation with a summary that suffices. Raises StreamForgeError."""
        session_id = run.started.session_id
        waits = session_id not in self._failed
        if waits and (making := self._making.get(session_id)) is not None:
            await asyncio.wait((making,))
        said = await self._refreshed(session_id, said)
        return await self._sum_up(run, said, candidate) if waits and not self._fits(said) else said

    def _sums_up(self, candidate: ModelCandidate) -> bool:
        return self._settings.summaries and candidate.model.writes and self._budget >= MIN_HISTORY_TOKENS

    def _fits(self, said: Sequence[PastMessage]) -> bool:
        covered = _latest(said)
        summary = said[covered - 1].summary if covered else None
        return is_short_enough(summary, [each.message for each in said[covered:]], self._budget)

    async def _prepare(self, run: Run, said: Sequence[PastMessage], candidate: ModelCandidate) -> None:
        await run.log.finished()
        said = await self._refreshed(run.started.session_id, said)
        if self._fits(said):
            return
        await self._sum_up(run, said, candidate)

    async def _refreshed(self, session_id: str, said: Sequence[PastMessage]) -> Sequence[PastMessage]:
        """The conversation with the summaries that were made since it was read."""
        kept = await self._summaries.of(session_id)
        return [replace(s, summary=kept[s.id].text) if s.id in kept else s for s in said]

    async def _sum_up(self, run: Run, said: Sequence[PastMessage], candidate: ModelCandidate) -> Sequence[PastMessage]:
        """The conversation with one more summary, which is stored. Raises StreamForgeError."""
        covered = _latest(said)
        summary = said[covered - 1].summary if covered else None
        tail = [each.message for each in said[covered:]]
        older = count_older_messages(tail, self._budget)
        if not older:
            return said
        by = self._by(candidate)
        for piece in split_conversation(tail[:older], self._budget):
            errand = ShortText(
                run.owner,
                run.started.session_id,
                "summary",
                SUMMARY_SYSTEM,
                summary_request(summary, piece),
                MAX_SUMMARY_TOKENS,
            )
            written = await self._aside.write(errand, by)
            summary = shorten_summary(written, self._budget) or summary
        if summary is None:
            return said
        self._failed.pop(run.started.session_id, None)
        last = said[covered + older - 1]
        with suppress(StreamForgeError):
            await self._summaries.put(SummaryRow(last.id, by.name, summary))
        return [replace(s, summary=summary) if s is last else s for s in said]

    def _by(self, candidate: ModelCandidate) -> ModelCandidate:
        model = self._settings.summary_model
        return candidate if model is None else self._models.chooser.choose(ModelChoice(model))[0]


def said_of(history: Sequence[StoredMessage], count: Count | None = None) -> list[PastMessage]:
    """Stored messages as a model is told them, with a note of their pictures; empty ones are left out."""
    found: list[PastMessage] = []
    for row in history:
        parts = decode_parts(row.parts)
        text, pictures = text_of(parts), images_of(parts) if row.role == "user" else ()
        if text or pictures:
            role = "user" if row.role == "user" else "assistant"
            message = Message(role, text, hidden_images=len(pictures), count=count)
            quotes = any(isinstance(part, SourcesPart) for part in parts)
            found.append(PastMessage(row.id, message, row.summary, pictures, quotes))
        elif row.summary is not None and found:
            found[-1] = replace(found[-1], summary=row.summary)
    return found


def _latest(said: Sequence[PastMessage]) -> int:
    """How many messages the last summary covers; 0 when there is none."""
    return next((n for n in range(len(said), 0, -1) if said[n - 1].summary is not None), 0)
