"""The body of a run: reads the history and its images, runs the answer chain, and schedules the title and summary."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from backend import events as ev
from backend.chains.answer.answer import AnswerInput, Finished, answer
from backend.chains.calling.call import call_limits
from backend.chains.calling.fallback import Attempts
from backend.chains.history.images import images_that_fit
from backend.chains.models.prompt import Image, Message
from backend.chains.passages import SearchTrace
from backend.config.fields import parse_hosts
from backend.config.groups.library import LibrarySettings
from backend.config.groups.models import ModelSettings
from backend.services.answers.plan import AnswerPlan
from backend.services.conversations.history import History
from backend.services.conversations.images import ImageService
from backend.services.conversations.summaries import Summarizer
from backend.services.conversations.titles import Titles
from backend.services.models.open import Models
from backend.services.runs.run import Run
from backend.storage.conversations.messages import StoredMessage
from backend.storage.runs.turns import Turns


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A stored message and the plan of its answer. `history` is the path to the message's parent, oldest first.
    `blocking_run` is a live run of the session that must end first; then the path is read again."""

    plan: AnswerPlan
    history: Sequence[StoredMessage]
    parent_id: str | None
    blocking_run: Run | None


class AnswerWriter:
    """Writes the answers of live runs."""

    def __init__(
        self,
        turns: Turns,
        models: Models,
        summarizer: Summarizer,
        titles: Titles,
        images: ImageService,
        settings: ModelSettings,
        library: LibrarySettings,
        max_bytes: int,
        *,
        shows_advice: bool,
    ) -> None:
        self._turns = turns
        self._health = models.health
        self._chooser = models.chooser
        self._summarizer = summarizer
        self._titles = titles
        self._images = images
        self._settings = settings
        self._shows_advice = shows_advice
        self._limits = call_limits(settings)
        self._max_bytes = max_bytes
        self._link_hosts = parse_hosts(library.allowed_link_hosts)

    async def write(self, turn: OpenTurn, run: Run) -> str:
        """Emit all events of the answer. Returns the finish reason. Raises RunError."""
        plan, past = turn.plan, turn.history
        if turn.blocking_run is not None:
            run.emit(ev.Status(phase="queued"))
            await turn.blocking_run.log.wait_for_end()
            past = await self._turns.history(run.started.session_id, turn.parent_id)
        history = await self._summarizer.recall(run, past, plan.candidates[0])
        reason = await self._answer(run, plan, history)
        self._schedule_texts(run, plan, history)
        return reason

    async def _answer(self, run: Run, plan: AnswerPlan, history: History) -> str:
        """Run the answer chain and emit its events. Returns the finish reason."""
        images, history = await self._load_images(run, plan, history)
        inputs = AnswerInput(
            candidates=plan.candidates,
            attempts=Attempts(
                limits=self._limits,
                health=self._health,
                first_token_timeout=self._settings.attempt_timeout,
                after_output=plan.request.fallback_after_output,
                observer=run.observer,
            ),
            question=plan.request.message,
            history=history.messages,
            summary=history.summary,
            summarized=history.summarized,
            retriever=plan.retriever,
            rewriter=self._chooser.for_tasks(plan.candidates[0]) if self._settings.task_model is not None else None,
            system=plan.system,
            examples=plan.examples,
            wrapped=plan.wrapped,
            history_tokens=self._settings.llm_history_tokens,
            images=images,
            quoted_before=history.has_sources,
            link_hosts=self._link_hosts,
            shows_advice=self._shows_advice,
            input_limit=plan.spending.input_limit if plan.spending is not None else None,
            max_bytes=self._max_bytes,
        )
        reason = "stop"
        async with aclosing(answer(inputs)) as outputs:
            async for output in outputs:
                if isinstance(output, Finished):
                    reason = output.reason
                elif isinstance(output, SearchTrace):
                    run.state.retrieval = output.json
                else:
                    run.emit(output)
        return reason

    async def _load_images(self, run: Run, plan: AnswerPlan, history: History) -> tuple[tuple[Image, ...], History]:
        """The message's images, and the history with the earlier images that fit."""
        request, session_id = plan.request, run.started.session_id
        limit = images_that_fit(self._settings.llm_history_tokens, request.image_count)
        if plan.spending is not None:
            limit = plan.spending.images
        images = request.images or await self._images.load(session_id, request.kept_images)
        return images, await self._images.with_images(session_id, history, limit, images)

    def _schedule_texts(self, run: Run, plan: AnswerPlan, history: History) -> None:
        """Schedule the title and the summary. The answer doesn't wait for them."""
        name = run.state.model or run.started.model
        model = next((c for c in plan.candidates if c.name == name), plan.candidates[0])
        if not history.past and plan.request.sibling_of is None:
            self._titles.schedule(run, plan.request.message, model)
        question = Message("user", plan.request.message, hidden_images=plan.request.image_count)
        self._summarizer.schedule(run, history, question, model)
