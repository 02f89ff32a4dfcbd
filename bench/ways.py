"""The ways to read a provider's stream, from bytes to LangChain. `python -m bench.ways WAY URL` measures one.

Each runs in a separate process, so that it doesn't pay for the imports of the others. Prints its figures as JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any

Read = Callable[[str], AsyncIterator[str]]
"""A function that gets a model's name, and returns the text of its answer in pieces."""

RATE = 200  # tokens/s of the paced stream: few enough to come one by one, whatever the way costs
TRACED = {"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": "none"}
MESSAGES = [("human", "hi")]


def posted(url: str) -> Callable[[str], Any]:
    import aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    def post(model: str) -> Any:
        payload = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        return session.post(f"{url}/chat/completions", json=payload)

    return post


def bytes_read(url: str) -> Read:
    post = posted(url)

    async def read(model: str) -> AsyncIterator[str]:
        async with post(model) as response:
            while data := await response.content.readany():
                yield data.decode()

    return read


def parsed(url: str) -> Read:
    from backend.chains.models._openai_reader import StreamReader
    from backend.chains.models.prompt import Text

    post = posted(url)

    async def read(model: str) -> AsyncIterator[str]:
        reader = StreamReader()
        async with post(model) as response:
            while data := await response.content.readany():
                for output in reader.feed(data):
                    if isinstance(output, Text):
                        yield output.text

    return read


def wire_model(url: str) -> Callable[[str], Any]:
    from backend.chains.models._openai_stream import ServerConnection, StreamingChatOpenAI
    from backend.kit.network.aiohttp_session import StreamSession
    from backend.kit.network.network import DIRECT

    server = ServerConnection(url, {"Authorization": "Bearer none"})
    session = StreamSession(DIRECT, 10)
    options = {"stream_usage": True, "stream_chunk_timeout": None, "use_responses_api": False}
    return cache(lambda model: StreamingChatOpenAI.over(lambda: session, server, model=model, **options))


def outputs(url: str) -> Read:
    from backend.chains.models.prompt import Text

    model_of = wire_model(url)

    async def read(model: str) -> AsyncIterator[str]:
        async for output in model_of(model).outputs(MESSAGES):
            if isinstance(output, Text):
                yield output.text

    return read


def astream(url: str) -> Read:
    return langchain_way(wire_model(url))


def stock(url: str) -> Read:
    from langchain_openai import ChatOpenAI

    # Without the library's own timeout for each chunk, as in StreamForge: it would cost one task per token.
    options: dict[str, Any] = {"stream_usage": True, "stream_chunk_timeout": None, "api_key": "none"}
    return langchain_way(cache(lambda model: ChatOpenAI(model=model, base_url=url, **options)))


def langchain_way(model_of: Callable[[str], Any]) -> Read:
    async def read(model: str) -> AsyncIterator[str]:
        async for chunk in model_of(model).astream(MESSAGES):
            yield chunk.text

    return read


WAYS: dict[str, tuple[str, Callable[[str], Read], dict[str, str]]] = {
    "read": ("aiohttp reads the bytes", bytes_read, {}),
    "parsed": ("... and `StreamReader` parses them", parsed, {}),
    "outputs": ("`StreamingChatOpenAI.outputs`", outputs, {}),
    "astream": ("`StreamingChatOpenAI.astream`, with LangChain's callbacks", astream, {}),
    "traced": ("... and traced to LangSmith", astream, TRACED),
    "stock": ("`ChatOpenAI.astream`", stock, {}),
    "stock-traced": ("... and traced to LangSmith", stock, TRACED),
}
"""The ways by name: a description, the function that makes it, and its environment variables."""


async def cpu_of(read: Read, model: str, tokens: int, calls: int = 1) -> float:
    """CPU seconds of the process and all its threads, after its traces were sent."""
    before = time.process_time()
    for _ in range(calls):
        came = 0
        async for text in read(model):
            came += text.count(">")
        if came != tokens:
            raise RuntimeError(f"{came} of {tokens} tokens came")
    if "LANGSMITH_TRACING" in os.environ:
        from langchain_core.tracers.langchain import wait_for_all_tracers

        await asyncio.to_thread(wait_for_all_tracers)
    return time.process_time() - before


async def least_of(read: Read, model: str, tokens: int, calls: int = 1) -> float:
    """CPU seconds per token. The lowest of three rounds, because other programs on the machine only add to it."""
    return min([await cpu_of(read, model, tokens, calls) for _ in range(3)]) / (tokens * calls)


async def main(way: str, url: str, flat: int, paced: int, calls: int) -> None:
    read = WAYS[way][1](url)
    await cpu_of(read, "bench-flat-1", 1, calls=10)
    await cpu_of(read, "bench-flat-500", 500)
    figures = {
        "flat_us": await least_of(read, f"bench-flat-{flat}", flat) * 1e6,
        "paced_us": await least_of(read, f"bench-rate{RATE}-{paced}", paced) * 1e6,
        "call_ms": await least_of(read, "bench-flat-1", 1, calls) * 1e3,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
