"""The driver's side of the zygote and of the servers it forks."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.faults.failpoints import Action
from tests.faults.violation import Violation
from tests.support.harness import ROOT

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
"""docs/run-it.md: a server that is asked to stop has exited after so long."""


class Zygote:
    """The forking process. `async with Zygote() as zygote`, then `Server(zygote, ...)`."""

    def __init__(self) -> None:
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self.template = self._folder / "data"
        """A DATA_DIR that new servers begin with, once it is there."""

    async def __aenter__(self) -> "Zygote":
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote", str(theirs.fileno())],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"},
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()
        self._socket = ours
        reader, self._writer = await asyncio.open_connection(sock=ours.dup())
        async with asyncio.timeout(60):
            await reader.readline()
        self._reading = asyncio.create_task(self._read(reader), name="zygote")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        self._writer.close()
        self._socket.close()
        await asyncio.to_thread(self._process.wait)
        shutil.rmtree(self._folder)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = json.loads(line)
            self.exit_of(message["exited"]).set_result(message["status"])

    def exit_of(self, pid: int) -> "asyncio.Future[int]":
        """Resolves to the exit status of a forked server (negative: the signal)."""
        if pid not in self._exits:
            self._exits[pid] = asyncio.get_running_loop().create_future()
        return self._exits[pid]

    def forget(self, pid: int) -> None:
        """The pid may come again."""
        self._exits.pop(pid, None)

    async def fork(self, request: dict[str, Any]) -> socket.socket:
        """A new server; the driver's end of its control channel."""
        ours, theirs = socket.socketpair()
        try:
            await asyncio.to_thread(socket.send_fds, self._socket, [json.dumps(request).encode()], [theirs.fileno()])
        finally:
            theirs.close()
        return ours


class Server:
    """One DATA_DIR, and the server that lives there at the moment."""

    def __init__(self, zygote: Zygote, folder: Path, bug: str | None, **settings: Any) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.log = folder / "log"
        self.hits: list[str] = []
        self.port = 0
        self._zygote = zygote
        self._bug = bug
        self._settings = settings
        self._pid = 0
        self._exit: asyncio.Future[int] | None = None
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        folder.mkdir(parents=True)
        if zygote.template.exists():
            shutil.copytree(zygote.template, self.data_dir)

    @property
    def database(self) -> Path:
        return self.data_dir / "streamforge.db"

    @property
    def alive(self) -> bool:
        return self._exit is not None and not self._exit.done()

    async def start(self, *armed: dict[str, Any], **settings: Any) -> bool:
        """Fork it, `settings` for this time only. True once it serves; False when an armed failpoint killed it."""
        request = {
            "data_dir": str(self.data_dir),
            "log": str(self.log),
            "settings": {**self._settings, **settings},
            "bug": self._bug,
            "armed": armed,
        }
        reader, self._writer = await asyncio.open_connection(sock=await self._zygote.fork(request))
        self._answers = asyncio.Queue()
        self.hits.clear()
        async with asyncio.timeout(_START_SECONDS):
            self._pid = json.loads(await reader.readline())["pid"]
            self._exit = self._zygote.exit_of(self._pid)
            self._reading = asyncio.create_task(self._read(reader), name="control")
            answer = await self._answers.get()
        if "serving" in answer:
            self.port = answer["serving"]
            return True
        status = await self._gone()
        if status != -signal.SIGKILL or not self.hits:
            raise Violation("start", f"the server ended with {status} at its start; its log is {self.log}")
        return False

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                message = json.loads(line)
                if "hit" in message:
                    self.hits.append(message["hit"])
                else:
                    self._answers.put_nowait(message)
        self._answers.put_nowait({"gone": True})

    async def _ask(self, **question: Any) -> dict[str, Any]:
        assert self._writer is not None
        self._writer.write(json.dumps(question).encode() + b"\n")
        async with asyncio.timeout(_START_SECONDS):
            return await self._answers.get()

    async def arm(
        self, name: str, nth: int = 1, *, times: int = 1, action: Action = "kill", seconds: float = 0
    ) -> None:
        """The n-th pass of the point from now on, and those after it up to `times`, act."""
        await self._ask(do="arm", name=name, nth=nth, times=times, action=action, seconds=seconds)

    async def disarm(self) -> None:
        """Nothing more happens at any failpoint."""
        await self._ask(do="disarm")

    async def census(self) -> dict[str, Any]:
        """What the server holds; see `child.census`."""
        answer = await self._ask(do="census")
        if "census" not in answer:
            raise Violation("died", f"the server died by itself; its log is {self.log}")
        return answer["census"]

    async def dead(self, timeout: float = 5.0) -> bool:
        """Whether an armed failpoint killed it within so many seconds."""
        assert self._exit is not None
        await asyncio.wait([self._exit], timeout=timeout)
        if not self._exit.done():
            return False
        status = await self._gone()
        if status != -signal.SIGKILL:
            raise Violation("died", f"the server ended by itself with {status}; its log is {self.log}")
        return True

    async def kill(self) -> None:
        """kill -9."""
        if self.alive:
            os.kill(self._pid, signal.SIGKILL)
        await self._gone()

    def terminate(self) -> None:
        """SIGTERM; `stopped` waits for the end."""
        os.kill(self._pid, signal.SIGTERM)

    async def stopped(self) -> None:
        """It must exit in time and with 0."""
        assert self._exit is not None
        await asyncio.wait([self._exit], timeout=_STOP_SECONDS)
        if not self._exit.done():
            await self.kill()
            raise Violation("exit", f"still there {_STOP_SECONDS:g} s after SIGTERM; its log is {self.log}")
        if (status := await self._gone()) != 0:
            raise Violation("exit", f"exit status {status} after SIGTERM; its log is {self.log}")

    async def _gone(self) -> int:
        if self._exit is None:
            return 0
        status = await self._exit
        if self._reading is not None:
            await self._reading
        if self._writer is not None:
            self._writer.close()
        self._zygote.forget(self._pid)
        return status
