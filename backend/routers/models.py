"""GET /models: the models that can be used now."""

from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field

from backend.config.models_file import ModelKind, ModelSpec
from backend.routers.edge.problems import responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ServicesDep
from backend.routers.edge.view import DEPRECATED, View

router = APIRouter(prefix="/models", tags=["models"], route_class=OwnRoute)
TAG = {"name": "models", "description": "Which models can be used."}


class PriceInfo(View):
    """US dollars per million tokens."""

    input: float
    output: float
    cached_input: float | None = None


class ModelInfo(View):
    """A model and its known abilities. null means unknown; an unknown parameter is sent to the provider."""

    name: str = Field(description="The name to send as `model`.", examples=["openai/gpt-4.1-mini"])
    kind: ModelKind = Field(description="What the model is for. Only a model that chats is ever the default.")
    context: int | None = Field(description="Maximum tokens that the model reads.")
    max_output: int | None = Field(description="Maximum tokens that the model writes.")
    vision: bool | None
    tools: bool | None
    reasoning: bool | None
    structured_output: bool | None
    temperature: bool | None = Field(description="Whether the model supports temperature and top_p.")
    price: PriceInfo | None

    @classmethod
    def of(cls, name: str, spec: ModelSpec) -> Self:
        """The model as the API returns it."""
        price = spec.price
        info = None
        if price is not None:
            cached = None if price.cached is None else float(price.cached)
            info = PriceInfo(input=float(price.input), output=float(price.output), cached_input=cached)
        return cls(name=name, price=info, **spec.model_dump(exclude={"price", "tokenizer"}))


class ProviderInfo(View):
    """A provider and its models that can be used now."""

    name: str = Field(examples=["openai"])
    provider: str = Field(description="The same as `name`.", json_schema_extra=DEPRECATED)
    summary: str
    available: bool
    reason: str = Field(description="Why the provider can be used, or what to do so that it can.")
    models: list[str] = Field(
        description="Names to send as `model`. A provider's list may be incomplete: other names are sent "
        "to the provider unchanged.",
        examples=[["openai/gpt-4.1-mini"]],
    )
    details: list[ModelInfo] = Field(description="The same models, with abilities and prices.")


class ModelList(View):
    """Every provider, and the model that answers when a request names none."""

    default: str = Field(examples=["extractive/quotes"])
    default_reason: str
    aliases: dict[str, list[str]] = Field(
        description="Alias names, each with its models in the order in which they are tried.",
        examples=[{"fast": ["groq/llama-3.1-8b-instant", "openai/gpt-4.1-mini"]}],
    )
    items: list[ProviderInfo]
    providers: list[ProviderInfo] = Field(description="The same as `items`.", json_schema_extra=DEPRECATED)


@router.get("", responses=responses(401), summary="List models")
async def list_models(
    services: ServicesDep,
    owner: Owner,
    refresh: Annotated[
        bool, Query(description="true: ask every provider now; otherwise lists are kept for a minute.")
    ] = False,
) -> ModelList:
    """Lists all providers and models, within a few seconds. For a provider that can't be used, it says what to do."""
    del owner
    states = await services.models.catalog.states(refresh=refresh)
    providers = [
        ProviderInfo(
            name=s.name,
            provider=s.name,
            summary=s.summary,
            available=s.available,
            reason=s.reason,
            models=[f"{s.name}/{model.name}" for model in s.models],
            details=[ModelInfo.of(f"{s.name}/{model.name}", model.spec) for model in s.models],
        )
        for s in states
    ]
    default = services.models.catalog.default
    return ModelList(
        default=default.name,
        default_reason=default.reason,
        aliases={name: list(chain) for name, chain in services.models.catalog.aliases.items()},
        items=providers,
        providers=providers,
    )
