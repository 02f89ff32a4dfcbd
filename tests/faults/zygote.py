"""A process that has imported everything and forks a server when asked, so that a restart costs milliseconds.

Run as `python -m tests.faults.zygote FD`, where FD is one end of a Unix socket pair. A request is one JSON line, sent
with the descriptor of the server's control channel; the answers are JSON lines: `{"forked": pid}`, and
`{"exited": pid, "status": n}` (as `subprocess` counts: negative for a signal) when a server has ended.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

# What a server imports by its first answer. Nothing here may start a thread: it would not live in a fork.
PRELOADED = (
    "aiosqlite",
    "aiohttp",
    "alembic",
    "langchain_core.messages",
    "langchain_openai",
    "openai",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "backend.chains.models._openai_chat",
    "backend.main",
    "tests.faults.child",
)
_MAX_REQUEST = 65_536


def main() -> None:
    """Fork servers until the driver goes away; then end those that live."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for module in PRELOADED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_writer)
    _say(control, {"ready": os.getpid()})
    children: set[int] = set()
    while True:
        readable, _, _ = select.select([control, wake_reader], [], [])
        if wake_reader in readable:
            os.read(wake_reader, 4096)
            _reap(control, children)
        if control in readable:
            data, fds, _, _ = socket.recv_fds(control, _MAX_REQUEST, 1)
            if not data:
                break
            children.add(_fork(json.loads(data), fds[0], (control.fileno(), wake_reader, wake_writer)))
            os.close(fds[0])
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _fork(request: dict[str, Any], fd: int, ours: tuple[int, ...]) -> int:
    pid = os.fork()
    if pid:
        # The driver learns the pid from the server itself, over its own channel.
        return pid
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for each in ours:
        os.close(each)
    from tests.faults.child import run

    code = 70
    try:
        code = run(request, fd)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _reap(control: socket.socket, children: set[int]) -> None:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            children.discard(pid)
            _say(control, {"exited": pid, "status": os.waitstatus_to_exitcode(status)})


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # the driver went first
        control.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
