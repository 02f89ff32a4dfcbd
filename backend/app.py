"""The ASGI application: middleware, routers, OpenAPI, and the lifespan that opens every service."""

import functools
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from backend import __version__
from backend.config.groups.accounts import parse_keys
from backend.config.logging import configure_logging
from backend.config.settings import Settings
from backend.routers import max_body_of, modules_of, system
from backend.routers.edge import problems
from backend.routers.edge.authentication import KeyGate
from backend.routers.edge.guard import Guard
from backend.routers.edge.methods import Methods, allowed_methods, methods_of_paths
from backend.routers.edge.openapi import install_openapi
from backend.routers.edge.router import limit_bodies
from backend.services.telemetry.open import make_telemetry
from backend.services.telemetry.telemetry import Telemetry
from backend.storage.engine.lock import DataDirLock
from backend.wiring import opened

_DESCRIPTION = """A self-hosted streaming answer engine: ask, and the answer streams, grounded in your documents, with
citations that quote them. A stream never gets lost: come back to it at any event.

**In a minute:** `POST /documents/upload` a file, then `POST /chat` a question that it answers."""


def create_app(settings: Settings | None = None, lock: DataDirLock | None = None) -> FastAPI:
    """The ASGI application. Its lifespan opens all services and closes them.

    `lock` is the lock of DATA_DIR, if the caller holds it already; without it, the lifespan takes the lock. Raises
    SettingsError if a setting is wrong. The lifespan raises DataDirInUse if another process holds the lock.
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
        # The names of the functions: clients that are generated call the endpoints by them.
        generate_unique_id_function=lambda route: route.name,
        license_info={"name": "MIT"},
        # FastAPI's own spans would contain paths and queries, which may contain a user's text.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    modules = list(modules_of(settings))
    _include_routers(app, settings, modules)
    paths = methods_of_paths(_attributes(modules, "router"))
    _add_middleware(app, settings, telemetry, _attributes(modules, "FILE_PATHS"), paths)
    return app


def _include_routers(app: FastAPI, settings: Settings, modules: Sequence[ModuleType]) -> None:
    for module in modules:
        limit_bodies(module.router)
        # Each router has its own limit. FastAPI would apply a limit of the app before the guard sees the request.
        app.include_router(module.router, max_body_size=max_body_of(module, settings))
    system.install_docs(app)
    schemas = [schema for schemas in _attributes(modules, "SCHEMAS") for schema in schemas]
    install_openapi(app, _attributes(modules, "TAG"), schemas, has_keys=settings.server.api_keys is not None)
    problems.install(app, functools.partial(allowed_methods, app.routes))


def _attributes(modules: Sequence[ModuleType], name: str) -> list[Any]:
    """The values of the module attribute `name`, from the modules that have it."""
    return [getattr(module, name) for module in modules if hasattr(module, name)]


def _add_middleware(
    app: FastAPI,
    settings: Settings,
    telemetry: Telemetry,
    file_paths: Sequence[re.Pattern[str]],
    paths: Mapping[str, list[str]],
) -> None:
    """Add guard, CORS, keys and methods. A request passes them in this order: what is added last comes first."""
    app.add_middleware(Methods, routes=app.routes, paths=paths)
    app.add_middleware(KeyGate, keys=parse_keys(settings.server.api_keys))
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.server.cors_origins),
        allow_methods=["*"],
        allow_headers=["Authorization", "Content-Type", "Last-Event-ID", "Idempotency-Key", "X-Request-ID"],
        expose_headers=["Location", "Content-Location", "Retry-After", "X-StreamForge-Protocol", "X-Request-ID"],
    )
    app.add_middleware(Guard, settings=settings.server, file_paths=file_paths, telemetry=telemetry)
