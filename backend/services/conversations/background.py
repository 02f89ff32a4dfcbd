"""Short texts that models write for a session: titles and summaries, mostly in the background."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from backend import events as ev
from backend.chains.calling.call import CallLimits, call, prompt_was_billed
from backend.chains.calling.fallback import ModelCandidate
from backend.chains.calling.token_counts import settled_tokens
from backend.chains.models.prompt import Parameters, Prompt, Tokens
from backend.chains.models.written_text import WrittenText
from backend.chains.text.tokens import estimate_tokens
from backend.errors import RunError, StreamForgeError

log = structlog.get_logger(__name__)

_MAX_ACTIVE = 4
_MAX_TASKS = 100
"""The most tasks that are active or waiting. More are not scheduled."""
_EXTRA_TOKENS = 100
"""The most tokens that a provider adds to a prompt."""

MeterCall = Callable[[str, str, str, Tokens], AbstractAsyncContextManager[list[ev.Usage]]]
"""Reserves the highest cost of a call until the end of a block, then books the usage in the list. The arguments are the
owner, the session's id, the model and the highest number of tokens."""


@dataclass(frozen=True, slots=True)
class ShortText:
    """A request to write a short text of at most `max_tokens`. The prompt is `system` and `content`."""

    owner: str
    session_id: str
    purpose: Literal["title", "summary"]
    system: str
    content: str
    max_tokens: int


class BackgroundWriter:
    """Calls models for texts that aren't answers. Each call is booked separately."""

    def __init__(self, limits: CallLimits, meter_call: MeterCall) -> None:
        self._limits = replace(limits, retry=0.0)
        self._meter_call = meter_call
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_MAX_ACTIVE)

    async def write(self, request: ShortText, model: ModelCandidate) -> str:
        """The text that the model writes with default parameters, without thoughts.

        Raises RunError, BudgetExceeded, PriceUnknown.
        """
        system, content = request.system, request.content
        prompt = Prompt(system, (), content, content, Parameters(max_tokens=request.max_tokens))
        bound = Tokens(len((system + content).encode()) + _EXTRA_TOKENS, request.max_tokens)
        written = WrittenText()
        async with self._meter_call(request.owner, request.session_id, model.name, bound) as used:
            was_billed, is_complete = True, False
            try:
                await written.read(call(model.model, prompt, self._limits))
                is_complete = True
            except (asyncio.CancelledError, RunError) as error:
                was_billed = prompt_was_billed(error)
                raise
            finally:
                # The provider also charges for a text that broke off.
                if written.estimated_tokens or written.tokens is not None or was_billed:
                    used.append(_usage(request, model, written, is_complete=is_complete))
        return written.text

    def schedule(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None] | None:
        """The task that does the work in the background; None if too many tasks are waiting already.

        A few tasks are active at the same time. A failure is only logged.
        """
        if len(self._tasks) >= _MAX_TASKS:
            return None
        task = asyncio.create_task(self._log_failures(work), name="background-writer")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End the work that is active or waiting."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _log_failures(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            async with self._slots:
                await work()
        except StreamForgeError as error:
            log.warning("background_failed", code=error.code)
        except Exception:
            log.exception("background_crashed")


def _usage(request: ShortText, model: ModelCandidate, written: WrittenText, *, is_complete: bool) -> ev.Usage:
    """The tokens that the provider counted, or an estimate."""
    counted, is_estimated = settled_tokens(
        written.tokens,
        written.estimated_tokens,
        lambda: estimate_tokens(request.system + request.content),
        lambda: model.output_tokens(written.estimated_tokens, request.max_tokens, is_complete=is_complete),
    )
    return ev.Usage(
        model=model.name,
        purpose=request.purpose,
        input_tokens=counted.input,
        output_tokens=counted.output,
        reasoning_tokens=counted.reasoning,
        cached_tokens=counted.cached,
        estimated=is_estimated,
        prompt_cut=counted.prompt_cut,
    )
