"""State of the server: name and version, health, readiness, and its documentation."""

import importlib.util
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from backend import __version__
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import ServicesDep

NAME = "StreamForge API"
_STATIC = "/docs/static"

READ_ONLY = (
    "The server's disk is full: what is stored can be read, and nothing can be stored. It notices when there is room."
)

router = APIRouter(tags=["system"], route_class=OwnRoute)
TAG = {"name": "system", "description": "State of the server."}


class Endpoints(BaseModel):
    """Links to other endpoints."""

    chat: str = "/chat"
    health: str = "/chat/health"
    docs: str = "/docs"
    openapi: str = "/openapi.json"


class Root(BaseModel):
    """Name and version of the server."""

    name: str = NAME
    version: str = __version__
    status: str = "running"
    endpoints: Endpoints = Endpoints()


class Health(BaseModel):
    """The process runs and responds."""

    status: str = "healthy"
    service: str = NAME
    version: str = __version__


class Readiness(BaseModel):
    """The status is `ready` when models and index are loaded, and `read_only` while the disk is full. `problem` says
    what is wrong."""

    status: str = Field(examples=["ready"])
    problem: str | None = None


_HEALTH = Health().model_dump_json().encode()


@router.get("/", summary="Name and version")
async def get_root() -> Root:
    """Returns name, version and links."""
    return Root()


@router.get("/health", response_model=Health, summary="Check that the process runs")
async def get_health() -> Response:
    """Returns 200 as soon as the port is open."""
    return Response(_HEALTH, media_type="application/json")


@router.get(
    "/ready",
    responses={503: {"model": Readiness, "description": "Still loading, or loading failed."}},
    summary="Check that everything is loaded",
)
async def get_readiness(services: ServicesDep, response: Response) -> Readiness:
    """Returns 200 when everything is loaded. Requests that need the models wait for it automatically."""
    is_full = services.core.database.is_read_only or services.core.readiness.is_disk_full
    if services.core.readiness.is_ready and not is_full:
        return Readiness(status="ready")
    response.status_code = 503
    if is_full:
        return Readiness(status="read_only", problem=READ_ONLY)
    return Readiness(status="starting", problem=services.core.readiness.problem)


def install_docs(app: FastAPI) -> None:
    """Add Swagger UI at /docs. Its files come from an installed package, so it works without a network."""
    spec = importlib.util.find_spec("fastapi_offline")
    assert spec is not None and spec.origin is not None
    app.mount(_STATIC, StaticFiles(directory=Path(spec.origin).parent / "static"), name="docs-static")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        base = request.scope.get("root_path", "")
        return get_swagger_ui_html(
            openapi_url=f"{base}/openapi.json",
            title=f"{NAME} - docs",
            swagger_js_url=f"{base}{_STATIC}/swagger-ui-bundle.js",
            swagger_css_url=f"{base}{_STATIC}/swagger-ui.css",
            swagger_favicon_url=f"{base}{_STATIC}/favicon.png",
            swagger_ui_parameters={"persistAuthorization": True, "displayRequestDuration": True},
        )

    del docs
