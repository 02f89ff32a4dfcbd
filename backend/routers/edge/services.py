"""What the endpoints get from the app: the services, and who is calling."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from backend.config.settings import Settings
from backend.services.answers.start import Answers
from backend.services.conversations.files.session_export import SessionExport
from backend.services.conversations.files.session_import import SessionImport
from backend.services.conversations.images import ImageService
from backend.services.conversations.sessions import SessionService
from backend.services.library.collections import CollectionService
from backend.services.library.documents import DocumentService
from backend.services.library.search.search import LibrarySearch
from backend.services.lifecycle import Readiness
from backend.services.models.catalog import Models
from backend.services.prompts.prompts import PromptService
from backend.services.runs.hub import RunHub
from backend.services.usage.report import UsageService
from backend.services.web.fetching import Fetcher


@dataclass(frozen=True, slots=True)
class Services:
    """Everything the endpoints call; `main` makes it."""

    settings: Settings
    readiness: Readiness
    answers: Answers
    hub: RunHub
    sessions: SessionService
    images: ImageService
    documents: DocumentService
    collections: CollectionService
    fetcher: Fetcher
    knowledge: LibrarySearch
    models: Models
    usage: UsageService
    prompts: PromptService
    session_export: SessionExport
    session_import: SessionImport


# Dependencies are async although they don't wait: FastAPI runs others in a thread, at 0.3 ms each.


async def _services(request: Request) -> Services:
    return request.app.state.services


async def owner_of(request: Request) -> str:
    """Whose things the request may see; `routers/keys.py` found out."""
    return request.scope["streamforge.owner"]


def request_id_of(request: Request) -> str | None:
    """The id that the guard gave to this request."""
    return request.scope.get("streamforge.request_id")


async def ready_services(request: Request) -> Services:
    """The services, once the models are loaded: a request that comes before /ready waits."""
    services: Services = request.app.state.services
    if not services.readiness.is_ready:
        await services.readiness.wait()
    return services


ServicesDep = Annotated[Services, Depends(_services)]
Owner = Annotated[str, Depends(owner_of)]
ReadyServices = Annotated[Services, Depends(ready_services)]
