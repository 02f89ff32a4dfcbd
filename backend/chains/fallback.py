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

from backend.chains.calls import CallLimits, call
from backend.chains.models.base import ChatModel, Output, Parameters, Prompt
from backend.errors import ContentFiltered, ContextOverflow, ModelNotFound, RateLimited, RunError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may answer, and how it is asked to write."""

    name: str
    model: ChatModel
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Switched:
    """Another model takes over. `error` is why."""

    before: Candidate
    now: Candidate
    error: RunError


class Health:
    """Which models failed lately. `seconds`: how long a failure counts; 0, and none does."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[str, float] = {}

    def failed(self, name: str, error: RunError) -> None:
        """A call of the model failed: for a fault of its own, it is passed over for a while."""
        if isinstance(error, ContextOverflow | ContentFiltered):
            return
        # A wrong key or a server that is down concerns all of a provider's models, a limit or a missing model one.
        key = name if isinstance(error, RateLimited | ModelNotFound) else name.partition("/")[0]
        self._until[key] = time.monotonic() + max(self._seconds, (error.retry_after or 0.0) if self._seconds else 0.0)

    def worked(self, name: str) -> None:
        """A call of the model was answered."""
        self._until.pop(name, None)
        self._until.pop(name.partition("/")[0], None)

    def rests(self, name: str) -> bool:
        """Whether the model is passed over now."""
        now = time.monotonic()
        return any(self._until.get(key, 0.0) > now for key in (name, name.partition("/")[0]))

    def order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that work first; those that rest are the last resort."""
        return sorted(candidates, key=lambda candidate: self.rests(candidate.name))


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


class Observer:
    """Is told of calls of models. This one doesn't care."""

    def calling(self, candidate: Candidate, prompt: Prompt) -> Observed:
        """A model is called."""
        del candidate, prompt
        return _UNOBSERVED


_NOBODY = Observer()


@dataclass(frozen=True, slots=True)
class Attempts:
    """How several models are tried. `patience` is the longest wait for a first output where another model is next;
    `after_output`: one that breaks off in its answer is followed, too."""

    limits: CallLimits
    health: Health
    patience: float
    after_output: bool = False
    observer: Observer = _NOBODY


async def attempt(
    candidates: Sequence[Candidate], prompt: Callable[[Candidate], Prompt], how: Attempts
) -> AsyncGenerator[Output | Switched]:
    """The outputs of the first model that answers. Raises the RunError of the last that didn't."""
    now, *rest = how.health.order(candidates)
    if now is not candidates[0]:
        rested = RateLimited(f"{candidates[0].name} failed lately and rests.")
        yield Switched(candidates[0], now, rested)
    while True:
        begun = False
        limits = how.limits if not rest else replace(how.limits, first_token=min(how.patience, how.limits.first_token))
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


def _mendable(error: RunError) -> bool:
    """Whether another model may do better."""
    return not isinstance(error, ContentFiltered)
