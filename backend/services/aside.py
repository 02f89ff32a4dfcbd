"""What models write beside the answers: titles and summaries, mostly while nobody waits for them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal

import structlog

from backend import events as ev
from backend.chains.calls import CallLimits, call
from backend.chains.conversation import estimate_tokens
from backend.chains.models.base import ChatModel, Parameters, Prompt, Text, Tokens
from backend.errors import StreamForgeError

log = structlog.get_logger(__name__)

_AT_ONCE = 4
_AT_MOST = 100
"""Under way or waiting; what comes on top is left undone."""
Purpose = Literal["title", "summary"]


@dataclass(frozen=True, slots=True)
class Written:
    """A text, and what it cost."""

    text: str
    usage: ev.Usage


class Aside:
    """Calls of models that are no answers."""

    def __init__(self, limits: CallLimits) -> None:
        self._limits = replace(limits, retry=0.0)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def write(self, name: str, model: ChatModel, system: str, content: str, max_tokens: int) -> Written:
        """A short text by the model `name`. Raises RunError."""
        prompt = Prompt(
            system=system, history=(), content=content, question=content, parameters=Parameters(max_tokens=max_tokens)
        )
        pieces: list[str] = []
        used: Tokens | None = None
        async with aclosing(call(model, prompt, self._limits)) as outputs:
            async for output in outputs:
                match output:
                    case Text(text):
                        pieces.append(text)
                    case Tokens():
                        used = output
                    case _:
                        pass
        text = "".join(pieces)
        return Written(ev.clean_text(text).strip(), _usage(name, used, system + content, text))

    def count(self, owner: str, session_id: str, purpose: Purpose, usage: ev.Usage) -> None:
        """What a call cost that belongs to no run."""
        log.info(
            "aside_call",
            owner=owner,
            session_id=session_id,
            purpose=purpose,
            model=usage.model,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
        )

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


def _usage(name: str, used: Tokens | None, told: str, text: str) -> ev.Usage:
    if used is None:
        return ev.Usage(
            model=name, input_tokens=estimate_tokens(told), output_tokens=estimate_tokens(text), estimated=True
        )
    return ev.Usage(
        model=name,
        input_tokens=used.input,
        output_tokens=used.output,
        reasoning_tokens=used.reasoning,
        cached_tokens=used.cached,
    )
