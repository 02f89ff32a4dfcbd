"""Reads files in child processes, so that a hostile file can do no harm except that it is refused.

A child has a memory limit, a low priority, none of the server's environment (which has keys), and reads one file at a
time. It is used for several files; if anything goes wrong, the next file gets a new one. There are several children, so
that a file that runs into its timeout doesn't block the others.
"""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from backend.chains.reading.parsed import ParsedDocument
from backend.chains.reading.parser_child import LENGTH, ParseReply, ParseRequest
from backend.errors import DocumentUnreadable

_log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[3]
_ENVIRONMENT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "TESSDATA_PREFIX",
    "VIRTUAL_ENV",
)


class Parser:
    """Reads files as text, `workers` of them at a time; further calls wait in their order.

    A file has `timeout` seconds and `memory` bytes of address space (POSIX only). A child is replaced after `recycle`
    files, and ended after `idle` seconds without a file.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        timeout: float = 120.0,
        memory: int = 2 * 1024**3,
        recycle: int = 200,
        idle: float = 60.0,
    ) -> None:
        self._memory = memory
        self._children = [_Child(timeout, recycle, idle) for _ in range(workers)]
        # The child that was used last is used first: the others may end.
        self._free = list(self._children)
        self._turns = asyncio.Semaphore(workers)

    async def parse(self, path: Path, name: str) -> ParsedDocument:
        """The file as text. The owner's file name `name` is used only if the content is ambiguous.

        Raises DocumentUnreadable with any of its codes, OSError if the file can't be opened.
        """
        path.stat()
        async with self._turns:
            child = self._free.pop()
            try:
                reply = await child.send(ParseRequest(str(path.resolve()), name, self._memory))
            finally:
                self._free.append(child)
        if reply.document is None:
            if reply.detail:
                _log.warning("a file could not be read: %s", reply.detail)
            raise DocumentUnreadable(reply.code, reply.message)
        return reply.document

    async def aclose(self) -> None:
        """End the children. A `parse` that runs now or later raises RuntimeError, because the file is not the cause."""
        await asyncio.gather(*(child.aclose() for child in self._children))


class _Child:
    """One process at a time, and its replacements. It takes one request at a time."""

    def __init__(self, timeout: float, recycle: int, idle: float) -> None:
        self._timeout = timeout
        self._recycle = recycle
        self._idle = idle
        self.process: asyncio.subprocess.Process | None = None
        self._files = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(self, request: ParseRequest) -> ParseReply:
        """The reply to a request. Raises DocumentUnreadable if the process dies or takes too long."""
        self._stop_alarm()
        try:
            reply = await self._wait_for_reply(msgspec.msgpack.encode(request))
        except BaseException:
            # Also if the caller was cancelled: the reply that is still coming must not be read as the next one.
            await self._end()
            raise
        self._files += 1
        if reply.ends_child or self._files >= self._recycle:
            await self._end()
        else:
            self._alarm = asyncio.get_running_loop().call_later(self._idle, self._retire)
        return reply

    async def aclose(self) -> None:
        """End the process. It is not replaced."""
        self._closed = True
        self._stop_alarm()
        await self._end()

    async def _wait_for_reply(self, request: bytes) -> ParseReply:
        if self._closed:
            raise RuntimeError("the parser is closed")
        process = self.process or await self.start()
        try:
            async with asyncio.timeout(self._timeout):
                return await _exchange(process, request)
        except TimeoutError:
            raise DocumentUnreadable(
                "document_timeout",
                f"Reading this file took longer than {self._timeout:g} seconds. Split it into parts.",
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
            await self._end()
            if self._closed:
                raise RuntimeError("the parser is closed") from None
            raise _exit_error(await process.wait()) from None

    async def start(self) -> asyncio.subprocess.Process:
        """A new process, in a process group of its own, so that programs that it calls end with it."""
        environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
        self._files = 0
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-X", "utf8", "-m", "backend.chains.reading.parser_child"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=_ROOT,
            env=environment | {"PYTHONPATH": str(_ROOT)},
            start_new_session=True,
        )
        return self.process

    async def _end(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                if sys.platform == "win32":
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _retire(self) -> None:
        """End an idle process: it ends when its input ends."""
        process, self.process = self.process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


async def _exchange(child: asyncio.subprocess.Process, request: bytes) -> ParseReply:
    """Send one message and receive one. Each begins with its length."""
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(LENGTH.pack(len(request)) + request)
    await child.stdin.drain()
    (length,) = LENGTH.unpack(await child.stdout.readexactly(LENGTH.size))
    return msgspec.msgpack.decode(await child.stdout.readexactly(length), type=ParseReply)


def _exit_error(returncode: int) -> DocumentUnreadable:
    """The error of a file over which the child died. SIGKILL comes from the system if it has no more memory."""
    if returncode == -9:
        return DocumentUnreadable(
            "document_too_large",
            "Reading this file takes more memory than the server has. Split it into parts.",
        )
    return DocumentUnreadable(
        "document_corrupt",
        "This file made the reader fail: it is damaged, or far too complex. Export it anew and try again.",
    )
