"""Models: which can be used now."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from backend.routers.problems import responses
from backend.routers.state import Owner, ServicesDep

router = APIRouter(prefix="/models", tags=["models"])


class ProviderInfo(BaseModel):
    """A provider and what can be used of it now."""

    provider: str = Field(examples=["openai"])
    summary: str
    available: bool
    reason: str = Field(description="Why it is available, or what to do so that it is.")
    models: list[str] = Field(
        description="Names to send as `model`. A provider's list may be incomplete: others are passed on as they are.",
        examples=[["openai/gpt-4.1-mini"]],
    )


class ModelList(BaseModel):
    """Every provider, and the model that answers when a request names none."""

    default: str = Field(examples=["extractive/quotes"])
    default_reason: str
    providers: list[ProviderInfo]


@router.get("", responses=responses(401), summary="Which models can be used")
async def models(services: ServicesDep, owner: Owner) -> ModelList:
    """Asks each provider now; takes at most a few seconds."""
    del owner
    states = await services.models.states()
    providers = [
        ProviderInfo(
            provider=s.name,
            summary=s.summary,
            available=s.available,
            reason=s.reason,
            models=[f"{s.name}/{model}" for model in s.models],
        )
        for s in states
    ]
    default = services.models.default
    return ModelList(default=default.name, default_reason=default.reason, providers=providers)
