"""One answer by the first of several models that gives one.

The next model takes over when one fails before its first output; after that only where the caller asks for it, since
what was written until then stays in the answer. A model that just failed is passed over for a while.
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
"""Seconds; a provider may ask for hours, and work again sooner."""
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
    """Whether the model can read images, as far as is known."""
    count: Count | None = None
    """Counts the tokens of a text with the model's own tokenizer, if there is one."""

    def output_tokens(self, shown: int, limit: int, *, is_complete: bool) -> int:
        """An estimate, for a call whose provider didn't count. `shown`: the tokens of the text in the stream. A model
        that hides its reasoning and was stopped may have used all tokens up to its `limit`."""
        return shown if is_complete or not self.hides_reasoning else limit


@dataclass(frozen=True, slots=True)
class Switched:
    """Another model takes over. `error` is the reason: that of the call that has just failed, or of an earlier call,
    for which the model was skipped without being tried."""

    before: ModelCandidate
    now: ModelCandidate
    error: RunError
    was_tried: bool = True


class Health:
    """Which models failed lately, and why. A failure counts for `seconds`; with 0, no failure counts."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failures: dict[str, tuple[float, RunError]] = {}

    def failed(self, name: str, error: RunError) -> None:
        """A call of the model failed. If that was the model's or its provider's fault, the model is skipped for a
        while."""
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

    def worked(self, name: str) -> None:
        """A call of the model was answered."""
        if self._failures:
            self._failures.pop(name, None)
            self._failures.pop(_provider(name), None)

    def rests(self, name: str) -> RunError | None:
        """Why the model is passed over now; None when it isn't."""
        if not self._failures:
            return None
        now = time.monotonic()
        for until, error in (self._failures[key] for key in (name, _provider(name)) if key in self._failures):
            if until > now:
                return error
        return None

    def order(self, candidates: Sequence[ModelCandidate]) -> list[ModelCandidate]:
        """The candidates, those that failed lately last."""
        return sorted(candidates, key=lambda candidate: self.rests(candidate.name) is not None)


class Observed:
    """Hears how one call of a model goes; the base class ignores everything. It is entered when the call begins and
    left with the error that ends the call. Methods must be quick and must not raise."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        return None

    def output(self) -> None:
        """The first output has arrived."""

    def retrying(self, error: RunError) -> None:
        """The provider refused the call, and it is tried again."""


_UNOBSERVED = Observed()


class CallObserver:
    """Hears of each call of a model; the base class ignores them."""

    def calling(self, candidate: ModelCandidate, prompt: Prompt) -> Observed:
        """The observer of the call that begins."""
        del candidate, prompt
        return _UNOBSERVED


_NOBODY = CallObserver()


@dataclass(frozen=True, slots=True)
class Attempts:
    """How several models are tried. If another model is next, `first_token_timeout` is the longest wait for a first
    output, in seconds. `after_output`: another model also takes over if one fails within its answer."""

    limits: CallLimits
    health: Health
    first_token_timeout: float
    after_output: bool = False
    observer: CallObserver = _NOBODY


async def attempt(
    candidates: Sequence[ModelCandidate], prompt: Callable[[ModelCandidate], Prompt], how: Attempts
) -> AsyncGenerator[Output | Switched]:
    """The outputs of the first model that answers. Raises the RunError of the last that didn't."""
    now, *rest = how.health.order(candidates)
    if now is not candidates[0] and (error := how.health.rests(candidates[0].name)) is not None:
        yield Switched(candidates[0], now, error, was_tried=False)
    last_limits = how.limits
    # Another model is quicker than a retry.
    early_limits = replace(last_limits, first_token=min(how.first_token_timeout, last_limits.first_token), retry=0.0)
    while True:
        begun = False
        limits = early_limits if rest else last_limits
        asked = prompt(now)
        try:
            with how.observer.calling(now, asked) as observed:
                async with aclosing(call(now.model, asked, limits, observed.retrying)) as outputs:
                    async for output in outputs:
                        if not begun:
                            begun = True
                            observed.output()
                        yield output
            how.health.worked(now.name)
            return
        except RunError as error:
            how.health.failed(now.name, error)
            if not rest or (begun and not how.after_output) or not _may_help(error):
                raise
            before, now = now, rest.pop(0)
            log.info("model_switched", before=before.name, now=now.name, code=error.code)
            yield Switched(before, now, error)


def _provider(name: str) -> str:
    return name.partition("/")[0]


def _may_help(error: RunError) -> bool:
    """Whether another model may succeed after this error."""
    return not isinstance(error, ContentFiltered)
