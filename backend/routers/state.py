"""What the endpoints get from the app: the services, and who is calling."""

import hmac
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from backend.config.settings import Settings
from backend.errors import Unauthorized
from backend.services.chat import ChatService
from backend.services.documents import DocumentService
from backend.services.knowledge import Knowledge
from backend.services.models import Models
from backend.services.readiness import Readiness
from backend.services.runs import RunHub
from backend.services.sessions import SessionService

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Services:
    """Everything the endpoints call; `main` makes it."""

    settings: Settings
    keys: dict[str, str] = field(repr=False)
    readiness: Readiness
    chat: ChatService
    hub: RunHub
    sessions: SessionService
    documents: DocumentService
    knowledge: Knowledge
    models: Models


# Dependencies are async although they don't wait: FastAPI runs others in a thread, at 0.3 ms each.


async def _services(request: Request) -> Services:
    return request.app.state.services


_bearer = HTTPBearer(auto_error=False, description="A key of API_KEYS. Not needed while none are set.")


async def _principal(
    services: Annotated[Services, Depends(_services)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    keys = services.keys
    if not keys:
        return LOCAL
    if credentials is None:
        raise Unauthorized("This server wants a key: send Authorization: Bearer <key>.")
    given = credentials.credentials.encode()
    name = None
    for key, owner in keys.items():
        # Every key is compared, so that the time tells nothing about which was nearly right.
        if hmac.compare_digest(key.encode(), given):
            name = owner
    if name is None:
        raise Unauthorized("This key is not known. Check Authorization: Bearer <key> against API_KEYS.")
    return name


async def _ready(services: Annotated[Services, Depends(_services)]) -> None:
    await services.readiness.wait()


ServicesDep = Annotated[Services, Depends(_services)]
Owner = Annotated[str, Depends(_principal)]
Ready = Depends(_ready)
"""For endpoints that need the models: a request that comes before /ready waits."""
