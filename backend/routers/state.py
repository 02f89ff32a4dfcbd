"""What the endpoints get from the app: the services, and who is calling."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from backend.config.settings import Settings
from backend.services.chat import ChatService
from backend.services.collections import CollectionService
from backend.services.documents import DocumentService
from backend.services.fetching import Fetcher
from backend.services.knowledge import Knowledge
from backend.services.models import Models
from backend.services.pictures import Pictures
from backend.services.prompts import PromptService
from backend.services.readiness import Readiness
from backend.services.runs import RunHub
from backend.services.sessions import SessionService
from backend.services.transcripts import Transcripts
from backend.services.usage import UsageService


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
    knowledge: Knowledge
    models: Models
    usage: UsageService
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
