"""Models: which can be used now."""

from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field

from backend.config.providers import ModelSpec
from backend.routers.problems import responses
from backend.routers.state import Owner, ServicesDep
from backend.routers.view import View

router = APIRouter(prefix="/models", tags=["models"])


class PriceInfo(View):
    """US dollars for a million tokens."""

    input: float
    output: float
    cached_input: float | None = None


class ModelInfo(View):
    """A model and what is known of it; null is unknown, and what is unknown is let through to the provider."""

    name: str = Field(description="To send as `model`.", examples=["openai/gpt-4.1-mini"])
    context: int | None = Field(description="Tokens that it reads at most.")
    max_output: int | None = Field(description="Tokens that it writes at most.")
    vision: bool | None
    tools: bool | None
    reasoning: bool | None
    structured_output: bool | None
    temperature: bool | None = Field(description="Whether it takes temperature and top_p.")
    price: PriceInfo | None

    @classmethod
    def of(cls, name: str, spec: ModelSpec) -> Self:
        """As the API shows it."""
        price = spec.price
        shown = None
        if price is not None:
            cached = None if price.cached is None else float(price.cached)
            shown = PriceInfo(input=float(price.input), output=float(price.output), cached_input=cached)
        return cls(name=name, price=shown, **spec.model_dump(exclude={"price", "tokenizer"}))


class ProviderInfo(View):
    """A provider and what can be used of it now."""

    provider: str = Field(examples=["openai"])
    summary: str
    available: bool
    reason: str = Field(description="Why it is available, or what to do so that it is.")
    models: list[str] = Field(
        description="Names to send as `model`. A provider's list may be incomplete: others are passed on as they are.",
        examples=[["openai/gpt-4.1-mini"]],
    )
    details: list[ModelInfo] = Field(description="The same models, with what they can and cost.")


class ModelList(View):
    """Every provider, and the model that answers when a request names none."""

    default: str = Field(examples=["extractive/quotes"])
    default_reason: str
    aliases: dict[str, list[str]] = Field(
        description="Names that stand for models, each with those that are tried one after the other.",
        examples=[{"fast": ["groq/llama-3.1-8b-instant", "openai/gpt-4.1-mini"]}],
    )
    providers: list[ProviderInfo]


@router.get("", responses=responses(401), summary="Which models can be used")
async def models(
    services: ServicesDep,
    owner: Owner,
    refresh: Annotated[bool, Query(description="Ask every provider now; else lists are kept for a minute.")] = False,
) -> ModelList:
    """Takes at most a few seconds. Providers that can't be used are there with what to do."""
    del owner
    states = await services.models.states(refresh=refresh)
    providers = [
        ProviderInfo(
            provider=s.name,
            summary=s.summary,
            available=s.available,
            reason=s.reason,
            models=[f"{s.name}/{model.name}" for model in s.models],
            details=[ModelInfo.of(f"{s.name}/{model.name}", model.spec) for model in s.models],
        )
        for s in states
    ]
    default = services.models.default
    return ModelList(
        default=default.name,
        default_reason=default.reason,
        aliases={name: list(chain) for name, chain in services.models.aliases.items()},
        providers=providers,
    )
