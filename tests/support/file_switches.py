"""Counts how often the code of a request changes from one file of `backend/` to another before its first event.

    python -m tests.support.file_switches

A switch is a call of a Python function, on the event loop's thread, whose file differs from that of the previous call.
The count begins with the endpoint of `POST /chat` and ends when the run's first event is encoded. Three kinds of
requests are counted, each after a first request of the same kind, so that caches are warm.
"""

import asyncio
import itertools
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

from backend import events as ev
from tests.support.harness import ROOT, Running, serving

_BACKEND = str(ROOT / "backend") + "/"
_ENDPOINT = ("routers/chat.py", "chat")
_OF_THE_SERVER = ("server.py", "routers/edge/connections.py")
"""Files that look after all connections now and then, in the middle of any request."""
_FIRST_EVENT = ev.encode.__code__


class SwitchCounter:
    """The files of `backend/` whose functions are called between the endpoint and the first event, in order."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.functions: list[str] = []
        self._is_counting = False
        self._entered: set[FrameType] = set()

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """Count one call. The interpreter calls this for every call and return."""
        if event != "call":
            return
        code = frame.f_code
        if not code.co_filename.startswith(_BACKEND):
            return
        name = code.co_filename.removeprefix(_BACKEND)
        if name in _OF_THE_SERVER:
            return
        if not self._is_counting:
            self._is_counting = (name, code.co_name) == _ENDPOINT
        if self._is_counting and code is _FIRST_EVENT:
            self._is_counting = False
            sys.setprofile(None)
        elif self._is_counting and frame not in self._entered:
            # A coroutine that continues after an `await` is reported as a call, too.
            self._entered.add(frame)
            self.files.append(name)
            self.functions.append(code.co_name)

    @property
    def switches(self) -> int:
        """The number of calls whose file differs from that of the previous call."""
        return sum(1 for a, b in itertools.pairwise(self.files) if a != b)

    def way(self) -> list[str]:
        """The files in order, each with the functions that were called before the next switch."""
        both = zip(self.files, self.functions, strict=True)
        groups = itertools.groupby(both, lambda pair: pair[0])
        return [f"{name}: {', '.join(function for _, function in group)}" for name, group in groups]


async def count_switches(running: Running, body: dict[str, Any]) -> SwitchCounter:
    """The counts of one `POST /chat` with `body`."""
    counter = SwitchCounter()
    sys.setprofile(counter)
    try:
        await running.events(body)
    finally:
        sys.setprofile(None)
    return counter


async def measure(data_dir: Path) -> dict[str, SwitchCounter]:
    """The counts by kind of request: a new session, a next message in a session, and an answer without documents."""
    async with serving(data_dir) as running:
        first = await running.events({"message": "hello"})
        session = {"message": "hello", "session_id": first[0]["session_id"]}
        kinds = {
            "new session": {"message": "hello"},
            "next message": session,
            "no documents": {"message": "hello", "documents": False},
        }
        for body in kinds.values():
            await running.events(body)
        return {kind: await count_switches(running, body) for kind, body in kinds.items()}


def main() -> None:
    """Print the counts, and the way of the first kind."""
    with tempfile.TemporaryDirectory() as folder:
        counters = asyncio.run(measure(Path(folder)))
    for kind, counter in counters.items():
        print(f"{kind}: {counter.switches} switches, {len(counter.files)} calls")
    print("\nThe way of a new session:")
    print("\n".join(f"  {step}" for step in counters["new session"].way()))


if __name__ == "__main__":
    main()
