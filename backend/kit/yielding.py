"""Long work in short pieces, so that it doesn't hold up other tasks of the event loop."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from typing import TypeVar

import msgspec

_PIECE_SECONDS = 0.01
"""Seconds for which one piece of work may hold the loop."""

T = TypeVar("T")


async def in_pieces(items: Iterable[T]) -> AsyncGenerator[T]:
    """The items, one by one. Whenever the work on them has held the loop for 10 ms, other tasks run first."""
    began = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - began > _PIECE_SECONDS:
            await asyncio.sleep(0)
            began = time.perf_counter()


async def encode_items(items: Iterable[object]) -> list[msgspec.Raw]:
    """The JSON of each item. Other tasks run in between."""
    return [msgspec.Raw(msgspec.json.encode(item)) async for item in in_pieces(items)]
