"""Locks by name: work on one thing waits for other work on the same thing."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from weakref import WeakValueDictionary


class Locks(Protocol):
    """Locks by name. Every process that works on the same data must share them."""

    def lock(self, *name: str) -> AbstractAsyncContextManager[object]:
        """The lock of that name, to be held with `async with`."""
        ...


class LocalLocks:
    """Locks of this process. A lock exists while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    def lock(self, *name: str) -> asyncio.Lock:
        """The lock of that name, to be held with `async with`."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    def __len__(self) -> int:
        """How many locks exist."""
        return len(self._locks)
