"""Long work in short pieces: the event loop is everybody's."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from typing import TypeVar

import msgspec

_LONGEST = 0.01
"""Seconds for which one piece of work holds the loop."""

T = TypeVar("T")


async def in_pieces(items: Iterable[T]) -> AsyncGenerator[T]:
    """The items; whenever the work on them has held the loop for 10 ms, others have their turn."""
    began = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - began > _LONGEST:
            await asyncio.sleep(0)
            began = time.perf_counter()


async def encoded(items: Iterable[object]) -> list[msgspec.Raw]:
    """The items as JSON, each by itself."""
    return [msgspec.Raw(msgspec.json.encode(item)) async for item in in_pieces(items)]
