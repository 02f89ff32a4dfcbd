"""The owner of a request. If API_KEYS is set, a request needs a key unless its path is public; else it is `local`."""

import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.config.groups.accounts import LOCAL
from backend.errors import Unauthorized
from backend.routers.edge.problems import problem_of

PUBLIC = frozenset({"/", "/health", "/ready", "/chat/health", "/docs", "/openapi.json"})
_PUBLIC_FILES = "/docs/static/"


class KeyGate:
    """Puts the owner into `scope["streamforge.owner"]`, or refuses the request before its body is read. Plain ASGI."""

    def __init__(self, app: ASGIApp, keys: Mapping[str, str]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and not is_public(scope["path"]):
            try:
                scope["streamforge.owner"] = self._owner(scope) if self._keys else LOCAL
            except Unauthorized as error:
                await problem_of(error, scope.get("streamforge.request_id"))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _owner(self, scope: Scope) -> str:
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Unauthorized("This server wants a key: send Authorization: Bearer <key>.")
        owner = None
        for valid_key, name in self._keys.items():
            # All keys are compared, so that the duration says nothing about a key that is nearly right.
            if hmac.compare_digest(valid_key.encode(), key.strip().encode()):
                owner = name
        if owner is None:
            raise Unauthorized("This key is not known. Check the header Authorization: Bearer <key>.")
        return owner


def is_public(path: str) -> bool:
    """Whether the path needs no key."""
    return path in PUBLIC or path.startswith(_PUBLIC_FILES)
