"""What must be loaded before the first answer: started after the port opens, retried until it is there."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from backend.errors import StreamForgeError, Unavailable

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 5.0
_WAIT_SECONDS = 120.0
_PORT_SECONDS = 0.02
"""In which the server opens its port. Loading holds the event loop while it imports packages."""


class Readiness:
    """Runs `load` in the background; requests that need it wait here."""

    def __init__(self, load: Callable[[], Awaitable[None]]) -> None:
        self._load = load
        self._done = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.problem: str | None = None

    @property
    def ready(self) -> bool:
        """Whether everything is loaded."""
        return self._done.is_set()

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
        if self._done.is_set():
            return
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                while not self._done.is_set():
                    if self.problem is not None:
                        raise Unavailable(f"The server could not get ready: {self.problem}", code="not_ready")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise Unavailable(
                "The server is still loading. GET /ready tells when it is done.", code="not_ready"
            ) from None

    async def _run(self) -> None:
        await asyncio.sleep(_PORT_SECONDS)
        while True:
            try:
                await self._load()
                self.problem = None
                self._done.set()
                return
            except StreamForgeError as error:
                self.problem = error.message
                log.error("not_ready", code=error.code, problem=error.message)
            except Exception as error:
                self.problem = f"{type(error).__name__}; the server's log has the details"
                log.exception("not_ready")
            await asyncio.sleep(_RETRY_SECONDS)
