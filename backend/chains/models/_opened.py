"""Models that are opened once and then kept."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Opened = TypeVar("Opened")

_MAX_OPENED = 64


async def _forget(opened: object) -> None:
    del opened


class OpenedModels(Generic[Opened]):
    """The opened models of a provider, by name.

    A model is opened in a thread, because the first one imports an SDK, which takes seconds. Those who ask for the same
    model meanwhile wait for the same thread. `release` closes the connections of a model.
    """

    def __init__(
        self, open_model: Callable[[str], Opened], release: Callable[[Opened], Awaitable[None]] = _forget
    ) -> None:
        self._open_model = open_model
        self._release = release
        self._opened: dict[str, Opened] = {}
        self._opening: dict[str, asyncio.Task[Opened]] = {}

    async def get(self, name: str) -> Opened:
        """The opened model. Raises what opening it raises; then it is tried anew the next time."""
        if name in self._opened:
            return self._opened[name]
        if name not in self._opening:
            self._opening[name] = asyncio.create_task(self._open(name))
            # Otherwise asyncio complains if all callers have stopped waiting for one that fails.
            self._opening[name].add_done_callback(lambda task: task.cancelled() or task.exception())
        # A caller that stops waiting doesn't stop it for the other callers.
        return await asyncio.shield(self._opening[name])

    async def close(self) -> None:
        """Release all models."""
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        while self._opened:
            await self._release(self._opened.popitem()[1])

    async def _open(self, name: str) -> Opened:
        try:
            opened = await asyncio.to_thread(self._open_model, name)
        finally:
            del self._opening[name]
        if len(self._opened) >= _MAX_OPENED:
            await self._release(self._opened.pop(next(iter(self._opened))))
        self._opened[name] = opened
        return opened
