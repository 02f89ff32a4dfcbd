"""The process that runs a model on this machine: started when it is first needed, watched, bounded, and ended."""

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from backend.errors import ProviderFailed, RateLimited

_CHILD = Path(__file__).with_name("_local_child.py")
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_START_SECONDS = 120.0
"""How long a model may take to load."""
_IDLE_SECONDS = 900.0
"""How long a model stays in memory without a request."""
_END_SECONDS = 0.5
_MOST_WAITING = 32
"""How many answers wait for their turn."""
_LONGEST_PAUSE = 60.0
"""Seconds between two starts of a model that fails again and again."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model file, and how it is run. `context` is in tokens and for each of `slots` answers at the same time,
    `memory` is in bytes of address space."""

    name: str
    path: Path
    context: int
    slots: int
    threads: int
    memory: int


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """Where the process serves OpenAI's API, and the key that it wants."""

    base_url: str
    key: str


class LocalServer:
    """One process at a time, and those that replace it."""

    def __init__(self, model: LocalModel) -> None:
        self._model = model
        self._turns = asyncio.Semaphore(model.slots)
        self._waiting = 0
        self._busy = 0
        self.process: asyncio.subprocess.Process | None = None
        self._address: LocalAddress | None = None
        self._loading: asyncio.Task[LocalAddress] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._failures = 0
        self._failed_at = 0.0
        self._is_closed = False

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[LocalAddress]:
        """The address, for one answer, when it is the answer's turn. Raises RunError."""
        if self._waiting >= _MOST_WAITING:
            raise RateLimited("Too many answers wait for the model on this machine. Try later.", retry_after=None)
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        self._busy += 1
        self._stop_alarm()
        try:
            address = await self._started()
            yield address
            self._failures = 0
        finally:
            self._busy -= 1
            self._turns.release()
            if self.process is not None and not self._busy and not self._is_closed:
                self._alarm = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._retire)

    @property
    def is_running(self) -> bool:
        """Whether the process that was started last has not ended."""
        return self.process is not None and self.process.returncode is None

    async def has_ended(self) -> bool:
        """Whether the process has ended. A broken connection is seen a moment before the end of its process."""
        if self._watch is not None:
            await asyncio.wait({self._watch}, timeout=_END_SECONDS)
        return not self.is_running

    async def aclose(self) -> None:
        """End the process. It is not replaced."""
        self._is_closed = True
        self._stop_alarm()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        await self._end()

    async def _started(self) -> LocalAddress:
        """The address of the process, which is started if it doesn't run. Raises ProviderFailed."""
        if self._address is not None and self.is_running:
            return self._address
        if self._loading is None or self._loading.done():
            if self._is_closed:
                raise ProviderFailed("The server is shutting down.")
            # The first time it is started again at once.
            pause = min(2.0 ** (self._failures - 2), _LONGEST_PAUSE) if self._failures > 1 else 0.0
            if (rest := self._failed_at + pause - time.monotonic()) > 0:
                raise ProviderFailed(
                    "The model on this machine has stopped unexpectedly. It is started again in a moment.",
                    retry_after=rest,
                )
            self._loading = asyncio.create_task(self._load(), name="local-model-start")
            self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        # A caller that stops waiting doesn't stop it for the other callers.
        return await asyncio.shield(self._loading)

    async def _load(self) -> LocalAddress:
        try:
            self._address = await self._start()
        except BaseException:
            self._record_failure()
            await self._end()
            raise
        return self._address

    async def _start(self) -> LocalAddress:
        """A new process that has loaded the model. Raises ProviderFailed."""
        model, key = self._model, secrets.token_urlsafe(24)
        began = time.monotonic()
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-X", "utf8", str(_CHILD)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            # Ctrl-C is for the server.
            start_new_session=True,
        )
        self.process = process
        self._watch = asyncio.create_task(self._watch_over(process), name="local-model")
        assert process.stdin is not None and process.stdout is not None
        order = {
            "path": str(model.path),
            "name": model.name,
            "context": model.context,
            "slots": model.slots,
            "threads": model.threads,
            "memory": model.memory,
            "key": key,
        }
        try:
            async with asyncio.timeout(_START_SECONDS):
                process.stdin.write(json.dumps(order).encode() + b"\n")
                await process.stdin.drain()
                reply: dict[str, str] = json.loads(await process.stdout.readline() or b"{}")
        except TimeoutError:
            raise ProviderFailed(f"{model.path.name} could not be loaded within {_START_SECONDS:g} s.") from None
        except (OSError, ValueError):
            reply = {}
        if "url" not in reply:
            log.error("local_model_not_loaded", path=str(model.path), why=reply.get("error", "the process ended"))
            raise ProviderFailed(
                f"{model.path.name} can't be loaded: it is damaged, of a kind that llama.cpp doesn't know, or needs "
                "more memory than it may have.",
                advice="LOCAL_MEMORY_MB sets the limit.",
            )
        log.info("local_model_started", model=model.name, seconds=round(time.monotonic() - began, 1), pid=process.pid)
        return LocalAddress(f"{reply['url']}/v1", key)

    async def _watch_over(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if self.process is process:
            self.process = self._address = None
            self._record_failure()
            log.error("local_model_stopped", model=self._model.name, exit_code=code)

    def _record_failure(self) -> None:
        self._failures += 1
        self._failed_at = time.monotonic()

    def _retire(self) -> None:
        """End an idle process: it ends when its input ends."""
        process, self.process, self._address = self.process, None, None
        if process is not None and process.stdin is not None:
            process.stdin.close()

    async def _end(self) -> None:
        process, self.process, self._address = self.process, None, None
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                if sys.platform == "win32":
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if self._watch is not None:
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
