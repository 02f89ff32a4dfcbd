"""Every part, opened in order and closed in the opposite one; `main.py` puts the routers in front of them."""

import asyncio
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
from backend.config.budgets import parse_budgets
from backend.config.fields import parse_hosts
from backend.config.settings import Settings, SettingsError
from backend.errors import Invalid
from backend.routers.edge.services import Services
from backend.services.answers.open import open_answers
from backend.services.conversations.open import opened as opened_conversations
from backend.services.core import Core
from backend.services.library.collections import CollectionService
from backend.services.library.documents import DocumentService
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.workers import JobWorkers
from backend.services.library.search.engine import SearchEngine
from backend.services.library.search.reranking import Reranking
from backend.services.library.search.search import LibrarySearch
from backend.services.lifecycle import Draining, Readiness
from backend.services.models.catalog import Models
from backend.services.prompts.prompts import PromptService
from backend.services.runs.open import Runs
from backend.services.runs.open import opened as opened_runs
from backend.services.telemetry.telemetry import Telemetry
from backend.services.usage.budgets import Budgets
from backend.services.usage.report import UsageService
from backend.services.web.fetching import Fetcher
from backend.storage.engine.database import Database
from backend.storage.engine.lock import DataDirLock
from backend.storage.prompts import Prompts
from backend.storage.usage.ledger import Ledger

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
        stack.push_async_callback(telemetry.close)
        await telemetry.open()
        database = Database(settings.storage.database_path)
        stack.push_async_callback(database.close)
        readiness = Readiness()
        core = Core(database, settings.storage.data_dir, telemetry, Draining(), readiness)
        asking = await _asking(stack, settings, core)
        library = _library(stack, settings, database, asking.usage, telemetry)

        async def load() -> None:
            await _load(services, library)
            if own_process:
                _settle()
            log.info("ready")

        readiness.add(load)
        services = await _services(stack, settings, core, asking, library)
        services.readiness.open()
        stack.push_async_callback(services.readiness.close)
        stack.push_async_callback(asking.runs.hub.close, settings.server.shutdown_grace)
        yield services


@dataclass(frozen=True, slots=True)
class _Asking:
    """What answers, and what that costs."""

    runs: Runs
    models: Models
    budgets: Budgets
    usage: UsageService


async def _asking(stack: AsyncExitStack, settings: Settings, core: Core) -> _Asking:
    language_models = Models(settings.models, settings.providers)
    stack.push_async_callback(language_models.close)
    hours = settings.storage.event_retention_hours
    runs = await stack.enter_async_context(
        opened_runs(settings.runs, core, language_models.charge, retention_hours=hours)
    )
    limits = parse_budgets(settings.usage.budgets)
    budgets = Budgets(limits, language_models, settings.models, settings.library)
    booked = UsageService(Ledger(core.database), budgets, language_models, settings.usage.usage_admins, core.telemetry)
    stack.push_async_callback(booked.close)
    return _Asking(runs, language_models, budgets, booked)


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
    stack: AsyncExitStack, settings: Settings, database: Database, booked: UsageService, telemetry: Telemetry
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
        metering=booked.embedding,
        telemetry=telemetry,
    )
    parser = Parser(timeout=wanted.parse_timeout)
    ingestion = JobWorkers(corpus, parser, knowledge, wanted.chunk_size, booked.embedding, telemetry)
    stack.push_async_callback(ingestion.close)
    return _Library(index, embedders, reranking, corpus, knowledge, ingestion)


async def _services(
    stack: AsyncExitStack, settings: Settings, core: Core, asking: _Asking, library: _Library
) -> Services:
    limits = settings.library
    max_bytes = limits.max_upload_mb * 1_000_000
    docs = DocumentService(library.corpus, library.ingestion, library.knowledge, max_bytes)
    collection_service = CollectionService(library.corpus, library.ingestion, library.knowledge)
    prompt_service = PromptService(Prompts(core.database))
    conversations = await stack.enter_async_context(
        opened_conversations(
            settings.conversations, settings.models, core, asking.runs.hub, asking.models, asking.usage.aside
        )
    )
    allowed = parse_hosts(limits.url_allowed_hosts)
    fetcher = Fetcher(settings.storage.data_dir, max_bytes=max_bytes, allowed=allowed, seconds=limits.url_timeout)
    stack.callback(fetcher.close)
    return Services(
        settings=settings,
        readiness=core.readiness,
        answers=open_answers(
            settings,
            asking.runs,
            asking.models,
            conversations,
            docs,
            collection_service,
            library.knowledge,
            prompt_service,
            asking.budgets,
        ),
        hub=asking.runs.hub,
        sessions=conversations.sessions,
        session_export=conversations.session_export,
        session_import=conversations.session_import,
        images=conversations.images,
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
    await services.models.open()
    _announce(services.settings, services.models)
    # One after the other: packages with import cycles (numpy) break when two threads import them at once.
    await library.index.open()
    await library.embedders.default.prepare()
    if library.reranking is not None:
        await library.reranking.open()
    await asyncio.to_thread(services.models.warm)
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
