"""Runs a server with a sampler in it: `python -m bench.sampled FOLDER MODULE [ARGUMENT ...]`.

SIGUSR1 begins, SIGUSR2 ends and writes `FOLDER/cpu.json`: CPU seconds of the main thread and of the process. Between
them each 2 ms of CPU the process writes its Python stack to `FOLDER/stacks`. That is done by faulthandler, in C, at the
very moment of the signal; a handler in Python would run late, after the C code that took the time (uvloop, SQLite), and
blame what comes next.

The price: once in some thousand samples the signal comes while the interpreter changes frames, faulthandler follows a
pointer that leads nowhere, and the process ends. `profile.py` measures again then.
"""

import faulthandler
import json
import runpy
import signal
import sys
import time
from pathlib import Path

INTERVAL = 0.002  # seconds of CPU; a kernel with a slow tick samples more rarely


def clocks() -> tuple[float, float]:
    return time.thread_time(), time.process_time()


class Sampler:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun = clocks()
        self._stacks = (folder / "stacks").open("wb")
        faulthandler.register(signal.SIGPROF, self._stacks, all_threads=False)
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._end)

    def _begin(self, *_: object) -> None:
        self._begun = clocks()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    def _end(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        main, process = (now - then for now, then in zip(clocks(), self._begun, strict=True))
        unfinished = self._folder / "cpu.part"
        unfinished.write_text(json.dumps({"main": main, "process": process}))
        unfinished.rename(self._folder / "cpu.json")


if __name__ == "__main__":
    sampler = Sampler(Path(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
