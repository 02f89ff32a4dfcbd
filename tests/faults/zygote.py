"""A process that has imported everything and answered once; it forks servers, so that a restart costs milliseconds.

Run as `python -m tests.faults.zygote FD`, where FD is one end of a Unix socket pair. A request is one JSON line, sent
with the descriptor of the server's control channel; the answers are JSON lines: `{"forked": pid}`, and
`{"exited": pid, "status": n}` (as `subprocess` counts: negative for a signal) when a server has ended.
"""

import asyncio
import gc
import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.faults import child
from tests.support.harness import serving
from tests.support.provider_server import ProviderServer

_MAX_REQUEST = 65_536


def main() -> None:
    """Fork servers until the driver goes away; then end those that live."""
    control = socket.socket(fileno=int(sys.argv[1]))
    child.leave_out()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        asyncio.run(_rehearse(Path(folder)))
    # A thread would not live in a fork, and what it held would be locked there for ever.
    assert threading.active_count() == 1, threading.enumerate()
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


async def _rehearse(folder: Path) -> None:
    """One answer, read three ways: afterwards everything that a server needs is imported, built and cached."""
    async with ProviderServer() as provider:
        key = "sk-test-0123456789"
        options = {"openai_api_key": key, "openai_base_url": provider.base_url, "llm_model": "openai/test-model"}
        async with serving(folder / "data", log_level="ERROR", **options) as server:
            (started, *_) = await server.events({"message": "up", "documents": False})
            for path in (f"/runs/{started['run_id']}", f"/sessions/{started['session_id']}/messages", "/sessions"):
                assert (await server.client.get(path)).status_code == 200


def _fork(request: dict[str, Any], fd: int, ours: tuple[int, ...]) -> int:
    pid = os.fork()
    if pid:
        # The driver learns the pid from the server itself, over its own channel.
        return pid
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for each in ours:
        os.close(each)
    code = 70
    try:
        code = child.run(request, fd)
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
