"""Which models can be used, and the one to use when nobody says."""

import asyncio
import difflib
from dataclasses import dataclass

from backend.chains.models import plugins
from backend.chains.models.base import ChatModel, Listing
from backend.config.settings import ModelSettings
from backend.errors import Invalid, RunError


@dataclass(frozen=True, slots=True)
class ProviderState:
    """A provider, and what it can do now."""

    name: str
    summary: str
    available: bool
    reason: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """The model that answers when the request names none, and why it is that one."""

    name: str
    reason: str


class Models:
    """The registry of providers with this server's settings."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._plugins = plugins()
        self._providers = {name: p.create(settings) for name, p in self._plugins.items() if p.missing() is None}
        self.default = DefaultModel("extractive/quotes", "not looked for yet")

    async def open(self) -> None:
        """Find the default model: the setting, else the first provider that is there."""
        if self._settings.llm_model is not None:
            self.resolve(self._settings.llm_model)
            self.default = DefaultModel(self._settings.llm_model, "LLM_MODEL is set")
            return
        why_not: list[str] = []
        for name, plugin in self._plugins.items():
            if plugin.default_rank is None:
                continue
            listing = await self._listing(name)
            if listing.available and listing.default is not None:
                reason = listing.reason if not why_not else f"{listing.reason} ({'; '.join(why_not)})"
                self.default = DefaultModel(f"{name}/{listing.default}", reason)
                return
            why_not.append(f"{name}: {listing.reason}")

    async def close(self) -> None:
        """Let go of the providers' connections."""
        await asyncio.gather(*(p.aclose() for p in self._providers.values()))

    def resolve(self, name: str | None) -> tuple[str, ChatModel]:
        """The full name and the opened model. Raises Invalid with the nearest names; RunError from the provider."""
        full = self.default.name if name is None else name
        provider, slash, model = full.partition("/")
        if provider not in self._plugins or not slash or not model:
            near = difflib.get_close_matches(provider, self._plugins, n=3, cutoff=0.4)
            hint = f" Did you mean {' or '.join(near)}?" if near and near != [provider] else ""
            raise Invalid(
                f"model: {full!r} is not provider/model with a provider that is here "
                f"({', '.join(self._plugins)}).{hint} GET /models lists them.",
                code="unknown_model",
            )
        if provider not in self._providers:
            raise Invalid(f"model: {self._plugins[provider].missing()}", code="unknown_model")
        try:
            return full, self._providers[provider].open(model)
        except RunError as error:
            raise Invalid(f"model: {error.message}", code="unknown_model") from None

    def default_needs(self) -> tuple[str, ...]:
        """The modules that the default model's provider imports at its first use."""
        return self._plugins[self.default.name.partition("/")[0]].needs

    async def states(self) -> list[ProviderState]:
        """Every provider: what can be used now, and what can't with the reason."""
        listings = await asyncio.gather(*(self._listing(name) for name in self._plugins))
        return [
            ProviderState(name, plugin.summary, found.available, found.reason, found.models)
            for (name, plugin), found in zip(self._plugins.items(), listings, strict=True)
        ]

    async def _listing(self, name: str) -> Listing:
        provider = self._providers.get(name)
        if provider is None:
            return Listing(False, self._plugins[name].missing() or "not available")
        return await provider.listing()
