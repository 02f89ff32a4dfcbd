"""What models write beside the answers: titles and summaries, mostly while nobody waits for them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from backend import events as ev
from backend.chains.calling.call import CallLimits, call, prompt_was_billed
from backend.chains.calling.fallback import ModelCandidate
from backend.chains.history.follow_up import estimate_tokens
from backend.chains.models.provider import Parameters, Prompt, Text, Tokens
from backend.errors import RunError, StreamForgeError

log = structlog.get_logger(__name__)

_AT_ONCE = 4
_AT_MOST = 100
"""Under way or waiting; what comes on top is left undone."""
_TOKENS_AROUND = 100
"""What a provider may add to a prompt."""

Booking = Callable[[str, str, str, Tokens], AbstractAsyncContextManager[list[ev.Usage]]]
"""Opens a call of an owner's, in a session, of a model, with the tokens that it may take at most; what is added to the
list is booked at the end."""


@dataclass(frozen=True, slots=True)
class ShortText:
    """A short text to be written, for whom and what for. `max_tokens` are those of the text."""

    owner: str
    session_id: str
    purpose: Literal["title", "summary"]
    system: str
    content: str
    max_tokens: int


class BackgroundWriter:
    """Calls of models that are no answers, each booked by itself."""

    def __init__(self, limits: CallLimits, booking: Booking) -> None:
        self._limits = replace(limits, retry=0.0)
        self._booking = booking
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def write(self, errand: ShortText, by: ModelCandidate) -> str:
        """The text, by that model with parameters of our own. Raises RunError, and what the booking raises."""
        system, content = errand.system, errand.content
        prompt = Prompt(system, (), content, content, Parameters(max_tokens=errand.max_tokens))
        most = Tokens(len((system + content).encode()) + _TOKENS_AROUND, errand.max_tokens)
        pieces: list[str] = []
        tokens: Tokens | None = None
        async with self._booking(errand.owner, errand.session_id, by.name, most) as used:
            read, whole = True, False
            try:
                async with aclosing(call(by.model, prompt, self._limits)) as outputs:
                    async for output in outputs:
                        match output:
                            case Text(text):
                                pieces.append(text)
                            case Tokens():
                                tokens = output
                            case _:
                                pass
                whole = True
            except (asyncio.CancelledError, RunError) as error:
                read = prompt_was_billed(error)
                raise
            finally:
                # What broke off was paid for, too.
                if pieces or tokens is not None or read:
                    used.append(_usage(errand, by, tokens, "".join(pieces), whole=whole))
        return ev.clean_text("".join(pieces)).strip()

    def later(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None] | None:
        """Do it in the background, a few at a time; None when too much waits already. What fails is left undone."""
        if len(self._tasks) >= _AT_MOST:
            return None
        task = asyncio.create_task(self._quietly(work), name="aside")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _quietly(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            async with self._places:
                await work()
        except StreamForgeError as error:
            log.info("aside_failed", code=error.code)
        except Exception:
            log.exception("aside_crashed")


def _usage(errand: ShortText, by: ModelCandidate, tokens: Tokens | None, text: str, *, whole: bool) -> ev.Usage:
    wrote = by.wrote(estimate_tokens(text), errand.max_tokens, whole=whole)
    counted = tokens or Tokens(estimate_tokens(errand.system + errand.content), wrote)
    return ev.Usage(
        model=by.name,
        purpose=errand.purpose,
        input_tokens=counted.input,
        output_tokens=counted.output,
        reasoning_tokens=counted.reasoning,
        cached_tokens=counted.cached,
        estimated=tokens is None,
    )
