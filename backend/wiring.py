"""Every part, opened in order and closed in the opposite one; `main.py` puts the routers in front of them."""

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from backend.config.budgets import parse_budgets
from backend.config.settings import Settings, SettingsError
from backend.errors import Invalid
from backend.routers.edge.services import Services
from backend.services.answers.plan import Planner
from backend.services.answers.start import ChatService, call_limits
from backend.services.conversations.background import BackgroundWriter
from backend.services.conversations.history import Summarizer
from backend.services.conversations.images import Pictures
from backend.services.conversations.session_export import Transcripts
from backend.services.conversations.sessions import SessionService
from backend.services.conversations.titles import Titles
from backend.services.core import Core
from backend.services.library import open as library_open
from backend.services.library.open import Library
from backend.services.lifecycle import Draining, Readiness
from backend.services.models.catalog import Models
from backend.services.prompts.prompts import PromptService
from backend.services.runs.hub import RunHub
from backend.services.telemetry.telemetry import Telemetry
from backend.services.usage.budgets import Budgets
from backend.services.usage.report import UsageService
from backend.services.web import open as web_open
from backend.storage.conversations.images import Images
from backend.storage.conversations.sessions import Sessions
from backend.storage.conversations.summaries import Summaries
from backend.storage.engine.database import Database
from backend.storage.engine.lock import DataDirLock
from backend.storage.prompts import Prompts
from backend.storage.runs.turns import Turns
from backend.storage.usage.ledger import Ledger

log = structlog.get_logger("streamforge")

_GC_THRESHOLDS = (50_000, 20, 50)


@asynccontextmanager
async def opened(settings: Settings, lock: DataDirLock | None, telemetry: Telemetry) -> AsyncGenerator[Services]:
    """Every part, opened in order and closed in the opposite one."""
    async with AsyncExitStack() as stack:
        # Who brings the lock has the process for himself.
        own_process = lock is not None
        stack.callback((lock or DataDirLock(settings.storage.data_dir)).release)
        stack.push_async_callback(telemetry.close)
        await telemetry.open()
        database = Database(settings.storage.database_path)
        stack.push_async_callback(database.close)
        asking = await _asking(stack, settings, database, telemetry)

        async def load() -> None:
            await _load(services)

        async def settle() -> None:
            if own_process:
                _settle()
            log.info("ready")

        core = Core(database, settings.storage.data_dir, telemetry, Draining(), Readiness())
        core.readiness.add(load)
        library = await stack.enter_async_context(
            library_open.opened(settings.library, settings.models, core, asking.usage.embedding)
        )
        core.readiness.add(settle)
        services = await _services(stack, settings, core, asking, library)
        services.readiness.open()
        stack.push_async_callback(services.readiness.close)
        stack.push_async_callback(asking.hub.close, settings.server.shutdown_grace)
        yield services


@dataclass(frozen=True, slots=True)
class _Asking:
    """What answers, and what that costs."""

    hub: RunHub
    models: Models
    budgets: Budgets
    usage: UsageService


async def _asking(stack: AsyncExitStack, settings: Settings, database: Database, telemetry: Telemetry) -> _Asking:
    language_models = Models(settings.models, settings.providers)
    stack.push_async_callback(language_models.close)
    kept = settings.storage.event_retention_hours
    hub = RunHub(Turns(database), settings.runs, kept, language_models.charge, telemetry)
    await hub.open()
    limits = parse_budgets(settings.usage.budgets)
    budgets = Budgets(limits, language_models, settings.models, settings.library)
    booked = UsageService(Ledger(database), budgets, language_models, settings.usage.usage_admins, telemetry)
    stack.push_async_callback(booked.close)
    return _Asking(hub, language_models, budgets, booked)


async def _services(
    stack: AsyncExitStack, settings: Settings, core: Core, asking: _Asking, library: Library
) -> Services:
    database, session_rows = core.database, Sessions(core.database)
    aside = BackgroundWriter(call_limits(settings.models), asking.usage.aside)
    stack.push_async_callback(aside.close)
    summaries = Summaries(database)
    session_service = SessionService(session_rows, summaries, asking.hub)
    prompt_service, pictures = PromptService(Prompts(database)), Pictures(Images(database))
    planner = Planner(
        asking.models,
        prompt_service,
        session_rows,
        library.documents,
        library.collections,
        library.search,
        settings.library,
        asking.budgets,
        pictures,
    )
    fetcher = await stack.enter_async_context(web_open.opened(settings.library, core))
    return Services(
        settings=settings,
        readiness=core.readiness,
        chat=ChatService(
            Turns(database),
            asking.hub,
            asking.models,
            planner,
            Summarizer(summaries, aside, asking.models, settings.conversations, settings.models.llm_history_tokens),
            Titles(session_rows, aside, settings.conversations.auto_title),
            session_rows,
            pictures,
            settings.models,
            settings.library,
            settings.runs.max_message_chars,
        ),
        hub=asking.hub,
        sessions=session_service,
        transcripts=Transcripts(session_rows, session_service),
        pictures=pictures,
        library=library,
        fetcher=fetcher,
        models=asking.models,
        usage=asking.usage,
        prompts=prompt_service,
    )


async def _load(services: Services) -> None:
    """What answers need, loaded after the port is open. Raises StreamForgeError."""
    await services.models.open()
    _announce(services.settings, services.models)
    await asyncio.to_thread(services.models.warm)


def _settle() -> None:
    """What is loaded stays: looking through all of it for garbage would hold every stream for a quarter of a second."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def check_models(settings: Settings) -> None:
    """Raises SettingsError when a setting names a model that can't be. Calls nobody."""
    library_open.check(settings)
    try:
        models = Models(settings.models, settings.providers)
    except Invalid as error:
        raise SettingsError(f"MODELS_FILE: {error.message.removeprefix('model: ')}") from None
    except ValueError as error:
        raise SettingsError(str(error)) from None
    for name, model in (
        ("LLM_MODEL", settings.models.llm_model),
        ("SUMMARY_MODEL", settings.conversations.summary_model),
    ):
        try:
            if model is not None:
                models.check(model)
        except Invalid as error:
            raise SettingsError(f"{name}: {error.message.removeprefix('model: ')}") from None


def _announce(settings: Settings, language_models: Models) -> None:
    """What a person who started the server wants to know first."""
    default = language_models.default
    log.info("chat_model", model=default.name, why=default.reason)
    log.info("embedding", model=settings.library.embedding_model, why=_why_embedding(settings))
    log.info("data", folder=str(settings.storage.data_dir.resolve()))
    if language_models.missed:
        log.warning("no_language_model", why=default.reason, look="GET /models says why; it is looked for at requests")
    elif default.name.startswith("extractive/"):
        log.info("for_more", set="OPENAI_API_KEY, or OPENAI_BASE_URL, or start Ollama; see .env.example")


def _why_embedding(settings: Settings) -> str:
    return "built in, no download" if settings.library.embedding_model.startswith("minilm/") else "EMBEDDING_MODEL"
