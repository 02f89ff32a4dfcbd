"""Which models can be used, what each takes, and which ones answer a message."""

import asyncio
import contextlib
import difflib
import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from backend import events as ev
from backend.chains.calling.fallback import Health, ModelCandidate
from backend.chains.models import endpoints
from backend.chains.models.capabilities import spec_of
from backend.chains.models.prices import charge, charge_at_most
from backend.chains.models.prompt import Parameters, Tokens
from backend.chains.models.provider import ChatModel, Endpoint, Kind, Listing, Plugin, Provider
from backend.chains.models.tokenizers import Count, counter
from backend.config.groups.models import ModelSettings
from backend.config.models_file import ModelSpec, Price, ProviderTable
from backend.errors import Invalid, RunError

BUILT_IN = "extractive/quotes"
"""What answers where there is no language model."""
_FRESH, _AGAIN = 60.0, 5.0
"""Seconds for which a provider's list of models is taken as it is, and that there is none."""
_HASTE = 0.25
"""Seconds that a request waits for a look whether a language model has come up."""
_PATIENCE = 5.0
"""Seconds that a provider has to list its models."""
_MAX_KNOWN = 1000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ModelState:
    """A listed model and what is known of it."""

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
    """The model that answers when the request names none, and why it is that one."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """What a caller asks of the model: `asked` has the parameters that were named, by field of `Parameters`, and
    `images`. `fallbacks` None: as the settings say."""

    model: str | None = None
    fallbacks: tuple[str, ...] | None = None
    asked: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """An opened model, with what its provider's kind says about it."""

    name: str
    model: ChatModel
    spec: ModelSpec
    cannot: Mapping[str, str]
    """The reason for each parameter that the model doesn't take."""
    hides_reasoning: Literal["if_asked", "by_model"] | None
    count: Count | None


class Models:
    """The registry of providers with this server's settings. Raises ValueError on a table that can't be."""

    def __init__(self, settings: ModelSettings, table: ProviderTable) -> None:
        self._settings = settings
        self._table = table
        self._endpoints: dict[str, tuple[Plugin, Endpoint]] = {e.name: (p, e) for p, e in endpoints(table)}
        self._providers: dict[str, Provider] = {
            name: plugin.create(endpoint, settings)
            for name, (plugin, endpoint) in self._endpoints.items()
            if plugin.missing() is None
        }
        self._listings: dict[str, tuple[float, Listing]] = {}
        self._opened: dict[str, _Known] = {}
        self.health = Health(settings.cooldown_seconds)
        self.default = DefaultModel(BUILT_IN, "not looked for yet")
        self._looked = 0.0
        self._looking: asyncio.Task[None] | None = None
        for path in (m.tokenizer for p in table.providers.values() for m in p.models.values()):
            if path is not None:
                counter(path)
        for section, chains in (("aliases", table.aliases), ("fallbacks", table.fallbacks)):
            for name, chain in chains.items():
                self._check_chain(f"{section}.{name}", chain)

    def _check_chain(self, where: str, chain: Sequence[str]) -> None:
        """Raises ValueError when a model of the table can't be."""
        for model in chain:
            try:
                self._known(model)
            except Invalid as error:
                said = error.message.removeprefix("model: ").removesuffix(" GET /models lists them.")
                raise ValueError(f"MODELS_FILE: {where}: {said}") from None

    async def open(self) -> None:
        """Find the default model: the setting, else the first provider that is there."""
        if self._settings.llm_model is not None:
            self.check(self._settings.llm_model)
            self.default = DefaultModel(self._settings.llm_model, "LLM_MODEL is set")
            return
        self.default = await self._found()

    async def look(self) -> None:
        """Find the default model once more while it is the built-in one: another may have come up since. A request
        doesn't wait for it longer than it would notice."""
        found = self.default.name != BUILT_IN or self._settings.llm_model is not None
        if found or time.monotonic() - self._looked < _AGAIN:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="default-model")
        await asyncio.wait({self._looking}, timeout=_HASTE)

    async def _look(self) -> None:
        default = await self._found()
        if default.name != BUILT_IN:
            await asyncio.to_thread(self._import, default.name)
            log.info("chat_model", model=default.name, why=default.reason)
        self.default = default

    async def _found(self) -> DefaultModel:
        """The first provider's that is there."""
        self._looked = time.monotonic()
        why_not: list[str] = []
        ranked = [name for name, (_, endpoint) in self._endpoints.items() if endpoint.rank is not None]
        listings = await asyncio.gather(*map(self._listing, ranked))
        for name, listing in zip(ranked, listings, strict=True):
            model = self._default_of(name, listing) if listing.available else None
            if model is not None:
                reason = listing.reason if not why_not else f"{listing.reason} ({'; '.join(why_not)})"
                return DefaultModel(f"{name}/{model}", reason)
            choose = f"; or set LLM_MODEL={name}/<model>" if listing.available else ""
            why_not.append(f"{name}: {listing.reason}{choose}")
        return DefaultModel(BUILT_IN, "; ".join(why_not))

    @property
    def missed(self) -> bool:
        """Whether a provider was set up, and none of its models answers by default."""
        endpoints = [endpoint for _, endpoint in self._endpoints.values() if endpoint.rank is not None]
        named = any(endpoint.key is not None or endpoint.own_address for endpoint in endpoints)
        return named and self.default.name == BUILT_IN and self._settings.llm_model is None

    def _default_of(self, name: str, listing: Listing) -> str | None:
        """The provider's model that answers when none is named. One of MODELS_FILE has those that the file names, then
        those that it lists at an address of its own: a vendor lists what doesn't chat, too."""
        endpoint = self._endpoints[name][1]
        if name == endpoint.kind.name:
            return listing.default
        named = [m for m in self._table.spec(name).models if m in listing.models or not listing.models]
        listed = [m for m in listing.models if "embed" not in m] if endpoint.own_address else []
        return next(iter((*named, *listed)), None)

    async def close(self) -> None:
        """Let go of the providers' connections."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await asyncio.gather(*(p.aclose() for p in self._providers.values()))

    def choose(self, wanted: ModelChoice) -> list[ModelCandidate]:
        """The models that may answer, in the order in which they are tried.

        Raises Invalid: an unknown model, or a parameter that the first one, or a fallback that the caller named,
        doesn't take. Fallbacks of the settings that don't take it are left out.
        """
        asked = wanted.asked or {}
        first, *more = self._chain(self.default.name if wanted.model is None else wanted.model)
        found = [self._candidate(first, asked)]
        for name in wanted.fallbacks or ():
            found += [self._candidate(each, asked) for each in self._chain(name)]
        if wanted.fallbacks is None:
            for name in (*more, *self._table.fallbacks.get(first, ())):
                with contextlib.suppress(Invalid):
                    found.append(self._candidate(name, asked))
        return list({candidate.name: candidate for candidate in found}.values())

    def check(self, name: str) -> None:
        """Raises Invalid where no such model can be used: with the nearest names, or the provider's reason."""
        self._model(self._chain(name)[0])

    def spec(self, name: str) -> ModelSpec:
        """What is known of a model, `provider/model`. Raises Invalid."""
        provider, model = self._known(name)
        return spec_of(self._endpoints[provider][1], model, self._table.spec(provider).models.get(model))

    def charge(self, usage: ev.Usage) -> None:
        """Put in what the call costs at today's price; nothing where that isn't known."""
        priced = self._priced(usage.model)
        tokens = Tokens(usage.input_tokens, usage.output_tokens, usage.reasoning_tokens, usage.cached_tokens)
        if priced is not None and (found := charge(*priced, tokens)) is not None:
            usage.cost, usage.price = found.cost, found.price

    def cost_at_most(self, name: str, tokens: Tokens) -> int | None:
        """Micro-dollars that a call can cost which takes no more than these; None when nobody knows."""
        priced = self._priced(name)
        return charge_at_most(*priced, tokens) if priced is not None else None

    def _priced(self, full: str) -> tuple[Endpoint, str, Price | None] | None:
        """Where a model is, its name there, and its price by the settings; None for a provider that is gone."""
        provider, _, model = full.partition("/")
        if provider not in self._endpoints:
            return None
        own = self._table.spec(provider).models.get(model)
        return self._endpoints[provider][1], model, own.price if own is not None else None

    def _chain(self, name: str) -> tuple[str, ...]:
        return self._table.aliases.get(name, (name,))

    def _known(self, full: str) -> tuple[str, str]:
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

    def _model(self, full: str) -> ChatModel:
        provider, model = self._known(full)
        if provider not in self._providers:
            raise Invalid(f"model: {self._endpoints[provider][0].missing()}", code="unknown_model")
        try:
            return self._providers[provider].open(model)
        except RunError as error:
            raise Invalid(f"model: {error.message}", code="unknown_model") from None

    def _open(self, full: str) -> _Known:
        if (known := self._opened.get(full)) is not None:
            return known
        opened, spec = self._model(full), self.spec(full)
        kind = self._endpoints[self._known(full)[0]][1].kind
        count = counter(spec.tokenizer) if spec.tokenizer is not None else None
        if len(self._opened) >= _MAX_KNOWN:
            self._opened.clear()
        known = self._opened[full] = _Known(full, opened, spec, _cannot(kind, spec), kind.hides_reasoning, count)
        return known

    def _candidate(self, name: str, asked: Mapping[str, object]) -> ModelCandidate:
        known = self._open(name)
        for field in asked:
            if field in known.cannot:
                raise Invalid(
                    f"{field}: {name} doesn't take it: {known.cannot[field]}. Leave it out, or choose another model.",
                    code="unsupported_parameter",
                )
        limit, most = asked.get("max_tokens"), known.spec.max_output
        if isinstance(limit, int) and most is not None and limit > most:
            raise Invalid(f"max_tokens: {name} writes at most {most} tokens.", code="unsupported_parameter")
        hides_reasoning = known.hides_reasoning is not None and (
            "reasoning_effort" in asked or (known.hides_reasoning == "by_model" and known.spec.reasoning is True)
        )
        parameters = self._parameters(known.spec, asked)
        return ModelCandidate(
            known.name, known.model, parameters, hides_reasoning, "images" not in known.cannot, known.count
        )

    def _parameters(self, spec: ModelSpec, asked: Mapping[str, object]) -> Parameters:
        settings = self._settings
        limit = settings.llm_max_tokens if spec.max_output is None else min(settings.llm_max_tokens, spec.max_output)
        fields: dict[str, Any] = {"max_tokens": limit}
        # Vendors advise against both, or refuse them; a model that is to reason has its own.
        if spec.temperature is not False and not asked.keys() & {"top_p", "reasoning_effort"}:
            fields["temperature"] = settings.llm_temperature
        fields.update(asked)
        fields.pop("images", None)
        return Parameters(**fields)

    def warm(self) -> None:
        """Import what the default model needs at its first use, and what knows models. Takes seconds: for a thread."""
        self._import(self.default.name)
        for _, endpoint in self._endpoints.values():
            if endpoint.key is not None:
                spec_of(endpoint, "", None)

    def _import(self, name: str) -> None:
        provider, _ = self._known(self._chain(name)[0])
        for module in self._endpoints[provider][0].needs:
            importlib.import_module(module)

    @property
    def aliases(self) -> Mapping[str, Sequence[str]]:
        """Names that stand for models, each with those that are tried one after the other."""
        return self._table.aliases

    async def states(self, *, refresh: bool = False) -> list[ProviderState]:
        """Every provider: what can be used now, and what can't with the reason. `refresh`: ask them all anew."""
        if refresh:
            self._listings.clear()
            self._looked = 0.0
            await self.look()
        listings = await asyncio.gather(*(self._listing(name) for name in self._endpoints))
        # Hundreds of models, some of which are looked up for the first time.
        return await asyncio.to_thread(self._states, listings)

    def _states(self, listings: Sequence[Listing]) -> list[ProviderState]:
        return [
            ProviderState(name, endpoint.kind.summary, found.available, found.reason, self._specs(endpoint, found))
            for (name, (_, endpoint)), found in zip(self._endpoints.items(), listings, strict=True)
        ]

    def _specs(self, endpoint: Endpoint, listing: Listing) -> tuple[ModelState, ...]:
        own = self._table.spec(endpoint.name).models
        names = dict.fromkeys((*listing.models, *own))
        return tuple(ModelState(name, spec_of(endpoint, name, own.get(name))) for name in names)

    async def _listing(self, name: str) -> Listing:
        provider = self._providers.get(name)
        if provider is None:
            return Listing(False, self._endpoints[name][0].missing() or "not available")
        asked_at, known = self._listings.get(name, (0.0, None))
        fresh = _FRESH if known is not None and known.available and known.models else _AGAIN
        if known is None or time.monotonic() - asked_at > fresh:
            try:
                async with asyncio.timeout(_PATIENCE):
                    known = await provider.listing()
            except TimeoutError:
                known = Listing(False, f"its list of models didn't come within {_PATIENCE:g} s")
            self._listings[name] = (time.monotonic(), known)
        return known


def _cannot(kind: Kind, spec: ModelSpec) -> dict[str, str]:
    """Parameters that a model doesn't take, as far as anybody knows, with the reason."""
    return {
        **dict.fromkeys(kind.refuses, f"{kind.name} has no such parameter"),
        **(dict.fromkeys(("temperature", "top_p"), "the model takes none") if spec.temperature is False else {}),
        **({"reasoning_effort": "the model doesn't reason"} if spec.reasoning is False else {}),
        **({"response_schema": "the model can't keep to a schema"} if spec.structured_output is False else {}),
        **({"images": "the model can't see"} if spec.vision is False else {}),
    }
