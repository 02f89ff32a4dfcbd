"""Which providers and models there are, and which model answers if a request names none."""

import asyncio
import difflib
import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from backend.chains.models import endpoints
from backend.chains.models.capabilities import spec_of
from backend.chains.models.kinds import MUTE, kind_of
from backend.chains.models.provider import ChatModel, Endpoint, Listing, Plugin, Provider
from backend.chains.models.thoughts import ThinkingModel
from backend.chains.models.tokenizers import counter
from backend.config.groups.models import ModelSettings
from backend.config.models_file import ModelKind, ModelSpec, ProviderTable
from backend.errors import Invalid, RunError
from backend.kit.network.network import DIRECT, Network
from backend.kit.text import is_clean

BUILT_IN = "extractive/quotes"
"""The model that answers if there is no language model."""
_LISTING_TTL_SECONDS = 60.0
"""How long a provider's list of models is used."""
_FAILED_LISTING_TTL_SECONDS = 5.0
"""How long the server waits before it asks a provider again that listed no models."""
_LOOK_TIMEOUT_SECONDS = 0.25
"""How long a request waits while the server looks for a language model."""
_LISTING_TIMEOUT_SECONDS = 5.0
"""How long a provider may take to list its models."""
_MAX_LISTED, _MAX_NAME, _MAX_REASON = 5_000, 200, 1_000
"""The most models of a provider's list that are kept; characters of a name, and of the reason."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ModelState:
    """A listed model and what is known about it."""

    name: str
    spec: ModelSpec


@dataclass(frozen=True, slots=True)
class ProviderState:
    """A provider, and what it can do now."""

    name: str
    summary: str
    available: bool
    reason: str
    models: tuple[ModelState, ...]


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """The model that answers if a request names none, and the reason why it is that one."""

    name: str
    reason: str


class ModelCatalog:
    """The providers of this server, built in or from MODELS_FILE, and their models.

    Raises ValueError if MODELS_FILE names a model that can't exist.
    """

    def __init__(self, settings: ModelSettings, table: ProviderTable, network: Network = DIRECT) -> None:
        self._settings = settings
        self._table = table
        self._endpoints: dict[str, tuple[Plugin, Endpoint]] = {e.name: (p, e) for p, e in endpoints(table, network)}
        self._providers: dict[str, Provider] = {
            name: plugin.create(endpoint, settings)
            for name, (plugin, endpoint) in self._endpoints.items()
            if plugin.missing() is None
        }
        self._listings: dict[str, tuple[float, Listing]] = {}
        self.lists_read = 0
        """How many lists of models were read."""
        self.default = DefaultModel(BUILT_IN, "not looked for yet")
        self._looked_at = 0.0
        self._look_task: asyncio.Task[None] | None = None
        for path in (m.tokenizer for p in table.providers.values() for m in p.models.values()):
            if path is not None:
                counter(path)
        for section, chains in (("aliases", table.aliases), ("fallbacks", table.fallbacks)):
            for name, chain in chains.items():
                self._check_chain(f"{section}.{name}", chain)

    def _check_chain(self, entry: str, chain: Sequence[str]) -> None:
        """Raises ValueError if the provider of a model in the table is unknown."""
        for model in chain:
            try:
                self.split(model)
            except Invalid as error:
                problem = error.message.removeprefix("model: ").removesuffix(" GET /models lists them.")
                raise ValueError(f"MODELS_FILE: {entry}: {problem}") from None

    # --- the default model

    async def open(self) -> None:
        """Find the default model: LLM_MODEL, or else the first provider that is available."""
        if self._settings.llm_model is not None:
            self.check(self._settings.llm_model)
            self.default = DefaultModel(self._settings.llm_model, "LLM_MODEL is set")
            return
        self.default = await self._find_default()

    async def look(self) -> None:
        """Look for a default model again while it is the built-in one: a provider may have become available.

        Returns after a quarter of a second at the latest; the search goes on in the background.
        """
        is_settled = self.default.name != BUILT_IN or self._settings.llm_model is not None
        if is_settled or time.monotonic() - self._looked_at < _FAILED_LISTING_TTL_SECONDS:
            return
        if self._look_task is None or self._look_task.done():
            self._look_task = asyncio.create_task(self._look(), name="default-model")
        await asyncio.wait({self._look_task}, timeout=_LOOK_TIMEOUT_SECONDS)

    async def _look(self) -> None:
        default = await self._find_default()
        if default.name != BUILT_IN:
            await asyncio.to_thread(self._import, default.name)
            log.info("chat_model", model=default.name, why=default.reason)
        self.default = default

    async def _find_default(self) -> DefaultModel:
        """The default model of the first provider that is available."""
        self._looked_at = time.monotonic()
        why_not: list[str] = []
        ranked = [name for name, (_, endpoint) in self._endpoints.items() if endpoint.rank is not None]
        listings = await asyncio.gather(*map(self._listing, ranked))
        for name, listing in zip(ranked, listings, strict=True):
            # A vendor that can't be reached now is set up all the same: its model is the default.
            model = self._default_of(name, listing)
            if model is not None:
                reason = listing.reason if not why_not else f"{listing.reason} ({'; '.join(why_not)})"
                return DefaultModel(f"{name}/{model}", reason)
            choose = f"; or set LLM_MODEL={name}/<model>" if listing.available else ""
            why_not.append(f"{name}: {listing.reason}{choose}")
        return DefaultModel(BUILT_IN, "; ".join(why_not))

    def _default_of(self, name: str, listing: Listing) -> str | None:
        """The provider's default model: the one that StreamForge recommends for a vendor, else the first that chats of
        those that MODELS_FILE names, else of those that the provider lists.

        A provider of MODELS_FILE that is a vendor at its usual address has none that is merely listed.
        """
        endpoint = self._endpoints[name][1]
        is_built_in = name == endpoint.kind.name
        if is_built_in and listing.default is not None:
            return listing.default
        if not listing.available:
            return None
        named = [m for m in self._table.spec(name).models if m in listing.models or not listing.models]
        candidates = (*named, *(listing.models if is_built_in or endpoint.own_address else ()))
        return next((m for m in candidates if self._kind_of(name, m) == "chat"), None)

    def _kind_of(self, provider: str, model: str) -> ModelKind:
        return kind_of(model, self.own_spec(provider, model), self.listed_spec(provider, model))

    @property
    def is_default_set(self) -> bool:
        """Whether LLM_MODEL names the default model."""
        return self._settings.llm_model is not None

    def problems_of_set_up(self) -> str:
        """Why no model of the providers that have a key or an address of their own is the default; empty if there are
        none."""
        ranked = [(name, endpoint) for name, (_, endpoint) in self._endpoints.items() if endpoint.rank is not None]
        names = [name for name, endpoint in ranked if endpoint.key is not None or endpoint.own_address]
        return "; ".join(f"{name}: {self._listings[name][1].reason}" for name in names if name in self._listings)

    def warm(self) -> None:
        """Import what the default model needs at its first use, and the tables of models. Takes seconds: run it in a
        thread."""
        self._import(self.default.name)
        for _, endpoint in self._endpoints.values():
            if endpoint.key is not None or endpoint.own_address:
                spec_of(endpoint, "", None)

    def _import(self, name: str) -> None:
        provider, _ = self.split(self.resolve_alias(name))
        plugin = self._endpoints[provider][0]
        for module in plugin.needs if not plugin.runs_apart else ():
            importlib.import_module(module)

    async def close(self) -> None:
        """Close the connections to the providers."""
        if self._look_task is not None:
            self._look_task.cancel()
            await asyncio.gather(self._look_task, return_exceptions=True)
        await asyncio.gather(*(p.aclose() for p in self._providers.values()))

    # --- one model

    def resolve_alias(self, name: str) -> str:
        """The first model of an alias; the name of a model is its own."""
        return self._table.aliases.get(name, (name,))[0]

    def check(self, name: str) -> None:
        """Raises Invalid if the model can't be used, with the nearest names or the provider's reason."""
        self.model(self.resolve_alias(name))

    def split(self, full: str) -> tuple[str, str]:
        """Provider and model of `provider/model`. Raises Invalid if the provider is unknown."""
        provider, slash, model = full.partition("/")
        if provider in self._endpoints and slash and model:
            return provider, model
        known = (*self._table.aliases, *self._endpoints)
        near = difflib.get_close_matches(provider, known, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(near)}?" if near and near != [provider] else ""
        aliases = f", or an alias ({', '.join(self._table.aliases)})" if self._table.aliases else ""
        raise Invalid(
            f"model: {full!r} is not provider/model with a provider that is here "
            f"({', '.join(self._endpoints)}){aliases}.{hint} GET /models lists them.",
            code="unknown_model",
        )

    def model(self, full: str) -> ChatModel:
        """The opened model. Raises Invalid."""
        provider, model = self.split(full)
        if provider not in self._providers:
            missing = self._endpoints[provider][0].missing() or ""
            raise Invalid(f"model: {provider} is not installed.", code="unknown_model", advice=f"{missing}.")
        if (kind := self._kind_of(provider, model)) in MUTE:
            raise Invalid(
                f"model: {full} can't chat, because its kind is {kind}. Choose another model.",
                code="unknown_model",
                advice="If it does chat, give it `kind: chat` in MODELS_FILE.",
            )
        try:
            opened = self._providers[provider].open(model)
        except RunError as error:
            raise Invalid(f"model: {error.message}", code="unknown_model", advice=error.advice) from None
        if not opened.writes:
            return opened
        return ThinkingModel(opened, self._endpoints[provider][1].quirks_of(model).think_tags)

    def spec(self, full: str) -> ModelSpec:
        """What is known about a model. Raises Invalid."""
        provider, model = self.split(full)
        own, listed = self.own_spec(provider, model), self.listed_spec(provider, model)
        return spec_of(self._endpoints[provider][1], model, own, listed)

    def listed_spec(self, provider: str, model: str) -> ModelSpec | None:
        """What the provider itself said about a model when it listed its models; None if it didn't."""
        _, listing = self._listings.get(provider, (0.0, None))
        return listing.specs.get(model) if listing is not None else None

    def own_spec(self, provider: str, model: str) -> ModelSpec | None:
        """What MODELS_FILE says about a model."""
        return self._table.spec(provider).models.get(model)

    def endpoint(self, provider: str) -> Endpoint | None:
        """The endpoint of a provider; None if the provider was removed."""
        known = self._endpoints.get(provider)
        return known[1] if known is not None else None

    # --- all models

    @property
    def aliases(self) -> Mapping[str, Sequence[str]]:
        """The models of each alias, in the order in which they are tried."""
        return self._table.aliases

    async def states(self, *, refresh: bool = False) -> list[ProviderState]:
        """Every provider: whether it can be used now, and why. With `refresh` every provider is asked again."""
        if refresh:
            self._listings.clear()
            self._looked_at = 0.0
            await self.look()
        listings = await asyncio.gather(*(self._listing(name) for name in self._endpoints))
        # There are hundreds of models, and some are looked up for the first time.
        return await asyncio.to_thread(self._states, listings)

    def _states(self, listings: Sequence[Listing]) -> list[ProviderState]:
        return [
            ProviderState(
                name, endpoint.kind.summary, listing.available, listing.reason, self._model_states(endpoint, listing)
            )
            for (name, (_, endpoint)), listing in zip(self._endpoints.items(), listings, strict=True)
        ]

    def _model_states(self, endpoint: Endpoint, listing: Listing) -> tuple[ModelState, ...]:
        own = self._table.spec(endpoint.name).models
        names = dict.fromkeys((*listing.models, *own))
        return tuple(
            ModelState(name, spec_of(endpoint, name, own.get(name), listing.specs.get(name))) for name in names
        )

    async def _listing(self, name: str) -> Listing:
        provider = self._providers.get(name)
        if provider is None:
            return Listing(False, self._endpoints[name][0].missing() or "not available")
        listed_at, listing = self._listings.get(name, (0.0, None))
        is_complete = listing is not None and listing.available and listing.models
        ttl = _LISTING_TTL_SECONDS if is_complete else _FAILED_LISTING_TTL_SECONDS
        if listing is None or time.monotonic() - listed_at > ttl:
            try:
                async with asyncio.timeout(_LISTING_TIMEOUT_SECONDS):
                    listing = await provider.listing()
            except TimeoutError:
                listing = Listing(False, f"its list of models didn't come within {_LISTING_TIMEOUT_SECONDS:g} s")
            listing = _within_bounds(listing)
            self._listings[name] = (time.monotonic(), listing)
            self.lists_read += 1
        return listing


def _within_bounds(listing: Listing) -> Listing:
    """The listing without models whose names nobody could send, since a server may list anything."""
    models = tuple(name for name in listing.models if 0 < len(name) <= _MAX_NAME and is_clean(name))[:_MAX_LISTED]
    default = listing.default if listing.default is None or len(listing.default) <= _MAX_NAME else None
    return replace(listing, models=models, default=default, reason=listing.reason[:_MAX_REASON])
