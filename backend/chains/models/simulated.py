"""A fixed text, word by word, at STREAM_DELAY: for demos and for work on a front end."""

import asyncio
from collections.abc import AsyncGenerator

from backend.chains.models.prompt import WRITING, Finish, Output, Prompt, Text, Tokens
from backend.chains.models.provider import FREE, Endpoint, Kind, Listing, Plugin
from backend.config.groups.models import ModelSettings
from backend.errors import ModelNotFound

MODEL = "words"
ANSWER = (
    "This is a simulated answer. No model wrote it: StreamForge sends a fixed text, one word at a time, so that you "
    "can build and test a front end without a key. Each word is one step of the stream. Set STREAM_DELAY to change "
    "the pace, or choose another model to get a real answer."
)


class _Simulated:
    writes = False

    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        words = ANSWER.split(" ")
        for number, word in enumerate(words[: prompt.parameters.max_tokens]):
            if number:
                await asyncio.sleep(self._delay)
            yield Text(word if number == 0 else f" {word}")
        yield Tokens(input=len(prompt.content.split()), output=min(len(words), prompt.parameters.max_tokens))
        yield Finish("stop" if len(words) <= prompt.parameters.max_tokens else "length")


class _Provider:
    def __init__(self, endpoint: Endpoint, settings: ModelSettings) -> None:
        del endpoint
        self._delay = settings.stream_delay

    async def listing(self) -> Listing:
        return Listing(True, "built in", (MODEL,), MODEL)

    def open(self, model: str) -> _Simulated:
        if model != MODEL:
            raise ModelNotFound(f"simulated has one model: simulated/{MODEL}.")
        return _Simulated(self._delay)

    async def aclose(self) -> None:
        pass


PLUGIN = Plugin(
    name="simulated",
    kinds=(
        Kind(
            name="simulated",
            summary="a fixed text, for demos and front-end work",
            key=False,
            refuses=WRITING,
            price=FREE,
        ),
    ),
    create=_Provider,
)
