"""Ends an answer before a text, also if the provider or the model knows no `stop`."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from backend.chains.models.prompt import Finish, Output, Text


async def ended_before(outputs: AsyncGenerator[Output], stops: Sequence[str]) -> AsyncGenerator[Output]:
    """The outputs until the first of these texts would begin. A part that may be the beginning of one is held back."""
    held = ""
    async with aclosing(outputs):
        async for output in outputs:
            if not isinstance(output, Text):
                if held and isinstance(output, Finish):
                    yield Text(held)
                    held = ""
                yield output
                continue
            held += output.text
            found = [at for stop in stops if (at := held.find(stop)) >= 0]
            if found:
                if text := held[: min(found)]:
                    yield Text(text)
                yield Finish("stop")
                return
            keep = max(_beginning(held, stop) for stop in stops)
            if text := held[: len(held) - keep]:
                yield Text(text)
            held = held[len(held) - keep :]


def _beginning(text: str, stop: str) -> int:
    """How many characters at the end of the text may be the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
