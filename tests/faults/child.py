"""The server under test, in a forked process: `backend.main.serve`, with failpoints, a census and maybe a planted bug.

Left out are the vector index and the embedding model, which no run of the driver asks: they cost 0.4 s of a start.
Certificates, which nothing here looks at, would cost a first answer 0.1 s.
"""

import asyncio
import functools
import json
import os
import socket
import ssl
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from backend.chains.retrieval.embeddings.minilm import MiniLM
from backend.chains.retrieval.index import VectorIndex
from backend.main import serve
from backend.routers.edge.services import Services
from backend.server import Server
from tests.faults.bugs import BUGS
from tests.faults.failpoints import Armed, Failpoints
from tests.support.harness import settings

_SEND_BUFFER = 16_384
"""Of a client's socket, in bytes: a reader that freezes is noticed after so much, not after megabytes."""


def run(request: dict[str, Any], fd: int) -> int:
    """Serve until a signal; the exit code. `request`: data_dir, log, settings, bug, armed."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    control = _Control(fd)
    control.failpoints.install()
    if request.get("bug"):
        BUGS[request["bug"]].plant()
    for armed in request.get("armed", ()):
        control.failpoints.arm(Armed(**armed))
    _announce(control)
    return serve(settings(Path(request["data_dir"]), **request["settings"]))


def leave_out() -> None:
    """No vector index and no embedding model from now on, and certificates are read once for all servers."""
    ssl.create_default_context = functools.cache(ssl.create_default_context)

    async def nothing(self: Any) -> None: ...

    async def no_keys(self: Any) -> set[str]:
        return set()

    VectorIndex.open = MiniLM.prepare = nothing
    VectorIndex.keys = no_keys


def _announce(control: "_Control") -> None:
    """Tells the driver the port once the server is open, and lets it ask from then on."""
    startup = Server.startup

    async def announced(self: Server, sockets: list[Any] | None = None) -> None:
        await startup(self, sockets)
        if not self.started:
            return
        listening = self.servers[0].sockets[0]
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        control.open(self, listening.getsockname()[1])

    Server.startup = announced


class _Control:
    """The driver's channel: JSON lines both ways. It is read on the event loop, without a task of its own."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._lock = threading.Lock()
        self._rest = b""
        self._port = 0
        self._server: Server | None = None
        self.failpoints = Failpoints(lambda name: self.say({"hit": name}))
        self.say({"pid": os.getpid()})

    def say(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def open(self, server: Server, port: int) -> None:
        self._server, self._port = server, port
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)
        asyncio.get_running_loop().create_task(self._ready(port), name="announce")

    async def _ready(self, port: int) -> None:
        await self._services.core.readiness.wait()
        self.say({"serving": port})

    @property
    def _services(self) -> Services:
        assert self._server is not None
        return self._server._app.state.services

    def _read(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            os._exit(71)  # the driver is gone
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            asked: dict[str, Any] = json.loads(line)
            match asked.pop("do"):
                case "arm":
                    self.failpoints.arm(Armed(**asked))
                    self.say({"done": True})
                case "disarm":
                    self.failpoints.disarm()
                    self.say({"done": True})
                case "census":
                    self.say({"census": census(self._services, self._port)})


def census(services: Services, port: int) -> dict[str, Any]:
    """What the server holds at this moment. Counts that a run or a client may raise only as long as it lasts."""
    hub = services.runs.hub
    sockets, files = _descriptors(port)
    idle = _idle_upstream(services)
    database = services.conversations.sessions._sessions._db
    reader = database._reader
    assert reader is not None
    writes, reads = database._writer._queue, reader._threads._work_queue
    locks: Any = services.answers._locks
    return {
        "tasks": dict(Counter(_task_name(t) for t in asyncio.all_tasks())),
        "live runs": len(hub._runs),
        "places": hub._run_count,
        "busy sessions": len(hub._by_session),
        "unsaved runs": len(hub._keeper.unsaved),
        "session locks": len(locks),
        "database calls waiting": writes.qsize() + reads.qsize(),
        "readers in a transaction": sum(conn.in_transaction for conn in reader._connections),
        "client sockets": sockets["client"],
        "upstream sockets in use": sockets["upstream"] - idle,
        "other sockets": sockets["other"],
        "files": files,
    }


def _task_name(task: "asyncio.Task[Any]") -> str:
    name = task.get_name()
    if name.startswith("Task-"):
        coroutine: Any = task.get_coro()
        return getattr(coroutine, "__qualname__", "?")
    return name.split(" ")[0] if name.startswith("run ") else name


def _descriptors(port: int) -> tuple[Counter[str], dict[str, int]]:
    """Sockets by what they are for, and open files by name."""
    sockets: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue  # the listing's own
        if target.startswith("socket:"):
            sockets[_purpose(int(entry), port)] += 1
        elif target.startswith("/") and not target.startswith("/proc/"):
            files[Path(target).name] += 1
        else:
            files[target.partition(":")[0]] += 1
    return sockets, dict(files)


def _purpose(fd: int, port: int) -> str:
    probe = socket.socket(fileno=os.dup(fd))
    try:
        if probe.family != socket.AF_INET:
            return "other"
        if probe.getsockname()[1] == port:
            return "other" if probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) else "client"
        return "upstream"
    finally:
        probe.close()


def _idle_upstream(services: Services) -> int:
    """Connections to the provider that wait to be used again."""
    provider: Any = services.models.catalog._providers["openai"]
    session = provider._session
    return 0 if session is None else sum(map(len, session._kept.connector._conns.values()))
