"""The server's life: what must be loaded before the first answer, and what must end before the last one.

A capability registers its own part with both while it opens; neither class knows any capability.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from backend.errors import StorageFull, StreamForgeError, Unavailable

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 5.0
_WAIT_SECONDS = 120.0
_PORT_SECONDS = 0.02
"""Seconds in which the server opens its port. Loading holds the event loop while it imports packages."""

Load = Callable[[], Awaitable[object]]
"""Loads one part of what answers need. Raises StreamForgeError with a message for the operator."""
End = Callable[[float], Awaitable[None]]
"""Ends what a capability still does for clients, within the given seconds. The server may call it twice."""


class Readiness:
    """Loads what answers need in the background, after the port is open; requests that need it wait here."""

    def __init__(self) -> None:
        self._loads: list[Load] = []
        self._changed = asyncio.Event()
        self.is_ready = False
        """Whether everything is loaded."""
        self._task: asyncio.Task[None] | None = None
        self.problem: str | None = None
        self._advice = ""
        self._is_full = False

    @property
    def is_disk_full(self) -> bool:
        """Whether loading failed because the disk is full."""
        return self._is_full and not self.is_ready

    def add(self, load: Load) -> None:
        """Register a part. The parts are loaded one after the other, in the order in which they were added."""
        self._loads.append(load)

    def open(self) -> None:
        """Begin to load."""
        self._task = asyncio.create_task(self._run(), name="warm-up")

    async def close(self) -> None:
        """Stop loading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def wait(self) -> None:
        """Return when everything is loaded. Raises Unavailable (`not_ready`) when that fails or takes too long."""
        if self.is_ready:
            return
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            raise Unavailable(
                "The server is still loading. GET /ready tells when it is done.", code="not_ready"
            ) from None
        if self._is_full and self.problem is not None:
            raise StorageFull.on_server()
        if self.problem is not None:
            raise Unavailable(f"The server could not get ready: {self.problem}", code="not_ready", advice=self._advice)

    async def _run(self) -> None:
        await asyncio.sleep(_PORT_SECONDS)
        while not self.is_ready:
            try:
                # One after the other: packages with import cycles (numpy) break when two threads import them at once.
                for load in self._loads:
                    await load()
                self.problem = None
                self.is_ready = True
            except StreamForgeError as error:
                self.problem, self._advice = error.message, error.advice
                self._is_full = isinstance(error, StorageFull)
                log.error("not_ready", code=error.code, problem=error.text(with_advice=True))
            except Exception as error:
                self._is_full, self._advice = False, ""
                self.problem = f"{type(error).__name__}; the server's log has the details"
                log.exception("not_ready")
            # After a failure the event stays set: who asks meanwhile is told the problem at once.
            self._changed.set()
            if not self.is_ready:
                await asyncio.sleep(_RETRY_SECONDS)


class Draining:
    """Ends what clients still wait for when the server stops: live runs, watched documents, open connections."""

    def __init__(self) -> None:
        self._ends: list[End] = []

    def add(self, end: End) -> None:
        """Register what a capability does when the server stops."""
        self._ends.append(end)

    async def drain(self, grace: float) -> None:
        """Run everything that is registered, at the same time; each part has `grace` seconds. Returns when all ended.

        A part that fails is logged and doesn't keep the others from ending.
        """
        for result in await asyncio.gather(*(end(grace) for end in self._ends), return_exceptions=True):
            if isinstance(result, Exception):
                log.error("not_drained", exc_info=result)
