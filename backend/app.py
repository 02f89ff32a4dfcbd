"""The ASGI application: middleware, routers, OpenAPI, and the lifespan that opens every service."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from backend import __version__
from backend.config.groups.accounts import parse_keys
from backend.config.logging import configure_logging
from backend.config.settings import Settings
from backend.routers import (
    chat,
    collections,
    images,
    messages,
    metrics,
    models,
    prompts,
    runs,
    search,
    system,
    usage,
)
from backend.routers.documents import documents, uploads, views
from backend.routers.edge import problems
from backend.routers.edge.authentication import KeyGate
from backend.routers.edge.guard import Guard
from backend.routers.edge.openapi import install_openapi
from backend.routers.sessions import files, sessions
from backend.services.telemetry.open import make_telemetry
from backend.services.telemetry.telemetry import Telemetry
from backend.storage.engine.lock import DataDirLock
from backend.wiring import opened

_DESCRIPTION = """A self-hosted streaming answer engine: ask, and the answer streams, grounded in your documents, with
citations that quote them. A stream never gets lost: come back to it at any event.

**In a minute:** `POST /documents/upload` a file, then `POST /chat` a question that it answers."""


_MAX_BODY = 1_000_000
"""Bytes of a JSON request; far more than a message may have."""


_MAX_TEXT = 10_000_000
"""Bytes of a JSON request that brings a text or pictures: decoding one holds every stream, 3 to 7 ms a megabyte."""


_FILES_A_REQUEST = 4
"""Largest files that fit into one upload; more go into another."""


def create_app(settings: Settings | None = None, lock: DataDirLock | None = None) -> FastAPI:
    """The ASGI application. Its lifespan opens what lies in DATA_DIR and closes it.

    Raises SettingsError on a wrong setting; the lifespan raises DataDirInUse unless `lock` is held already.
    """
    settings = settings or Settings.load()
    configure_logging(settings.logs)
    metrics_sink, telemetry = make_telemetry(settings.telemetry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with opened(settings, lock, telemetry) as services:
            app.state.metrics = metrics_sink
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
    # What is asked for most comes first: routes are tried one after the other.
    for module in (chat, messages, uploads, files):
        app.include_router(module.router, max_body_size=_MAX_TEXT)
    for module in (runs, sessions, images, models, prompts, usage, system, metrics, search, collections):
        app.include_router(module.router, max_body_size=_MAX_BODY)
    most = settings.library.max_upload_mb * 1_000_000 * _FILES_A_REQUEST + _MAX_BODY
    app.include_router(documents.router, max_body_size=most)
    system.install_docs(app)
    install_openapi(app, [views.DocumentEvent])
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
