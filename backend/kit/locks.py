"""Locks by key, so that changes of the same thing happen one after the other."""

import asyncio
from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from weakref import WeakValueDictionary


class Locks(Protocol):
    """One lock per key. All processes that work on the same data must share the locks."""

    def get(self, key: Hashable) -> AbstractAsyncContextManager[object]:
        """The lock of a key. Use it directly, because it may not be stored: `async with locks.get(key)`."""
        ...


class KeyedLocks:
    """The locks of this process. A lock exists as long as a task holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    def get(self, key: Hashable) -> asyncio.Lock:
        """The lock of a key. Use it directly, because it may not be stored: `async with locks.get(key)`."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    def __len__(self) -> int:
        """The number of locks that exist."""
        return len(self._locks)
