"""Reads files in child processes, so that a hostile one can cost no more than its own rejection.

A child has a limit of memory, little priority, none of the server's environment (keys!) and one file at a
time; it lives on from file to file. Whatever happens to it, the next file gets a new one. There are a few, so
that a file that takes until its timeout holds up no other.
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
    """Turns files into text, `workers` of them at a time; further calls wait, and come in their order.

    `timeout` seconds and `memory` bytes of address space (POSIX only) a file; a child is replaced after
    `recycle` files, and let go after `idle` seconds without one.
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
        # The last one back goes first: the others may retire.
        self._free = list(self._children)
        self._turns = asyncio.Semaphore(workers)

    async def parse(self, path: Path, name: str) -> ParsedDocument:
        """The file as text. `name` is what its owner calls it: it decides only what the content leaves open.

        Raises DocumentUnreadable with any of its codes, OSError when the file cannot be opened here.
        """
        path.stat()
        async with self._turns:
            child = self._free.pop()
            try:
                reply = await child.ask(ParseRequest(str(path.resolve()), name, self._memory))
            finally:
                self._free.append(child)
        if reply.document is None:
            if reply.detail:
                _log.warning("a file could not be read: %s", reply.detail)
            raise DocumentUnreadable(reply.code, reply.message)
        return reply.document

    async def aclose(self) -> None:
        """End the children. A `parse` that is under way, and any later one, raises RuntimeError: the file is not
        to blame.
        """
        await asyncio.gather(*(child.aclose() for child in self._children))


class _Child:
    """A process, when there is one, and its replacements. It takes one request at a time."""

    def __init__(self, timeout: float, recycle: int, idle: float) -> None:
        self._timeout = timeout
        self._recycle = recycle
        self._idle = idle
        self.process: asyncio.subprocess.Process | None = None
        self._files = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False

    async def ask(self, request: ParseRequest) -> ParseReply:
        """What the process makes of the file. Raises DocumentUnreadable when it dies of it, or takes too long."""
        self._stop_alarm()
        try:
            reply = await self._answer(msgspec.msgpack.encode(request))
        except BaseException:
            # Also when the caller was cancelled: an answer may be on its way that nobody waits for.
            await self._end()
            raise
        self._files += 1
        if reply.spent or self._files >= self._recycle:
            await self._end()
        else:
            self._alarm = asyncio.get_running_loop().call_later(self._idle, self._retire)
        return reply

    async def aclose(self) -> None:
        """End the process, now and for ever."""
        self._closed = True
        self._stop_alarm()
        await self._end()

    async def _answer(self, request: bytes) -> ParseReply:
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
            raise _death(await process.wait()) from None

    async def start(self) -> asyncio.subprocess.Process:
        """A new process, in a group of its own: programs that it calls end with it."""
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
        """Let an idle process go: it ends when its input does."""
        process, self.process = self.process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


async def _exchange(child: asyncio.subprocess.Process, request: bytes) -> ParseReply:
    """One message each way, each behind its length."""
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(LENGTH.pack(len(request)) + request)
    await child.stdin.drain()
    (length,) = LENGTH.unpack(await child.stdout.readexactly(LENGTH.size))
    return msgspec.msgpack.decode(await child.stdout.readexactly(length), type=ParseReply)


def _death(returncode: int) -> DocumentUnreadable:
    """What to say when the child died over a file. By SIGKILL it was the system, short of memory."""
    if returncode == -9:
        return DocumentUnreadable(
            "document_too_large",
            "Reading this file takes more memory than the server has. Split it into parts.",
        )
    return DocumentUnreadable(
        "document_corrupt",
        "This file made the reader fail: it is damaged, or far too complex. Export it anew and try again.",
    )
