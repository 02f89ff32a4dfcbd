"""What calls of models cost."""

from backend import events as ev
from backend.chains.models.prices import charge, charge_at_most
from backend.chains.models.prompt import Tokens
from backend.chains.models.provider import Endpoint
from backend.config.models_file import Price
from backend.services.models.catalog import ModelCatalog


class Pricing:
    """The prices of all models: those of MODELS_FILE, else those of genai-prices."""

    def __init__(self, catalog: ModelCatalog) -> None:
        self._catalog = catalog

    def charge(self, usage: ev.Usage) -> None:
        """Set cost and price of a call to today's price; leave them unset if the price is unknown."""
        priced = self._priced(usage.model)
        tokens = Tokens(usage.input_tokens, usage.output_tokens, usage.reasoning_tokens, usage.cached_tokens)
        if priced is not None and (charged := charge(*priced, tokens)) is not None:
            usage.cost, usage.price = charged.cost, charged.price

    def cost_at_most(self, name: str, tokens: Tokens) -> int | None:
        """The highest cost in micro-dollars of a call that takes at most these tokens; None if the price is unknown."""
        priced = self._priced(name)
        return charge_at_most(*priced, tokens) if priced is not None else None

    def _priced(self, full: str) -> tuple[Endpoint, str, Price | None] | None:
        """A model's endpoint, its name there, and its price by MODELS_FILE; None if its provider was removed."""
        provider, _, model = full.partition("/")
        endpoint = self._catalog.endpoint(provider)
        if endpoint is None:
            return None
        own = self._catalog.own_spec(provider, model)
        return endpoint, model, own.price if own is not None else None
