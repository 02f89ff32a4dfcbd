"""Every part, opened in order and closed in the opposite one; `main.py` puts the routers in front of them."""

import gc
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from backend.chains.reading.parser import Parser
from backend.chains.retrieval.embeddings import Embedders, EmbeddingSettings
from backend.chains.retrieval.index import VectorIndex
from backend.chains.retrieval.rerankers import RerankerSettings, open_reranker
from backend.config.fields import parse_hosts
from backend.config.settings import Settings, SettingsError
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
from backend.services.library.collections import CollectionService
from backend.services.library.documents import DocumentService
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.workers import JobWorkers
from backend.services.library.search.engine import SearchEngine
from backend.services.library.search.reranking import Reranking
from backend.services.library.search.search import LibrarySearch
from backend.services.lifecycle import Draining, Readiness
from backend.services.models.open import Models
from backend.services.models.open import check_models as check_language_models
from backend.services.models.open import opened as opened_models
from backend.services.prompts.open import opened as opened_prompts
from backend.services.runs.hub import RunHub
from backend.services.telemetry.open import opened as opened_telemetry
from backend.services.telemetry.telemetry import Telemetry
from backend.services.usage.open import UsageServices
from backend.services.usage.open import opened as opened_usage
from backend.services.web.fetching import Fetcher
from backend.storage.conversations.images import Images
from backend.storage.conversations.sessions import Sessions
from backend.storage.conversations.summaries import Summaries
from backend.storage.engine.database import Database
from backend.storage.engine.lock import DataDirLock
from backend.storage.runs.turns import Turns

log = structlog.get_logger("streamforge")

_GC_THRESHOLDS = (50_000, 20, 50)
_THREADS = max(1, (os.cpu_count() or 2) // 2)
"""Of each model that runs in this process."""


@asynccontextmanager
async def opened(settings: Settings, lock: DataDirLock | None, telemetry: Telemetry) -> AsyncGenerator[Services]:
    """Every part, opened in order and closed in the opposite one."""
    async with AsyncExitStack() as stack:
        # Who brings the lock has the process for himself.
        own_process = lock is not None
        stack.callback((lock or DataDirLock(settings.storage.data_dir)).release)
        await stack.enter_async_context(opened_telemetry(telemetry))
        database = Database(settings.storage.database_path)
        stack.push_async_callback(database.close)
        core = Core(database, settings.storage.data_dir, telemetry, Draining(), Readiness())
        asking = await _asking(stack, settings, core)
        library = _library(stack, settings, database, asking.usage, telemetry)
        services = await _services(stack, settings, core, asking, library)

        async def load() -> None:
            await _load(services, library)
            if own_process:
                _settle()
            log.info("ready")

        core.readiness.add(load)
        core.readiness.open()
        stack.push_async_callback(core.readiness.close)
        stack.push_async_callback(asking.hub.close, settings.server.shutdown_grace)
        yield services


@dataclass(frozen=True, slots=True)
class _Asking:
    """What answers, and what that costs."""

    hub: RunHub
    models: Models
    usage: UsageServices


async def _asking(stack: AsyncExitStack, settings: Settings, core: Core) -> _Asking:
    language_models = await stack.enter_async_context(
        opened_models(settings.models, settings.providers, core.readiness)
    )
    retention_hours = settings.storage.event_retention_hours
    charge = language_models.pricing.charge
    hub = RunHub(Turns(core.database), settings.runs, retention_hours, charge, core.telemetry)
    await hub.open()
    usage = await stack.enter_async_context(opened_usage(settings, core, language_models.pricing))
    return _Asking(hub, language_models, usage)


@dataclass(frozen=True, slots=True)
class _Library:
    """What stores documents, indexes them and finds them again."""

    index: VectorIndex
    embedders: Embedders
    reranking: Reranking | None
    corpus: Holdings
    knowledge: LibrarySearch
    ingestion: JobWorkers


def _library(
    stack: AsyncExitStack, settings: Settings, database: Database, booked: UsageServices, telemetry: Telemetry
) -> _Library:
    wanted, files = settings.library, settings.storage.data_dir / "files"
    files.mkdir(exist_ok=True)
    index = VectorIndex(settings.storage.data_dir / "vectors")
    stack.push_async_callback(index.close)
    embedders = _embedders(settings)
    stack.push_async_callback(embedders.aclose)
    reranking = _reranking(settings)
    if reranking is not None:
        stack.push_async_callback(reranking.close)
    corpus = Holdings(database, index, embedders, files)
    stack.push_async_callback(corpus.aclose)
    knowledge = LibrarySearch(
        corpus.documents,
        corpus.collections,
        corpus.chunks,
        SearchEngine(corpus.chunks, index, embedders, reranking),
        embedders,
        floor=wanted.relevance_floor,
        width=wanted.passage_size,
        metering=booked.metering.embedding,
        telemetry=telemetry,
    )
    parser = Parser(timeout=wanted.parse_timeout)
    ingestion = JobWorkers(corpus, parser, knowledge, wanted.chunk_size, booked.metering.embedding, telemetry)
    stack.push_async_callback(ingestion.close)
    return _Library(index, embedders, reranking, corpus, knowledge, ingestion)


async def _services(
    stack: AsyncExitStack, settings: Settings, core: Core, asking: _Asking, library: _Library
) -> Services:
    database = core.database
    wanted, session_rows = settings.library, Sessions(database)
    max_bytes = wanted.max_upload_mb * 1_000_000
    docs = DocumentService(library.corpus, library.ingestion, library.knowledge, max_bytes)
    collection_service = CollectionService(library.corpus, library.ingestion, library.knowledge)
    allowed = parse_hosts(wanted.url_allowed_hosts)
    aside = BackgroundWriter(call_limits(settings.models), asking.usage.metering.outside_run)
    stack.push_async_callback(aside.close)
    summaries = Summaries(database)
    session_service = SessionService(session_rows, summaries, asking.hub)
    prompt_service, pictures = await stack.enter_async_context(opened_prompts(core)), Pictures(Images(database))
    planner = Planner(
        asking.models,
        prompt_service,
        session_rows,
        docs,
        collection_service,
        library.knowledge,
        wanted,
        asking.usage.budgets,
        pictures,
    )
    fetcher = Fetcher(settings.storage.data_dir, max_bytes=max_bytes, allowed=allowed, seconds=wanted.url_timeout)
    stack.callback(fetcher.close)
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
            wanted,
            settings.runs.max_message_chars,
        ),
        hub=asking.hub,
        sessions=session_service,
        transcripts=Transcripts(session_rows, session_service),
        pictures=pictures,
        documents=docs,
        collections=collection_service,
        fetcher=fetcher,
        knowledge=library.knowledge,
        models=asking.models,
        usage=asking.usage,
        prompts=prompt_service,
    )


async def _load(services: Services, library: _Library) -> None:
    """What answers need, loaded after the port is open. Raises StreamForgeError."""
    _announce(services.settings)
    # One after the other: packages with import cycles (numpy) break when two threads import them at once.
    await library.index.open()
    await library.embedders.default.prepare()
    if library.reranking is not None:
        await library.reranking.open()
    await services.documents.open()
    await services.collections.open()
    await library.ingestion.open()


def _settle() -> None:
    """What is loaded stays: looking through all of it for garbage would hold every stream for a quarter of a second."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _embedders(settings: Settings) -> Embedders:
    key = settings.models.openai_api_key
    options = EmbeddingSettings(
        cache_dir=settings.storage.data_dir / "cache",
        openai_api_key=key.get_secret_value() if key is not None else None,
        openai_base_url=settings.models.openai_base_url,
        ollama_base_url=settings.models.ollama_base_url,
        threads=_THREADS,
    )
    return Embedders(settings.library.embedding_model, options)


def _reranking(settings: Settings) -> Reranking | None:
    knowledge = settings.library
    if knowledge.reranker is None:
        return None
    key = knowledge.reranker_api_key
    options = RerankerSettings(
        model=knowledge.reranker_model,
        api_key=key.get_secret_value() if key is not None else None,
        threads=_THREADS,
    )
    reranker = open_reranker(knowledge.reranker, options)
    return Reranking(reranker, timeout=knowledge.reranker_timeout, candidates=knowledge.rerank_candidates)


def check_models(settings: Settings) -> None:
    """Raises SettingsError when a setting names a model that can't be. Calls nobody."""
    try:
        _embedders(settings)
    except ValueError as error:
        raise SettingsError(f"EMBEDDING_MODEL: {error}") from None
    try:
        _reranking(settings)
    except ValueError as error:
        raise SettingsError(f"RERANKER: {error}") from None
    check_language_models(settings.models, settings.providers, settings.conversations.summary_model)


def _announce(settings: Settings) -> None:
    """What a person who started the server wants to know first."""
    log.info("embedding", model=settings.library.embedding_model, why=_why_embedding(settings))
    log.info("data", folder=str(settings.storage.data_dir.resolve()))


def _why_embedding(settings: Settings) -> str:
    return "built in, no download" if settings.library.embedding_model.startswith("minilm/") else "EMBEDDING_MODEL"
