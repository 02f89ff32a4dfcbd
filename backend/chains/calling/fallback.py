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

_LONGEST_REST = 600.0
"""Seconds; a provider may ask for hours, and be well again sooner."""
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

    def wrote(self, shown: int, most: int, *, whole: bool) -> int:
        """Tokens that nobody counted, of an answer of which so many were shown. What a model thought out of sight until
        it was stopped may be all it was allowed."""
        return shown if whole or not self.hides_reasoning else most


@dataclass(frozen=True, slots=True)
class Switched:
    """Another model takes over. `error` is why: of the call that has just failed, or of an earlier one where the model
    rests and was not `asked`."""

    before: ModelCandidate
    now: ModelCandidate
    error: RunError
    asked: bool = True


class Health:
    """Which models failed lately, and why. `seconds`: how long a failure counts; 0, and none does."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failures: dict[str, tuple[float, RunError]] = {}

    def failed(self, name: str, error: RunError) -> None:
        """A call of the model failed: for a fault of its own, it is passed over for a while."""
        if not self._seconds or isinstance(error, ContextOverflow | ContentFiltered | PromptRefused):
            return
        # A wrong key or a server that is down concerns all of a provider's models; a limit, a missing model or a slow
        # answer one.
        alone = isinstance(error, RateLimited | ModelNotFound | ProviderTimeout | UpstreamStalled)
        key = name if alone else _provider(name)
        if len(self._failures) >= _MAX_FAILURES:
            self._failures.pop(next(iter(self._failures)))
        seconds = max(self._seconds, min(error.retry_after or 0.0, _LONGEST_REST))
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
        """Those that work first; those that rest are the last resort."""
        return sorted(candidates, key=lambda candidate: self.rests(candidate.name) is not None)


class Observed:
    """One call of a model, for whom it may concern; entered when it begins, left with the error that ends it. This one
    concerns nobody. What is done here is quick and raises nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        return None

    def output(self) -> None:
        """The first output is there."""

    def retrying(self, error: RunError) -> None:
        """It was refused and is tried again."""


_UNOBSERVED = Observed()


class CallObserver:
    """Is told of calls of models. This one doesn't care."""

    def calling(self, candidate: ModelCandidate, prompt: Prompt) -> Observed:
        """A model is called."""
        del candidate, prompt
        return _UNOBSERVED


_NOBODY = CallObserver()


@dataclass(frozen=True, slots=True)
class Attempts:
    """How several models are tried. `patience` is the longest wait for a first output where another model is next;
    `after_output`: one that breaks off in its answer is followed, too."""

    limits: CallLimits
    health: Health
    patience: float
    after_output: bool = False
    observer: CallObserver = _NOBODY


async def attempt(
    candidates: Sequence[ModelCandidate], prompt: Callable[[ModelCandidate], Prompt], how: Attempts
) -> AsyncGenerator[Output | Switched]:
    """The outputs of the first model that answers. Raises the RunError of the last that didn't."""
    now, *rest = how.health.order(candidates)
    if now is not candidates[0] and (error := how.health.rests(candidates[0].name)) is not None:
        yield Switched(candidates[0], now, error, asked=False)
    patient = how.limits
    # Another model is quicker than another try.
    hasty = replace(patient, first_token=min(how.patience, patient.first_token), retry=0.0)
    while True:
        begun = False
        limits = hasty if rest else patient
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
            if not rest or (begun and not how.after_output) or not _mendable(error):
                raise
            before, now = now, rest.pop(0)
            log.info("model_switched", before=before.name, now=now.name, code=error.code)
            yield Switched(before, now, error)


def _provider(name: str) -> str:
    return name.partition("/")[0]


def _mendable(error: RunError) -> bool:
    """Whether another model may do better."""
    return not isinstance(error, ContentFiltered)
