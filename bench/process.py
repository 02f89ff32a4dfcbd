"""Starts a server as a separate process on its own core, and reads its CPU time and memory."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
SERVER_CORE, CLIENT_CORE, ANY_CORE = 0, 1, None


class BenchError(RuntimeError):
    """A measure can't be taken. The benchmark ends with the reason, so that no table has gaps."""


def pin(core: int | None) -> None:
    """Bind this process to one core, or to any core. Does nothing if the system can't, or has only one core."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_setaffinity") and cores > 1:
        os.sched_setaffinity(0, range(cores) if core is None else {core})


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def allow_descriptors(count: int) -> None:
    """Let this process and its children open so many files and sockets. Raises BenchError if the system refuses."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise BenchError(f"{count} open files are needed, {hard} are allowed: raise it (ulimit -n)")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


async def printed_by(
    module: Sequence[str], env: Mapping[str, str] | None = None, core: int | None = CLIENT_CORE
) -> Any:
    """The JSON that a module prints in a separate process, decoded. Raises BenchError if the process fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *module,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: pin(core),
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise BenchError(f"{module} ended with {process.returncode}:\n{errors.decode()[-2000:]}")
    return json.loads(output)


def cpu_seconds(pid: int) -> float:
    """User and system CPU of a process and its children so far, in seconds: on Linux by the scheduler's own
    clock, in nanoseconds; elsewhere by psutil, in ticks of 10 ms."""
    process = psutil.Process(pid)
    pids = [pid, *(child.pid for child in process.children(recursive=True))]
    if sys.platform == "linux":
        # The clock id is computed as in clock_getcpuclockid(3).
        return sum(time.clock_gettime((~one << 3) | 2) for one in pids)
    return sum(sum(psutil.Process(one).cpu_times()[:2]) for one in pids)


class Server:
    """A server process, for as long as the `with`. What it prints goes to a file, shown if it fails."""

    def __init__(
        self,
        module: Sequence[str],
        ready: str = "/",
        env: Mapping[str, str] | None = None,
        core: int | None = SERVER_CORE,
        port: int | None = None,
        patience: float = 60,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._argv = [sys.executable, "-m", *(part.format(port=self.port) for part in module)]
        self._ready, self._core, self._patience = ready, core, patience
        self._env = {**os.environ, **(env or {}), "PORT": str(self.port)}
        # Servers start from bytecode, as they do wherever Python may write it.
        self._env.pop("PYTHONDONTWRITEBYTECODE", None)
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 lives as long as the process
        self.seconds_to: dict[str, float] = {}  # path -> seconds from the start to its first 200

    def __enter__(self) -> "Server":
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            self._argv,
            cwd=ROOT,
            env=self._env,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: pin(self._core),
        )
        self.pid = self._process.pid
        try:
            self.wait_for(self._ready)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def wait_for(self, path: str) -> float:
        """Seconds from the start of the process until `path` answers 200."""
        while not self._answers(path):
            if self._process.poll() is not None:
                raise BenchError(f"{self._argv[2:]} ended with {self._process.returncode}:\n{self.tail()}")
            if time.monotonic() - self.started > self._patience:
                raise BenchError(f"{self._argv[2:]}: no 200 at {path} in {self._patience} s:\n{self.tail()}")
            time.sleep(0.01)
        self.seconds_to[path] = time.monotonic() - self.started
        return self.seconds_to[path]

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def tail(self) -> str:
        """The last lines that the server has printed."""
        self._output.seek(0)
        return "".join(self._output.readlines()[-15:])

    def exit_code(self) -> int | None:
        """The exit code; minus the signal's number if a signal ended the process; None while it runs."""
        return self._process.poll()

    def cpu(self) -> float:
        return cpu_seconds(self.pid)

    def memory_mb(self) -> float:
        """Resident memory of the process and its children."""
        process = psutil.Process(self.pid)
        return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]) / 1e6
