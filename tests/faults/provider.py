"""The scripted model provider, with a script for each message: runs that are asked at once don't mix theirs up."""

import random
from collections import defaultdict
from typing import Any

from tests.support.provider_protocol import Script, Send, Sleep, Step, chunk, done, usage_chunk
from tests.support.provider_server import Call, ProviderServer

_WORDS = "token stream gap snapshot Grüße 🌍 naïve 日本 log cursor end seq".split()


class Provider(ProviderServer):
    """`scripts[message]`: the scripts of the calls that carry this message, the last one for all further calls."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: dict[str, list[Script]] = {}
        self.asked: dict[str, list[Call]] = defaultdict(list)
        self.default = self._script

    def _script(self, call: Call) -> Script:
        message: Any = call.json["messages"][-1]["content"]
        calls = self.asked[message]
        calls.append(call)
        scripts = self.scripts[message]
        return scripts[min(len(calls), len(scripts)) - 1]

    def forget(self) -> None:
        """Before the next schedule."""
        self.scripts.clear()
        self.asked.clear()
        self.calls.clear()
        self.requests.clear()


def pieces(rng: random.Random, count: int) -> list[str]:
    """So many different pieces of text, some of more than one byte a character."""
    return [f"{rng.choice(_WORDS)}{i} " for i in range(count)]


def answer(texts: list[str], pause: float = 0.0, *, before: list[Step] | None = None) -> list[Step]:
    """An answer of OpenAI's protocol, a chunk a piece, with a pause between them in seconds."""
    steps: list[Step] = [chunk({"role": "assistant", "content": ""}), *(before or ())]
    for text in texts:
        steps.append(chunk({"content": text}))
        if pause:
            steps.append(Sleep(pause))
    return [*steps, chunk({}, "stop"), usage_chunk(7, len(texts)), done()]


def thinking(texts: list[str]) -> list[Send]:
    """Text and reasoning in turns, each a part of its own: three events a chunk, however many come in one read."""
    return [chunk({"content" if i % 2 else "reasoning_content": text}) for i, text in enumerate(texts)]
