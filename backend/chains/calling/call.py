"""One call of a model under its limits: deadlines, and the one retry loop there is.

A call is tried again only before its first output, when the provider's refusal says that this makes sense. The SDKs'
own retries and timeouts are off: they would multiply these, and wrap every token in a task.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

import structlog

from backend.chains.models.prompt import Output, Prompt
from backend.chains.models.provider import ChatModel
from backend.config.groups.models import ModelSettings
from backend.errors import ProviderTimeout, RunError, UpstreamStalled

log = structlog.get_logger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0

Limit = Literal["first", "idle", "total"]


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Seconds: until the first output of a try, between outputs, for the whole call, and for retries (0: none)."""

    first_token: float
    idle: float
    total: float
    retry: float


def call_limits(settings: ModelSettings) -> CallLimits:
    """The limits of the settings."""
    return CallLimits(
        first_token=settings.first_token_timeout,
        idle=settings.idle_timeout,
        total=settings.total_timeout,
        retry=settings.retry_seconds,
    )


def _ignore(error: RunError) -> None:
    del error


async def call(
    model: ChatModel, prompt: Prompt, limits: CallLimits, retrying: Callable[[RunError], None] = _ignore
) -> AsyncGenerator[Output]:
    """The model's outputs. `retrying` is called with the error before each retry.

    Raises RunError; ProviderTimeout and UpstreamStalled when a deadline passes.
    """
    deadlines = _Deadlines(limits)
    retries = _Retries(limits.retry)
    begun = False
    try:
        while True:
            try:
                async with aclosing(model.stream(prompt)) as outputs:
                    deadlines.wait("first", limits.first_token)
                    async for output in outputs:
                        deadlines.rest()
                        begun = True
                        yield output
                        deadlines.wait("idle", limits.idle)
                    return
            except RunError as error:
                pause = None if begun else retries.pause(error)
                if pause is None:
                    raise
                retrying(error)
            deadlines.wait("total", limits.total)
            await asyncio.sleep(pause)
    except asyncio.CancelledError:
        passed = deadlines.caught()
        if passed is None:
            raise
        raise _too_late(passed, limits, begun) from None
    finally:
        deadlines.close()


def prompt_was_billed(error: RunError | asyncio.CancelledError) -> bool:
    """Whether the provider charges for the prompt of a call that ended without output: yes if we cancelled it or gave
    up waiting; a provider that refuses charges nothing."""
    # A timeout that the provider reports as a refusal has a `retry_after`.
    return not isinstance(error, RunError) or (isinstance(error, ProviderTimeout) and error.retry_after is None)


def _too_late(passed: Limit, limits: CallLimits, begun: bool) -> RunError:
    match passed:
        case "first":
            return ProviderTimeout(f"The provider did not begin to answer within {limits.first_token:g} s. Try again.")
        case "idle":
            return UpstreamStalled(
                f"The provider fell silent for {limits.idle:g} s. What came until then is kept; ask again."
            )
        case "total":
            kept = " What came until then is kept." if begun else ""
            return ProviderTimeout(f"The answer took longer than {limits.total:g} s (TOTAL_TIMEOUT).{kept}")


class _Retries:
    """How long to wait before each retry: exponential with jitter, and at least as long as the provider asks for."""

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._began = asyncio.get_running_loop().time()
        self._tried = 0

    def pause(self, error: RunError) -> float | None:
        """Seconds until the next try; None if there is none. The first retry is made however long the call took."""
        if error.retry_after is None or not self._budget:
            return None
        backoff = min(_FIRST_PAUSE * 2**self._tried, _LONGEST_PAUSE) * random.uniform(0.75, 1.25)
        pause = max(error.retry_after, backoff)
        spent = asyncio.get_running_loop().time() - self._began if self._tried else 0.0
        if spent + pause > self._budget:
            return None
        self._tried += 1
        log.info("provider_retry", code=error.code, tries=self._tried, wait=round(pause, 2))
        return pause


class _Deadlines:
    """Cancels the task that waits for the provider when a deadline passes. A call has one timer; each output only moves
    a number."""

    def __init__(self, limits: CallLimits) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._end = self._loop.time() + limits.total
        self._due: float | None = None
        self._waits_for: Limit = "first"
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = 0.0
        self._passed: Limit | None = None

    def wait(self, what: Limit, seconds: float) -> None:
        """The task begins to wait for the provider, at most this many seconds."""
        due = self._loop.time() + seconds
        self._due, self._waits_for = (due, what) if due < self._end else (self._end, "total")
        if self._timer is None or self._due < self._looks_at:
            self._look_at(self._due)

    def rest(self) -> None:
        """The task stops waiting for the provider."""
        self._due = None

    def caught(self) -> Limit | None:
        """The deadline that cancelled the task just now; the cancel is undone. None: something else cancelled it."""
        if self._passed is not None and self._task is not None and self._task.uncancel() == 0:
            return self._passed
        return None

    def close(self) -> None:
        """Stop the timer."""
        self._task = None
        if self._timer is not None:
            self._timer.cancel()

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._looks_at = self._loop.call_at(when, self._look), when

    def _look(self) -> None:
        self._timer = None
        if self._due is None or self._task is None:
            return
        if self._loop.time() < self._due:
            self._look_at(self._due)
        else:
            self._passed = self._waits_for
            self._task.cancel()
