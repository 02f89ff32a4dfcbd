"""What is known of the quirks of a provider's models, and what refusals teach of them."""

from dataclasses import replace
from typing import Any

import structlog

from backend.chains.models._refusals import refused_call
from backend.chains.models._refused_parameters import refused_parameters
from backend.chains.models.prompt import Parameters, Prompt
from backend.chains.models.provider import Endpoint
from backend.config.quirks import ModelQuirks

log = structlog.get_logger(__name__)

_MAX_MODELS = 1_000
"""The most models whose quirks are remembered: callers choose their names."""
_MAX_TRIES = 4
"""How many refusals in a row may teach something: each one names another parameter."""


class QuirkBook:
    """The quirks of one provider's models: those of MODELS_FILE, those that refusals have shown, and the usual ones."""

    def __init__(self, endpoint: Endpoint, usual: ModelQuirks | None = None) -> None:
        self._endpoint = endpoint
        self._usual = endpoint.quirks.over(usual or ModelQuirks())
        self._known: dict[str, ModelQuirks] = {}

    def of(self, model: str) -> ModelQuirks:
        """The quirks of a model."""
        if (known := self._known.get(model)) is not None:
            return known
        return self._endpoint.quirks_of(model, self._usual)

    def learn(self, model: str, error: Exception, prompt: Prompt, tried: set[str]) -> bool:
        """Whether the same call is worth asking again in another way, because the refusal names a parameter that was
        sent. The way is remembered for the model. `tried` collects what was changed during one call."""
        call = refused_call(error, model, self._endpoint)
        if call is None or len(tried) >= _MAX_TRIES:
            return False
        before = self.of(model)
        names = refused_parameters(call)
        changes = _changes(names, call.body.text.lower(), prompt, before)
        if not changes or not tried.isdisjoint(map(str, changes.items())):
            return False
        tried.update(map(str, changes.items()))
        if len(self._known) >= _MAX_MODELS:
            self._known.pop(next(iter(self._known)))
        self._known[model] = before.model_copy(update=changes)
        log.info("quirk_learned", model=f"{self._endpoint.name}/{model}", **changes)
        return True


def adapted(parameters: Parameters, quirks: ModelQuirks) -> Parameters:
    """The parameters that a model with these quirks is sent."""
    changes: dict[str, Any] = {name: None for name in quirks.omit if getattr(parameters, name) is not None}
    if quirks.temperature is not None:
        changes["temperature"] = quirks.temperature
    if quirks.stop is False and parameters.stop:
        changes["stop"] = ()
    return replace(parameters, **changes) if changes else parameters


def _changes(names: frozenset[str], text: str, prompt: Prompt, quirks: ModelQuirks) -> dict[str, Any]:
    """What to ask differently; empty if what is refused wasn't sent, or can't be left out."""
    sent = adapted(prompt.parameters, quirks)
    changes: dict[str, Any] = {}
    omitted = tuple(
        name
        for name in ("temperature", "top_p", "seed", "reasoning_effort")
        if name in names and getattr(sent, name) is not None
    )
    if omitted:
        changes["omit"] = (*quirks.omit, *omitted)
        if "temperature" in omitted and quirks.temperature is not None:
            changes["temperature"] = None
    if "stop" in names and sent.stop:
        changes["stop"] = False
    if "stream_options" in names and quirks.stream_options is not False:
        changes["stream_options"] = False
    limits = names & {"max_tokens", "max_completion_tokens"}
    usual = quirks.limit or "max_completion_tokens"
    if len(limits) == 1 and (usual == "both" or usual in limits):
        # If both are refused, nothing would limit the answer and what it costs.
        changes["limit"] = "max_completion_tokens" if "max_tokens" in limits else "max_tokens"
    if "system" in names:
        changes |= _changes_of_roles(text, prompt, quirks)
    return changes


def _changes_of_roles(text: str, prompt: Prompt, quirks: ModelQuirks) -> dict[str, Any]:
    if quirks.merge is False and "alternat" in text:
        return {"merge": True}
    role = quirks.system_role or "system"
    if not prompt.system.strip() or role == "user":
        return {}
    if role == "developer":
        return {"system_role": "system"}
    is_suggested = "use 'developer'" in text or "'developer' instead" in text or "use developer" in text
    return {"system_role": "developer" if is_suggested else "user"}
