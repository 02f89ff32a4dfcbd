"""Opens the library: index, embedders, reranker, parser and workers, and everything that uses them."""

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from backend.chains.reading.parser import Parser
from backend.chains.retrieval.embeddings import Embedders, EmbeddingSettings
from backend.chains.retrieval.index import VectorIndex
from backend.config.groups.library import LibrarySettings
from backend.config.groups.models import ModelSettings
from backend.config.groups.storage import FILES
from backend.config.settings import Settings, SettingsError
from backend.kit.locks import KeyedLocks
from backend.kit.network.network import Network
from backend.services.foundation import Core
from backend.services.library.collections import CollectionService
from backend.services.library.documents import DocumentService
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.progress import LocalProgressBoard, ProgressBoard
from backend.services.library.jobs.workers import JobWorkers
from backend.services.library.moves import Moves
from backend.services.library.restore import VectorRestorer
from backend.services.library.search.engine import SearchEngine
from backend.services.library.search.search import LibrarySearch, Metering
from backend.services.library.sweep import Sweep
from backend.services.library.uploads import Uploads

if TYPE_CHECKING:
    from backend.services.library.search.reranking import Reranking

log = structlog.get_logger("streamforge")

_THREADS = max(1, (os.cpu_count() or 2) // 2)
"""Threads for each model that runs in this process."""


@dataclass(frozen=True, slots=True)
class Library:
    """Documents, collections and the search in them."""

    documents: DocumentService
    uploads: Uploads
    moves: Moves
    collections: CollectionService
    search: LibrarySearch
    sweep: Sweep
    board: ProgressBoard
    restorer: VectorRestorer


@asynccontextmanager
async def opened(
    settings: LibrarySettings, models: ModelSettings, core: Core, metering: Metering
) -> AsyncGenerator[Library]:
    """The library.

    `models` has the keys and addresses of embedding providers; `metering` charges owners for embeddings.
    The index, the models and the workers are loaded by `core.readiness`.
    """
    files = core.data_dir / FILES
    files.mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        index = VectorIndex(core.data_dir / "vectors")
        stack.push_async_callback(index.close)
        embedders = _embedders(settings, models, core.data_dir, core.network)
        stack.push_async_callback(embedders.aclose)
        reranking = _reranking(settings, core.network)
        if reranking is not None:
            stack.push_async_callback(reranking.close)
        holdings = Holdings(core.database, index, embedders, files)
        stack.push_async_callback(holdings.aclose)
        search = LibrarySearch(
            holdings.documents,
            holdings.collections,
            holdings.chunks,
            SearchEngine(holdings.chunks, index, embedders, reranking),
            embedders,
            floor=settings.relevance_floor,
            width=settings.passage_size,
            metering=metering,
            telemetry=core.telemetry,
        )
        board = LocalProgressBoard()
        parser = Parser(timeout=settings.parse_timeout)
        stack.push_async_callback(parser.aclose)
        workers = JobWorkers(
            holdings,
            parser,
            board,
            search,
            settings.chunk_size,
            metering,
            core.telemetry,
            shows_advice=core.shows_advice,
        )
        stack.push_async_callback(workers.close)
        restorer = VectorRestorer(holdings, workers)
        stack.push_async_callback(restorer.close)
        library = _library(settings, holdings, workers, board, search, restorer)

        async def dismiss_watchers(grace: float) -> None:
            board.dismiss_watchers()

        core.draining.add(dismiss_watchers)

        async def announce() -> None:
            is_built_in = settings.embedding_model.startswith("minilm/")
            why = "built in, no download" if is_built_in else "EMBEDDING_MODEL"
            log.info("embedding", model=settings.embedding_model, why=why)

        core.readiness.add(announce)
        core.readiness.add(restorer.open)
        core.readiness.add(embedders.default.prepare)
        if reranking is not None:
            core.readiness.add(reranking.open)
        core.readiness.add(library.sweep.sweep_all)
        core.readiness.add(library.collections.open)
        core.readiness.add(workers.open)
        yield library


def _library(
    settings: LibrarySettings,
    holdings: Holdings,
    workers: JobWorkers,
    board: ProgressBoard,
    search: LibrarySearch,
    restorer: VectorRestorer,
) -> Library:
    locks, unstored = KeyedLocks(), set[str]()
    documents = DocumentService(holdings, workers, board, search, locks)
    max_bytes = settings.max_upload_mb * 1_000_000
    return Library(
        documents=documents,
        uploads=Uploads(holdings, documents, workers, board, search, locks, unstored, max_bytes),
        moves=Moves(holdings, documents, workers, board, search, locks),
        collections=CollectionService(holdings, workers, board, search),
        search=search,
        sweep=Sweep(holdings, workers, search, restorer, unstored),
        board=board,
        restorer=restorer,
    )


def check(settings: Settings) -> None:
    """Raises SettingsError if EMBEDDING_MODEL or RERANKER names something that can't exist. Sends no request."""
    try:
        _embedders(settings.library, settings.models, settings.storage.data_dir, settings.network.network())
    except ValueError as error:
        raise SettingsError(f"EMBEDDING_MODEL: {error}") from None
    try:
        _reranking(settings.library, settings.network.network())
    except ValueError as error:
        raise SettingsError(f"RERANKER: {error}") from None


def _embedders(settings: LibrarySettings, models: ModelSettings, data_dir: Path, network: Network) -> Embedders:
    key = models.openai_api_key
    options = EmbeddingSettings(
        cache_dir=data_dir / "cache",
        openai_api_key=key.get_secret_value() if key is not None else None,
        openai_base_url=models.openai_base_url,
        ollama_base_url=models.ollama_base_url,
        threads=_THREADS,
        network=network,
    )
    return Embedders(settings.embedding_model, options)


def _reranking(settings: LibrarySettings, network: Network) -> "Reranking | None":
    if settings.reranker is None:
        return None
    # Without a reranker, its modules are not imported.
    from backend.chains.retrieval.rerankers import RerankerSettings, open_reranker
    from backend.services.library.search.reranking import Reranking

    key = settings.reranker_api_key
    options = RerankerSettings(
        model=settings.reranker_model,
        api_key=key.get_secret_value() if key is not None else None,
        threads=_THREADS,
        network=network,
    )
    reranker = open_reranker(settings.reranker, options)
    return Reranking(reranker, timeout=settings.reranker_timeout, candidates=settings.rerank_candidates)
