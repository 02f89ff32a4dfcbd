"""Endpoints whose JSON bodies are read with limits."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from typing_extensions import override

from backend.routers.edge.json_body import JsonRequest
from backend.routers.edge.routes import OwnRoute


class Endpoint(APIRoute):
    """A route of FastAPI whose JSON body is read by `JsonRequest`."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_with_limits(request: Request) -> Response:
            return await handle(JsonRequest(request.scope, request.receive))

        return handle_with_limits


class _OwnEndpoint(OwnRoute, Endpoint):
    """Both: it refuses unknown query parameters, and reads its JSON body with limits."""


def limit_bodies(router: APIRouter) -> None:
    """Let every endpoint of the router read its JSON body with limits. Call it before the router is included.

    The routers are FastAPI's own, so that a new module of endpoints can't forget the limits.
    """
    for route in router.routes:
        if isinstance(route, APIRoute):
            route.__class__ = _class_with_limits(route)


def _class_with_limits(route: APIRoute) -> type[Endpoint]:
    return _OwnEndpoint if isinstance(route, OwnRoute) else Endpoint
