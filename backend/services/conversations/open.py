"""Opens conversations: sessions with their messages, images, titles and summaries, and files of sessions."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backend.chains.calling.call import call_limits
from backend.config.groups.conversations import ConversationSettings
from backend.config.groups.models import ModelSettings
from backend.services.conversations.background import BackgroundWriter, MeterCall
from backend.services.conversations.feedback import FeedbackService
from backend.services.conversations.files.session_export import SessionExport
from backend.services.conversations.files.session_import import SessionImport
from backend.services.conversations.images import ImageService
from backend.services.conversations.message_search import MessageSearch
from backend.services.conversations.sessions import SessionService
from backend.services.conversations.summaries import Summarizer
from backend.services.conversations.titles import Titles
from backend.services.foundation import Core
from backend.services.models.open import Models
from backend.services.runs.hub import RunHub
from backend.storage.conversations.feedback import Feedbacks
from backend.storage.conversations.images import Images
from backend.storage.conversations.message_texts import MessageTexts
from backend.storage.conversations.sessions import Sessions
from backend.storage.conversations.summaries import Summaries
from backend.storage.runs.deletion import MessageDeletion


@dataclass(frozen=True, slots=True)
class Conversations:
    """Sessions, and what belongs to them. `rows` are the stored sessions, for answers."""

    sessions: SessionService
    images: ImageService
    titles: Titles
    summarizer: Summarizer
    feedback: FeedbackService
    message_search: MessageSearch
    session_export: SessionExport
    session_import: SessionImport
    rows: Sessions


@asynccontextmanager
async def opened(
    settings: ConversationSettings, calls: ModelSettings, core: Core, hub: RunHub, models: Models, meter_call: MeterCall
) -> AsyncGenerator[Conversations]:
    """The conversations. At the end, titles and summaries that are being written are cancelled.

    `calls` limits calls of models and the length of a history; `meter_call` books the calls for titles and summaries.
    """
    rows, summaries = Sessions(core.database), Summaries(core.database)
    feedback = Feedbacks(core.database)
    sessions = SessionService(rows, summaries, feedback, MessageDeletion(core.database), hub)
    texts = MessageTexts(core.database)
    await texts.open()
    writer = BackgroundWriter(call_limits(calls), meter_call)
    try:
        yield Conversations(
            sessions=sessions,
            images=ImageService(Images(core.database)),
            titles=Titles(rows, writer, models.chooser, settings.auto_title),
            summarizer=Summarizer(summaries, writer, models, settings, calls.llm_history_tokens),
            feedback=FeedbackService(feedback, rows, core.telemetry),
            message_search=MessageSearch(texts),
            session_export=SessionExport(rows, sessions, feedback),
            session_import=SessionImport(rows),
            rows=rows,
        )
    finally:
        await writer.close()
