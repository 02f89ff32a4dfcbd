"""Chooses the models that may answer a message, with the parameters of their calls."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from backend.chains.calling.fallback import ModelCandidate
from backend.chains.models.prompt import Parameters
from backend.chains.models.provider import ChatModel, Kind
from backend.chains.models.tokenizers import Count, counter
from backend.config.groups.models import ModelSettings
from backend.config.models_file import ModelSpec, ProviderTable
from backend.errors import Invalid
from backend.services.models.catalog import ModelCatalog

_MAX_OPENED = 1000


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model that a caller asks for."""

    model: str | None = None
    """A model or an alias. None: the default model."""
    fallbacks: tuple[str, ...] | None = None
    """The models to try next. None: those of MODELS_FILE."""
    parameters: Mapping[str, object] | None = None
    """The parameters that the caller set, by field of `Parameters`, and `images` if there are any."""


@dataclass(frozen=True, slots=True)
class _OpenedModel:
    """An opened model, with what its spec and its provider's kind say about it."""

    name: str
    model: ChatModel
    spec: ModelSpec
    refusals: Mapping[str, str]
    """The reason for each parameter that the model doesn't take."""
    hides_reasoning: Literal["if_asked", "by_model"] | None
    count: Count | None
    listed: ModelSpec | None
    """What its provider said about it when it was opened."""


class ModelChooser:
    """Turns what a caller asks for into candidates."""

    def __init__(self, settings: ModelSettings, table: ProviderTable, catalog: ModelCatalog) -> None:
        self._settings = settings
        self._table = table
        self._catalog = catalog
        self._opened: dict[str, _OpenedModel] = {}
        self._lists_read = 0

    def choose(self, choice: ModelChoice) -> list[ModelCandidate]:
        """The models that may answer, in the order in which they are tried.

        Raises Invalid if a model is unknown, or if the first one or a fallback that the caller named doesn't take a
        parameter. Fallbacks of MODELS_FILE that don't take it are left out.
        """
        parameters = choice.parameters or {}
        aliases = self._table.aliases
        name = self._catalog.default.name if choice.model is None else choice.model
        first, *others = aliases.get(name, (name,))
        candidates = [self._candidate(first, parameters)]
        for fallback in choice.fallbacks or ():
            candidates += [self._candidate(name, parameters) for name in aliases.get(fallback, (fallback,))]
        if choice.fallbacks is None:
            for name in (*others, *self._table.fallbacks.get(first, ())):
                with contextlib.suppress(Invalid):
                    candidates.append(self._candidate(name, parameters))
        return list({candidate.name: candidate for candidate in candidates}.values())

    def for_tasks(self, answering: ModelCandidate, name: str | None = None) -> ModelCandidate:
        """The model that writes titles, summaries and search queries: `name`, or else TASK_MODEL, or else the one that
        answers."""
        name = name or self._settings.task_model
        return answering if name is None else self.choose(ModelChoice(name))[0]

    def _candidate(self, name: str, parameters: Mapping[str, object]) -> ModelCandidate:
        opened = self._open(name)
        for field in parameters:
            if (reason := opened.refusals.get(field)) is not None:
                raise Invalid(
                    f"{field}: {name} doesn't take it: {reason}. Leave it out, or choose another model.",
                    code="unsupported_parameter",
                )
        limit, most = parameters.get("max_tokens"), opened.spec.max_output
        if isinstance(limit, int) and most is not None and limit > most:
            raise Invalid(f"max_tokens: {name} writes at most {most} tokens.", code="unsupported_parameter")
        hides_reasoning = opened.hides_reasoning is not None and (
            "reasoning_effort" in parameters or (opened.hides_reasoning == "by_model" and opened.spec.reasoning is True)
        )
        return ModelCandidate(
            opened.name,
            opened.model,
            self._parameters(opened.spec, parameters),
            hides_reasoning,
            sees="images" not in opened.refusals,
            count=opened.count,
        )

    def _open(self, full: str) -> _OpenedModel:
        if self._lists_read != self._catalog.lists_read:
            self._forget_changed()
        if (opened := self._opened.get(full)) is not None:
            return opened
        model, spec = self._catalog.model(full), self._catalog.spec(full)
        endpoint = self._catalog.endpoint(self._catalog.split(full)[0])
        assert endpoint is not None
        kind = endpoint.kind
        count = counter(spec.tokenizer) if spec.tokenizer is not None else None
        if len(self._opened) >= _MAX_OPENED:
            self._opened.clear()
        listed = self._listed(full)
        opened = _OpenedModel(full, model, spec, _refusals(kind, spec), kind.hides_reasoning, count, listed)
        self._opened[full] = opened
        return opened

    def _forget_changed(self) -> None:
        """Forget the models of which the newest list of their provider says something else."""
        self._lists_read = self._catalog.lists_read
        self._opened = {name: opened for name, opened in self._opened.items() if opened.listed == self._listed(name)}

    def _listed(self, full: str) -> ModelSpec | None:
        return self._catalog.listed_spec(*full.split("/", 1))

    def _parameters(self, spec: ModelSpec, parameters: Mapping[str, object]) -> Parameters:
        settings = self._settings
        limit = settings.llm_max_tokens if spec.max_output is None else min(settings.llm_max_tokens, spec.max_output)
        fields: dict[str, Any] = {"max_tokens": limit}
        # Vendors refuse temperature together with top_p, or advise against it. A model that reasons has its own.
        if spec.temperature is not False and not parameters.keys() & {"top_p", "reasoning_effort"}:
            fields["temperature"] = settings.llm_temperature
        fields.update(parameters)
        fields.pop("images", None)
        return Parameters(**fields)


def _refusals(kind: Kind, spec: ModelSpec) -> dict[str, str]:
    """The reason for each parameter that a model is known not to take."""
    return {
        **dict.fromkeys(kind.refuses, f"{kind.name} has no such parameter"),
        **(dict.fromkeys(("temperature", "top_p"), "the model takes none") if spec.temperature is False else {}),
        **({"reasoning_effort": "the model doesn't reason"} if spec.reasoning is False else {}),
        **({"response_schema": "the model can't keep to a schema"} if spec.structured_output is False else {}),
        **({"images": "the model can't see"} if spec.vision is False else {}),
    }
