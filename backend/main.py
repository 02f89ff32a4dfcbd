"""The only place where parts are wired. `python -m backend.main` serves; `create_app()` is for those who embed it."""

import asyncio
import gc
import importlib
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from backend import __version__
from backend.chains.retrieval.embeddings import Embedders, EmbeddingSettings
from backend.chains.retrieval.index import VectorIndex
from backend.chains.retrieval.parser import Parser
from backend.chains.retrieval.rerankers import RerankerSettings, open_reranker
from backend.config.budgets import parse_budgets
from backend.config.logging import configure_logging
from backend.config.settings import Settings, SettingsError, parse_hosts, parse_keys
from backend.errors import Invalid
from backend.routers import (
    chat,
    collections,
    documents,
    metrics,
    models,
    problems,
    runs,
    search,
    sessions,
    sources,
    system,
    usage,
)
from backend.routers.guard import Guard
from backend.routers.keys import KeyGate
from backend.routers.openapi import install_openapi
from backend.routers.state import Services
from backend.server import CLOSE_SECONDS, Server
from backend.services.budgets import Budgets
from backend.services.chat import ChatService
from backend.services.collections import CollectionService
from backend.services.corpus import Corpus
from backend.services.documents import DocumentService
from backend.services.fetching import Fetcher
from backend.services.ingestion import Ingestion
from backend.services.knowledge import Knowledge
from backend.services.models import Models
from backend.services.observability import check_telemetry, open_telemetry
from backend.services.readiness import Readiness
from backend.services.reranking import Reranking
from backend.services.runs import RunHub
from backend.services.search import Search
from backend.services.sessions import SessionService
from backend.services.telemetry import Telemetry
from backend.services.usage import UsageService
from backend.storage.database import Database, DataDirInUse, DataDirLock
from backend.storage.ledger import Ledger
from backend.storage.sessions import Sessions
from backend.storage.turns import Turns

log = structlog.get_logger("streamforge")

_DESCRIPTION = """A self-hosted streaming answer engine: ask, and the answer streams, grounded in your documents, with
citations that quote them. A stream never gets lost: come back to it at any event.

**In a minute:** `POST /documents/upload` a file, then `POST /chat` a question that it answers."""
_MAX_BODY = 1_000_000
"""Bytes of a JSON request; far more than a message may have."""
_MAX_TEXT = 10_000_000
"""Bytes of a JSON request that brings a text or pictures: decoding one holds every stream, 3 to 7 ms a megabyte."""
_GC_THRESHOLDS = (50_000, 20, 50)
_THREADS = max(1, (os.cpu_count() or 2) // 2)
"""Of each model that runs in this process."""
_FILES_A_REQUEST = 4
"""Largest files that fit into one upload; more go into another."""


def create_app(settings: Settings | None = None, lock: DataDirLock | None = None) -> FastAPI:
    """The ASGI application. Its lifespan opens what lies in DATA_DIR and closes it.

    Raises SettingsError on a wrong setting; the lifespan raises DataDirInUse unless `lock` is held already.
    """
    settings = settings or Settings.load()
    configure_logging(settings.log)
    counted, telemetry = open_telemetry(settings.telemetry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with _opened(settings, lock, telemetry) as services:
            app.state.metrics = counted
            app.state.services = services
            yield

    app = FastAPI(
        title=system.NAME,
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        license_info={"name": "MIT"},
        # Its own spans would hold paths and queries, which may hold what a person typed.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    _include_routers(app, settings)
    _add_middleware(app, settings, telemetry)
    return app


def _include_routers(app: FastAPI, settings: Settings) -> None:
    # Limits are the routers', not the app's: FastAPI would apply the app's before the guard has seen the request.
    for module in (chat, runs, sessions, models, usage, system, metrics, search, collections):
        app.include_router(module.router, max_body_size=_MAX_BODY)
    most = settings.knowledge.max_upload_mb * 1_000_000 * _FILES_A_REQUEST + _MAX_BODY
    app.include_router(sources.router, max_body_size=_MAX_TEXT)
    app.include_router(documents.router, max_body_size=most)
    system.install_docs(app)
    install_openapi(app)
    problems.install(app)


def _add_middleware(app: FastAPI, settings: Settings, telemetry: Telemetry) -> None:
    """The last one added sees a request first: guard, CORS, keys."""
    app.add_middleware(KeyGate, keys=parse_keys(settings.server.api_keys))
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.server.cors_origins),
        allow_methods=["*"],
        allow_headers=["Authorization", "Content-Type", "Last-Event-ID", "Idempotency-Key", "X-Request-ID"],
        expose_headers=["Location", "Content-Location", "Retry-After", "X-StreamForge-Protocol", "X-Request-ID"],
    )
    app.add_middleware(Guard, settings=settings.server, telemetry=telemetry)


@asynccontextmanager
async def _opened(settings: Settings, lock: DataDirLock | None, telemetry: Telemetry) -> AsyncGenerator[Services]:
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
        library = _library(stack, settings, database, asking.usage, telemetry)

        async def load() -> None:
            await _load(services, library)
            if own_process:
                _settle()
            log.info("ready")

        services = _services(stack, settings, database, asking, library, Readiness(load))
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
    budgets = Budgets(limits, language_models, settings.models, settings.knowledge)
    booked = UsageService(Ledger(database), budgets, language_models, settings.usage.usage_admins, telemetry)
    return _Asking(hub, language_models, budgets, booked)


@dataclass(frozen=True, slots=True)
class _Library:
    """What stores documents, indexes them and finds them again."""

    index: VectorIndex
    embedders: Embedders
    reranking: Reranking | None
    corpus: Corpus
    knowledge: Knowledge
    ingestion: Ingestion


def _library(
    stack: AsyncExitStack, settings: Settings, database: Database, booked: UsageService, telemetry: Telemetry
) -> _Library:
    wanted, files = settings.knowledge, settings.storage.data_dir / "files"
    files.mkdir(exist_ok=True)
    index = VectorIndex(settings.storage.data_dir / "vectors")
    stack.push_async_callback(index.close)
    embedders = _embedders(settings)
    stack.push_async_callback(embedders.aclose)
    reranking = _reranking(settings)
    if reranking is not None:
        stack.push_async_callback(reranking.close)
    corpus = Corpus(database, index, embedders, files)
    stack.push_async_callback(corpus.aclose)
    knowledge = Knowledge(
        corpus.documents,
        corpus.collections,
        corpus.chunks,
        Search(corpus.chunks, index, embedders, reranking),
        embedders,
        floor=wanted.relevance_floor,
        width=wanted.passage_size,
        metering=booked.embedding,
        telemetry=telemetry,
    )
    parser = Parser(timeout=wanted.parse_timeout)
    ingestion = Ingestion(corpus, parser, knowledge, wanted.chunk_size, booked.embedding, telemetry)
    stack.push_async_callback(ingestion.close)
    return _Library(index, embedders, reranking, corpus, knowledge, ingestion)


def _services(
    stack: AsyncExitStack,
    settings: Settings,
    database: Database,
    asking: _Asking,
    library: _Library,
    readiness: Readiness,
) -> Services:
    wanted, session_rows = settings.knowledge, Sessions(database)
    max_bytes = wanted.max_upload_mb * 1_000_000
    docs = DocumentService(library.corpus, library.ingestion, library.knowledge, max_bytes)
    collection_service = CollectionService(library.corpus, library.ingestion, library.knowledge)
    allowed = parse_hosts(wanted.url_allowed_hosts)
    fetcher = Fetcher(settings.storage.data_dir, max_bytes=max_bytes, allowed=allowed, seconds=wanted.url_timeout)
    stack.callback(fetcher.close)
    return Services(
        settings=settings,
        readiness=readiness,
        chat=ChatService(
            Turns(database),
            asking.hub,
            asking.models,
            asking.budgets,
            docs,
            collection_service,
            session_rows,
            library.knowledge,
            settings.models,
            wanted,
            settings.runs.max_message_chars,
        ),
        hub=asking.hub,
        sessions=SessionService(session_rows, asking.hub),
        documents=docs,
        collections=collection_service,
        fetcher=fetcher,
        knowledge=library.knowledge,
        models=asking.models,
        usage=asking.usage,
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
    await asyncio.to_thread(_import_sdk, services.models)
    await services.documents.open()
    await services.collections.open()
    await library.ingestion.open()


def _settle() -> None:
    """What is loaded stays: looking through all of it for garbage would hold every stream for a quarter of a second."""
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
    return Embedders(settings.knowledge.embedding_model, options)


def _reranking(settings: Settings) -> Reranking | None:
    knowledge = settings.knowledge
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


def _check_models(settings: Settings) -> None:
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
    except (Invalid, ValueError) as error:
        raise SettingsError(f"MODELS_FILE: {error}") from None
    if settings.models.llm_model is not None:
        try:
            models.resolve(settings.models.llm_model)
        except Invalid as error:
            raise SettingsError(f"LLM_MODEL: {error.message.removeprefix('model: ')}") from None


def _import_sdk(language_models: Models) -> None:
    """Import what the default model needs, so that the first answer doesn't wait for it."""
    for module in language_models.default_needs():
        importlib.import_module(module)


def _announce(settings: Settings, language_models: Models) -> None:
    """What a person who started the server wants to know first."""
    default = language_models.default
    log.info("chat_model", model=default.name, why=default.reason)
    log.info("embedding", model=settings.knowledge.embedding_model, why=_why_embedding(settings))
    log.info("data", folder=str(settings.storage.data_dir.resolve()))
    if default.name.startswith("extractive/"):
        log.info("for_more", set="OPENAI_API_KEY, or OPENAI_BASE_URL, or start Ollama; see .env.example")


def _why_embedding(settings: Settings) -> str:
    return "built in, no download" if settings.knowledge.embedding_model.startswith("minilm/") else "EMBEDDING_MODEL"


def serve(settings: Settings) -> int:
    """Serve until a signal; the exit code."""
    try:
        lock = DataDirLock(settings.storage.data_dir)
    except (DataDirInUse, OSError) as error:
        print(f"streamforge: {error}", file=sys.stderr)
        return 1
    server = Server(create_app(settings, lock), settings)
    server.run()
    return 0 if server.started else 1


def main() -> int:
    """Read the settings and serve."""
    try:
        settings = Settings.load()
        _check_models(settings)
        check_telemetry(settings.telemetry)
    except SettingsError as error:
        print(f"streamforge: {error}", file=sys.stderr)
        return 2
    if settings.server.reload:
        uvicorn.run(
            "backend.main:create_app",
            factory=True,
            reload=True,
            reload_dirs=[str(Path(__file__).parent)],
            host=settings.server.host,
            port=settings.server.port,
            log_config=None,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
        return 0
    return serve(settings)


def __getattr__(name: str) -> FastAPI:
    """`backend.main:app`, made when a server asks for it."""
    if name == "app":
        return create_app()
    raise AttributeError(name)


if __name__ == "__main__":
    sys.exit(main())
