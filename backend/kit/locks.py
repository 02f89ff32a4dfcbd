"""Locks by key: changes of one thing come one after the other."""

import asyncio
from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from weakref import WeakValueDictionary


class Locks(Protocol):
    """One lock for each key. All processes that work on the same data must share them."""

    def get(self, key: Hashable) -> AbstractAsyncContextManager[object]:
        """The lock of a key, to be used at once: `async with locks.get(key)`."""
        ...


class KeyedLocks:
    """The locks of this process. A lock exists as long as a task holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    def get(self, key: Hashable) -> asyncio.Lock:
        """The lock of a key, to be used at once: `async with locks.get(key)`."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    def __len__(self) -> int:
        """How many locks exist."""
        return len(self._locks)
