"""Opens answers: the planner, the writer, and the start of runs."""

from backend.config.settings import Settings
from backend.kit.locks import KeyedLocks
from backend.services.answers.perform import AnswerWriter
from backend.services.answers.plan import Planner
from backend.services.answers.start import Answers
from backend.services.conversations.open import Conversations
from backend.services.library.open import Library
from backend.services.models.open import Models
from backend.services.prompts.prompts import PromptService
from backend.services.runs.open import Runs
from backend.services.usage.budgets import Budgets


def open_answers(
    settings: Settings,
    runs: Runs,
    models: Models,
    conversations: Conversations,
    library: Library,
    prompts: PromptService,
    budgets: Budgets,
) -> Answers:
    """The answers. There is nothing to close: live runs are drained by the hub."""
    planner = Planner(
        models,
        prompts,
        conversations.rows,
        library.documents,
        library.collections,
        library.search,
        settings.library,
        budgets,
        conversations.images,
    )
    writer = AnswerWriter(
        runs.turns,
        models,
        conversations.summarizer,
        conversations.titles,
        conversations.images,
        settings.models,
        settings.library,
        int(settings.runs.max_answer_mb * 1_000_000),
        shows_advice=settings.server.api_keys is None,
    )
    limit = settings.runs.max_message_chars
    return Answers(runs.hub, runs.turns, conversations.rows, planner, writer, KeyedLocks(), limit)
