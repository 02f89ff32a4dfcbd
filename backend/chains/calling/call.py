"""One call of a model under its limits: deadlines, and the only retry loop of the server.

A call is tried again only before its first output, and only if the provider's error says that a retry makes sense. The
retries and timeouts of the SDKs are off: they would multiply these retries, and wrap every token in a task.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

import structlog

from backend.chains.models.prompt import Output, Prompt
from backend.chains.models.provider import ChatModel, bytes_came
from backend.config.groups.models import ModelSettings
from backend.errors import ProviderTimeout, RunError, UpstreamStalled

log = structlog.get_logger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0

Limit = Literal["first", "idle", "total"]


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How long a call may wait, in seconds."""

    first_token: float
    """Of silence before the first output of one attempt."""
    idle: float
    """Of silence before the next output."""
    total: float
    """For the whole call."""
    retry: float
    """In which retries may begin; 0 means no retries."""


def call_limits(settings: ModelSettings) -> CallLimits:
    """The limits that the settings set."""
    return CallLimits(
        first_token=settings.first_token_timeout,
        idle=settings.idle_timeout,
        total=settings.total_timeout,
        retry=settings.retry_seconds,
    )


def _ignore(error: RunError) -> None:
    del error


async def call(
    model: ChatModel, prompt: Prompt, limits: CallLimits, on_retry: Callable[[RunError], None] = _ignore
) -> AsyncGenerator[Output]:
    """The model's outputs. `on_retry` is called with the error before each retry.

    Raises RunError; ProviderTimeout and UpstreamStalled when a deadline passes.
    """
    deadlines = _Deadlines(limits)
    # Stays set for the task: a call that is over ignores it, and the next one sets its own.
    bytes_came.set(deadlines.hear_bytes)
    retries = _Retries(limits.retry)
    has_output = False
    try:
        while True:
            try:
                async with aclosing(model.stream(prompt)) as outputs:
                    deadlines.start_waiting("first", limits.first_token)
                    async for output in outputs:
                        deadlines.stop_waiting()
                        has_output = True
                        yield output
                        deadlines.start_waiting("idle", limits.idle)
                    return
            except RunError as error:
                pause = None if has_output else retries.pause(error)
                if pause is None:
                    raise
                on_retry(error)
            deadlines.start_waiting("total", limits.total)
            await asyncio.sleep(pause)
    except asyncio.CancelledError:
        expired = deadlines.expired_limit()
        if expired is None:
            raise
        raise _limit_error(expired, limits, has_output) from None
    finally:
        deadlines.close()


def prompt_was_billed(error: RunError | asyncio.CancelledError) -> bool:
    """Whether the provider charges for the prompt of a call that ended without output: yes if we cancelled it or gave
    up waiting; a provider that refuses charges nothing."""
    # A timeout that the provider reports as a refusal has a `retry_after`.
    return not isinstance(error, RunError) or (isinstance(error, ProviderTimeout) and error.retry_after is None)


def _limit_error(expired: Limit, limits: CallLimits, has_output: bool) -> RunError:
    match expired:
        case "first":
            return ProviderTimeout(f"The provider did not begin to answer within {limits.first_token:g} s. Try again.")
        case "idle":
            return UpstreamStalled(
                f"The provider fell silent for {limits.idle:g} s. What came until then is kept; ask again."
            )
        case "total":
            hint = " What came until then is kept." if has_output else ""
            return ProviderTimeout(f"The answer took longer than {limits.total:g} s (TOTAL_TIMEOUT).{hint}")


class _Retries:
    """How long to wait before each retry: exponential with jitter, and at least as long as the provider asks for."""

    def __init__(self, retry_seconds: float) -> None:
        self._retry_seconds = retry_seconds
        self._started_at = asyncio.get_running_loop().time()
        self._retry_count = 0

    def pause(self, error: RunError) -> float | None:
        """Seconds until the next attempt; None if no retry is allowed. The first retry is allowed however long the
        first attempt took."""
        if error.retry_after is None or not self._retry_seconds:
            return None
        backoff = min(_FIRST_PAUSE * 2**self._retry_count, _LONGEST_PAUSE) * random.uniform(0.75, 1.25)
        pause = max(error.retry_after, backoff)
        spent = asyncio.get_running_loop().time() - self._started_at if self._retry_count else 0.0
        if spent + pause > self._retry_seconds:
            return None
        self._retry_count += 1
        log.info("provider_retry", code=error.code, tries=self._retry_count, wait=round(pause, 2))
        return pause


class _Deadlines:
    """Cancels the task that waits for the provider when a deadline passes. A call has one timer; each output, and each
    sign of life without one, only moves a number."""

    def __init__(self, limits: CallLimits) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._end = self._loop.time() + limits.total
        self._due: float | None = None
        self._limit: Limit = "first"
        self._silence: tuple[Limit, float] = ("first", limits.first_token)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._expired: Limit | None = None

    def start_waiting(self, limit: Limit, seconds: float) -> None:
        """The task begins to wait for the provider, at most this many seconds."""
        self._silence = limit, seconds
        due = self._loop.time() + seconds
        self._due, self._limit = (due, limit) if due < self._end else (self._end, "total")
        if self._timer is None or self._due < self._timer_at:
            self._set_timer(self._due)

    def hear_bytes(self) -> None:
        """The provider has sent bytes that hold no output: its silence begins again."""
        if self._due is not None and self._task is not None:
            self.start_waiting(*self._silence)

    def stop_waiting(self) -> None:
        """The provider has answered: no deadline is due."""
        self._due = None

    def expired_limit(self) -> Limit | None:
        """The deadline that has just cancelled the task; the task's cancel is undone. None if something else cancelled
        the task."""
        if self._expired is not None and self._task is not None and self._task.uncancel() == 0:
            return self._expired
        return None

    def close(self) -> None:
        """Stop the timer."""
        self._task = None
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_at(when, self._check), when

    def _check(self) -> None:
        self._timer = None
        if self._due is None or self._task is None:
            return
        if self._loop.time() < self._due:
            self._set_timer(self._due)
        else:
            self._expired = self._limit
            self._task.cancel()
