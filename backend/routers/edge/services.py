"""What the endpoints get from the app: the services, and who is calling."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from backend.config.settings import Settings
from backend.services.answers.start import ChatService
from backend.services.conversations.images import Pictures
from backend.services.conversations.session_export import Transcripts
from backend.services.conversations.sessions import SessionService
from backend.services.library.collections import CollectionService
from backend.services.library.documents import DocumentService
from backend.services.library.search.search import LibrarySearch
from backend.services.lifecycle import Readiness
from backend.services.models.open import Models
from backend.services.prompts.prompts import PromptService
from backend.services.runs.hub import RunHub
from backend.services.usage.open import UsageServices
from backend.services.web.fetching import Fetcher


@dataclass(frozen=True, slots=True)
class Services:
    """Everything the endpoints call; `main` makes it."""

    settings: Settings
    readiness: Readiness
    chat: ChatService
    hub: RunHub
    sessions: SessionService
    pictures: Pictures
    documents: DocumentService
    collections: CollectionService
    fetcher: Fetcher
    knowledge: LibrarySearch
    models: Models
    usage: UsageServices
    prompts: PromptService
    transcripts: Transcripts


# Dependencies are async although they don't wait: FastAPI runs others in a thread, at 0.3 ms each.


async def _services(request: Request) -> Services:
    return request.app.state.services


async def owner_of(request: Request) -> str:
    """Whose things the request may see; `routers/keys.py` found out."""
    return request.scope["streamforge.owner"]


async def ready_services(request: Request) -> Services:
    """The services, once the models are loaded: a request that comes before /ready waits."""
    services: Services = request.app.state.services
    await services.readiness.wait()
    return services


ServicesDep = Annotated[Services, Depends(_services)]
Owner = Annotated[str, Depends(owner_of)]
ReadyServices = Annotated[Services, Depends(ready_services)]
