"""How far a job is, for those who watch it."""

import time
from collections.abc import Callable
from typing import Any

STAGES = ("parsing", "chunking", "embedding", "indexing")
"""What is done of a job, in order."""


class Gone(Exception):
    """What the job was for is not wanted any more."""


class Changed(Exception):
    """The collection is embedded otherwise now, or the document lies elsewhere: the job begins again."""


class Waiting(Exception):
    """Something else must be done before."""


class JobProgress:
    """The stage, chunks done of all, seconds spent in each stage. `changed` is called at each step."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.stage = "queued"
        self.done = 0
        self.total = 0
        self._fresh = 0
        self._seconds: dict[str, float] = {}
        self._began = time.monotonic()
        self._changed = changed

    def enter(self, stage: str) -> None:
        """The next stage begins."""
        if stage != self.stage:
            self.pause()
            self.stage = stage
            self._changed()

    def pause(self) -> None:
        """The time until `resume` is nobody's."""
        now = time.monotonic()
        self._seconds[self.stage] = self._seconds.get(self.stage, 0.0) + now - self._began
        self._began = now

    def resume(self) -> None:
        """The work goes on."""
        self._began = time.monotonic()

    def count(self, done: int, total: int, *, fresh: bool = True) -> None:
        """So many chunks are done; not `fresh`: an earlier attempt did them."""
        self._fresh += done - self.done if fresh else 0
        self.done, self.total = done, total
        self._changed()

    def spent(self) -> dict[str, float]:
        """Seconds in each stage, the time in the queue left out."""
        seconds = dict(self._seconds)
        seconds[self.stage] = seconds.get(self.stage, 0.0) + time.monotonic() - self._began
        seconds.pop("queued", None)
        return seconds

    def told(self) -> dict[str, Any]:
        """As JSON: `done`, `total`, `rate` in chunks a second, `seconds` by stage."""
        seconds = self.spent()
        told: dict[str, Any] = {"seconds": {stage: round(spent, 3) for stage, spent in seconds.items()}}
        if self.total:
            told |= {"done": self.done, "total": self.total}
        if self._fresh and (spent := seconds.get("embedding", 0.0)) > 0:
            told["rate"] = round(self._fresh / spent, 2)
        return told
