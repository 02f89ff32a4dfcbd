"""The methods of HTTP that FastAPI leaves out: HEAD for each GET, OPTIONS for each path, and all methods in `Allow`."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from fastapi import APIRouter
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.routers.edge.event_stream import BODY_SEND
from backend.routers.edge.problems import method_not_allowed

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def allowed_methods(routes: Sequence[BaseRoute], scope: Scope) -> list[str]:
    """The methods that the path of the request has, for `Allow`; empty if there is no such path."""
    methods = [method for method in _METHODS if _has_endpoint(routes, {**scope, "method": method})]
    return _complete(methods)


def _has_endpoint(routes: Sequence[BaseRoute], scope: Scope) -> bool:
    for route in routes:
        if route.matches(scope)[0] == Match.FULL:
            # Only files are mounted. A mount matches every method.
            return scope["method"] == "GET" or not isinstance(route, Mount)
    return False


def methods_of_paths(routers: Iterable[APIRouter]) -> dict[str, list[str]]:
    """The methods of each path without parameters, for `Allow`."""
    methods: dict[str, set[str]] = {}
    for route in chain.from_iterable(router.routes for router in routers):
        if isinstance(route, Route) and "{" not in route.path:
            methods.setdefault(route.path, set()).update(route.methods or ())
    return {path: _complete([m for m in _METHODS if m in names]) for path, names in methods.items()}


def _complete(methods: list[str]) -> list[str]:
    if "GET" in methods:
        methods.insert(1, "HEAD")
    return [*methods, "OPTIONS"] if methods else []


class Methods:
    """Answers HEAD like GET without the body, and OPTIONS with the path's methods. Plain ASGI.

    `paths` has the methods of paths without parameters. Without it, `GET /documents/upload` would look for a document
    of that name, instead of saying that this path has another method.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute], paths: Mapping[str, list[str]]) -> None:
        self._app = app
        self._routes = routes
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, methods = scope["method"], self._paths.get(scope["path"])
        if methods is not None and method not in methods:
            await method_not_allowed(methods, scope.get("streamforge.request_id"))(scope, receive, send)
        elif method == "HEAD":
            await _Head(scope, receive, send).run(self._app)
        elif method == "OPTIONS" and (methods := methods or self._methods(scope)):
            await Response(status_code=204, headers={"Allow": ", ".join(methods)})(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _methods(self, scope: Scope) -> list[str]:
        if scope["path"] == "*":
            return _complete(list(_METHODS))
        return allowed_methods(self._routes, scope)


class _Ended(OSError):
    """The response has been sent. A stream takes it for a client that has left."""


class _Head:
    """A HEAD request, which the application sees as GET. Its response ends after the head."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._has_ended = False

    async def run(self, app: ASGIApp) -> None:
        """Handle the request."""
        # The scope itself changes, because the log reads the route from it.
        self._scope["method"] = "GET"
        self._scope[BODY_SEND] = self._send_head
        try:
            await app(self._scope, self._receive_until_end, self._send_head)
        except _Ended:
            pass
        finally:
            self._scope["method"] = "HEAD"

    async def _receive_until_end(self) -> Message:
        return {"type": "http.disconnect"} if self._has_ended else await self._receive()

    async def _send_head(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._scope["method"] = "HEAD"
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b""})
            self._has_ended = True
        elif message.get("more_body", False):
            raise _Ended
