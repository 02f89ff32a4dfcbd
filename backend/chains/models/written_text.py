"""A text that a model writes for the server: it is read as a whole, and nobody watches its stream."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from backend.chains.models.prompt import Output, Reasoning, Text, ThoughtEnd, Tokens
from backend.chains.text.thought_tags import without_thoughts
from backend.chains.text.tokens import estimate_bytes
from backend.errors import AnswerTooLong
from backend.kit.text import clean_text

_MAX_BYTES = 1_000_000
"""The longest text that a model may send, thoughts included, whatever limit it was given."""


class WrittenText:
    """What a call has written so far. It can be used also if the call broke off."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self.tokens: Tokens | None = None
        """The tokens that the provider counted."""

    async def read(self, outputs: AsyncGenerator[Output]) -> None:
        """Read all outputs. Raises RunError, also if they are too long."""
        async with aclosing(outputs):
            async for output in outputs:
                match output:
                    case Text(text):
                        self._pieces.append(text)
                        self._count(text)
                    case Reasoning(text):
                        self._count(text)
                    case ThoughtEnd():
                        self._pieces.clear()
                    case Tokens():
                        self.tokens = output
                    case _:
                        pass

    def _count(self, text: str) -> None:
        self._length += len(text.encode("utf-8", "replace"))
        if self._length > _MAX_BYTES:
            raise AnswerTooLong.at(_MAX_BYTES)

    @property
    def text(self) -> str:
        """The text without thoughts and surrounding blanks."""
        return without_thoughts(clean_text("".join(self._pieces)))

    @property
    def estimated_tokens(self) -> int:
        """An estimate of the tokens that were written, thoughts included."""
        return estimate_bytes(self._length)
