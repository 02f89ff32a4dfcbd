"""One answer by the first of several models that works.

If a model fails before its first output, the next model takes over. After the first output the next model takes over
only if the caller asks for it, since the text so far stays in the answer. A model that failed is skipped for a while.
"""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Self

import structlog

from backend.chains.calling.call import CallLimits, call
from backend.chains.models.prompt import Output, Parameters, Prompt
from backend.chains.models.provider import ChatModel
from backend.chains.models.tokenizers import Count
from backend.errors import (
    ContentFiltered,
    ContextOverflow,
    ModelNotFound,
    PromptRefused,
    ProviderTimeout,
    RateLimited,
    RunError,
    UpstreamStalled,
)

log = structlog.get_logger(__name__)

_MAX_COOLDOWN = 600.0
"""Seconds. A provider may ask for hours, but often works again sooner."""
_MAX_FAILURES = 1000


@dataclass(frozen=True, slots=True)
class ModelCandidate:
    """A model that may answer, with the parameters of its call."""

    name: str
    model: ChatModel
    parameters: Parameters
    hides_reasoning: bool = False
    """Whether the model may bill reasoning tokens that its stream doesn't contain."""
    sees: bool = True
    """Whether the model can read images. True if that is not known."""
    count: Count | None = None
    """Counts the tokens of a text with the model's own tokenizer, if there is one."""

    def output_tokens(self, visible_tokens: int, limit: int, *, is_complete: bool) -> int:
        """An estimate of the output tokens of a call whose provider didn't count. `visible_tokens` are the tokens of
        the text in the stream. A model that hides its reasoning and was stopped may have used its whole `limit`."""
        return visible_tokens if is_complete or not self.hides_reasoning else limit


@dataclass(frozen=True, slots=True)
class ModelSwitch:
    """The model `now` takes over from the model `before`.

    `error` is the reason. If `was_tried`, it ended the call that has just failed; if not, it ended an earlier call, and
    the model `before` was skipped.
    """

    before: ModelCandidate
    now: ModelCandidate
    error: RunError
    was_tried: bool = True


class Health:
    """Which models failed lately, and why. A failure counts for `seconds`; with 0, no failure counts."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failures: dict[str, tuple[float, RunError]] = {}

    def record_failure(self, name: str, error: RunError) -> None:
        """Start the model's cooldown, if the model or its provider caused the error."""
        if not self._seconds or isinstance(error, ContextOverflow | ContentFiltered | PromptRefused):
            return
        # A wrong key or a server that is down concerns all models of a provider; a rate limit, a missing model or a
        # slow answer concerns one model.
        alone = isinstance(error, RateLimited | ModelNotFound | ProviderTimeout | UpstreamStalled)
        key = name if alone else _provider(name)
        if len(self._failures) >= _MAX_FAILURES:
            self._failures.pop(next(iter(self._failures)))
        seconds = max(self._seconds, min(error.retry_after or 0.0, _MAX_COOLDOWN))
        self._failures[key] = (time.monotonic() + seconds, error)

    def record_success(self, name: str) -> None:
        """End the cooldown of the model and of its provider."""
        if self._failures:
            self._failures.pop(name, None)
            self._failures.pop(_provider(name), None)

    def cooldown_reason(self, name: str) -> RunError | None:
        """The error for which the model is skipped now; None if the model has no cooldown."""
        if not self._failures:
            return None
        now = time.monotonic()
        for until, error in (self._failures[key] for key in (name, _provider(name)) if key in self._failures):
            if until > now:
                return error
        return None

    def order(self, candidates: Sequence[ModelCandidate]) -> list[ModelCandidate]:
        """The candidates in order of preference; those in a cooldown come last."""
        return sorted(candidates, key=lambda candidate: self.cooldown_reason(candidate.name) is not None)


class ObservedCall:
    """Is notified about one call of a model; the base class does nothing. The block begins with the call, and ends with
    the error that ends the call. Methods must be quick and must not raise."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        return None

    def output(self) -> None:
        """The first output has arrived."""

    def retrying(self, error: RunError) -> None:
        """The provider refused the call; a retry follows."""


_UNOBSERVED_CALL = ObservedCall()


class CallObserver:
    """Is notified about the calls of models; the base class does nothing."""

    def observe_call(self, candidate: ModelCandidate, prompt: Prompt) -> ObservedCall:
        """The observer of one call, which begins now."""
        del candidate, prompt
        return _UNOBSERVED_CALL


_NO_OBSERVER = CallObserver()


@dataclass(frozen=True, slots=True)
class Attempts:
    """How several models are tried, one after the other."""

    limits: CallLimits
    health: Health
    first_token_timeout: float
    """The longest wait for a first output, in seconds, if there is another model to try."""
    after_output: bool = False
    """Whether another model also takes over if a model fails after its first output."""
    observer: CallObserver = _NO_OBSERVER


async def attempt(
    candidates: Sequence[ModelCandidate], prompt_for: Callable[[ModelCandidate], Prompt], attempts: Attempts
) -> AsyncGenerator[Output | ModelSwitch]:
    """The outputs of the first model that answers. Raises the RunError of the last model if every model fails."""
    model, *remaining = attempts.health.order(candidates)
    if model is not candidates[0] and (error := attempts.health.cooldown_reason(candidates[0].name)) is not None:
        yield ModelSwitch(candidates[0], model, error, was_tried=False)
    last_limits = attempts.limits
    # Another model is quicker than a retry.
    early_limits = replace(
        last_limits, first_token=min(attempts.first_token_timeout, last_limits.first_token), retry=0.0
    )
    while True:
        has_output = False
        limits = early_limits if remaining else last_limits
        prompt = prompt_for(model)
        try:
            with attempts.observer.observe_call(model, prompt) as observed_call:
                async with aclosing(call(model.model, prompt, limits, observed_call.retrying)) as outputs:
                    async for output in outputs:
                        if not has_output:
                            has_output = True
                            observed_call.output()
                        yield output
            attempts.health.record_success(model.name)
            return
        except RunError as error:
            attempts.health.record_failure(model.name, error)
            if not remaining or (has_output and not attempts.after_output) or not _may_help(error):
                raise
            before, model = model, remaining.pop(0)
            log.warning("model_switched", before=before.name, now=model.name, code=error.code)
            yield ModelSwitch(before, model, error)


def _provider(name: str) -> str:
    return name.partition("/")[0]


def _may_help(error: RunError) -> bool:
    """Whether another model may succeed after this error."""
    return not isinstance(error, ContentFiltered)
