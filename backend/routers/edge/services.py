"""The dependencies of the endpoints: the services, and the owner of the request."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from backend.config.settings import Settings
from backend.services.answers.start import Answers
from backend.services.conversations.open import Conversations
from backend.services.foundation import Core
from backend.services.library.open import Library
from backend.services.models.open import Models
from backend.services.prompts.prompts import PromptService
from backend.services.runs.open import Runs
from backend.services.usage.open import UsageServices

if TYPE_CHECKING:
    from backend.services.web.fetching import Fetcher


@dataclass(frozen=True, slots=True)
class Services:
    """All services that the endpoints call; `wiring.py` makes it. `fetcher` is None if URL_FETCH is off."""

    settings: Settings
    core: Core
    answers: Answers
    runs: Runs
    conversations: Conversations
    library: Library
    prompts: PromptService
    models: Models
    usage: UsageServices
    fetcher: "Fetcher | None"


# The dependencies are async although they don't wait: FastAPI would run them in threads otherwise, at 0.3 ms each.


async def _services(request: Request) -> Services:
    return request.app.state.services


async def owner_of(request: Request) -> str:
    """The owner whose data the request may see; `routers/edge/authentication.py` has put it into the scope."""
    return request.scope["streamforge.owner"]


def request_id_of(request: Request) -> str | None:
    """The id of this request, from `routers/edge/guard.py`."""
    return request.scope.get("streamforge.request_id")


async def ready_services(request: Request) -> Services:
    """The services, as soon as the models are loaded. A request that comes earlier waits."""
    services: Services = request.app.state.services
    if not services.core.readiness.is_ready:
        await services.core.readiness.wait()
    return services


ServicesDep = Annotated[Services, Depends(_services)]
Owner = Annotated[str, Depends(owner_of)]
ReadyServices = Annotated[Services, Depends(ready_services)]
