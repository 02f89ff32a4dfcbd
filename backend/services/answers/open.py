"""Puts together what answers messages. Nothing here is opened or closed: the runs are the hub's."""

from backend.config.settings import Settings
from backend.kit.locks import KeyedLocks
from backend.services.answers.perform import AnswerWriter
from backend.services.answers.plan import Planner
from backend.services.answers.start import Answers
from backend.services.conversations.open import Conversations
from backend.services.library.collections import CollectionService
from backend.services.library.documents import DocumentService
from backend.services.library.search.search import LibrarySearch
from backend.services.models.catalog import Models
from backend.services.prompts.prompts import PromptService
from backend.services.runs.open import Runs
from backend.services.usage.budgets import Budgets


def open_answers(
    settings: Settings,
    runs: Runs,
    models: Models,
    conversations: Conversations,
    documents: DocumentService,
    collections: CollectionService,
    search: LibrarySearch,
    prompts: PromptService,
    budgets: Budgets,
) -> Answers:
    """The answers, from the capabilities that they use."""
    planner = Planner(
        models,
        prompts,
        conversations.rows,
        documents,
        collections,
        search,
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
    )
    limit = settings.runs.max_message_chars
    return Answers(runs.hub, runs.turns, conversations.rows, planner, writer, KeyedLocks(), limit)
