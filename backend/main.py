"""`python -m backend.main` serves; `create_app()` is for those who embed it. `wiring.py` has what it serves."""

import gc
import os
import sys

if __name__ == "__main__":
    # Nothing that is imported becomes garbage, and looking for it takes a tenth of the start.
    gc.disable()
    # structlog would import rich, for tracebacks that are not used here.
    sys.modules["rich"] = None  # pyright: ignore[reportArgumentType]

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from backend import __version__
from backend.config.logging import configure_logging
from backend.config.settings import Settings, SettingsError, parse_keys
from backend.routers import (
    chat,
    collections,
    documents,
    images,
    messages,
    metrics,
    models,
    problems,
    prompts,
    runs,
    search,
    sessions,
    sources,
    system,
    transcripts,
    usage,
)
from backend.routers.guard import Guard
from backend.routers.keys import KeyGate
from backend.routers.openapi import install_openapi
from backend.server import CLOSE_SECONDS, Server, is_taken
from backend.services.observability import check_telemetry, open_telemetry
from backend.services.telemetry import Telemetry
from backend.storage.database import DataDirInUse, DataDirLock
from backend.wiring import check_models, opened

log = structlog.get_logger("streamforge")

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
    configure_logging(settings.log)
    counted, telemetry = open_telemetry(settings.telemetry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with opened(settings, lock, telemetry) as services:
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
    # What is asked for most comes first: routes are tried one after the other.
    for module in (chat, messages, sources, transcripts):
        app.include_router(module.router, max_body_size=_MAX_TEXT)
    for module in (runs, sessions, images, models, prompts, usage, system, metrics, search, collections):
        app.include_router(module.router, max_body_size=_MAX_BODY)
    most = settings.knowledge.max_upload_mb * 1_000_000 * _FILES_A_REQUEST + _MAX_BODY
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


def serve(settings: Settings) -> int:
    """Serve until a signal; the exit code."""
    try:
        lock = DataDirLock(settings.storage.data_dir)
    except DataDirInUse as error:
        print(f"streamforge: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = settings.storage.data_dir
        print(f"streamforge: DATA_DIR: {where} can't be made or written ({error.strerror})", file=sys.stderr)
        return 2
    if is_taken(settings.server.host, settings.server.port):
        print(f"streamforge: port {settings.server.port} is in use. Set PORT.", file=sys.stderr)
        return 2
    server = Server(create_app(settings, lock), settings)
    server.run()
    return 0 if server.started else 1


def main() -> int:
    """Read the settings and serve."""
    # Its threads wait by spinning, which costs a search twice its CPU time; the products here are too small for them.
    # Read when numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        settings = Settings.load()
        check_models(settings)
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
    del sys.modules["rich"]
    gc.freeze()
    gc.enable()
    sys.exit(main())
