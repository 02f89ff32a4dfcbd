"""Who is calling: with keys set, every request but the public ones carries one; without, everybody here is `local`."""

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
    """Names the caller in `scope["streamforge.owner"]`, or refuses before any of the body is read. Plain ASGI."""

    def __init__(self, app: ASGIApp, keys: Mapping[str, str]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and not is_public(scope["path"]):
            try:
                scope["streamforge.owner"] = self._owner(scope) if self._keys else LOCAL
            except Unauthorized as error:
                await problem_of(error, scope.get("streamforge.request_id"))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _owner(self, scope: Scope) -> str:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise Unauthorized("This server wants a key: send Authorization: Bearer <key>.")
        found = None
        for key, owner in self._keys.items():
            # Every key is compared, so that the time tells nothing about which was nearly right.
            if hmac.compare_digest(key.encode(), given.strip().encode()):
                found = owner
        if found is None:
            raise Unauthorized("This key is not known. Check Authorization: Bearer <key> against API_KEYS.")
        return found


def is_public(path: str) -> bool:
    """Whether the path needs no key."""
    return path in PUBLIC or path.startswith(_PUBLIC_FILES)
