"""A lane: one server at a time and a provider, on which schedules run one after another."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import checks
from tests.faults.client import Client
from tests.faults.provider import Provider, answer
from tests.faults.servers import Server, Zygote
from tests.faults.violation import Violation

_SETTINGS: dict[str, Any] = {
    "openai_api_key": "sk-test-0123456789",
    "llm_model": "openai/test-model",
    "checkpoint_seconds": 0.05,
    "send_window_ms": 3.0,
    "heartbeat_seconds": 0.1,
    "shutdown_grace": 0.1,
    "retry_seconds": 0.9,
    "disconnect_grace": 0.1,
    "log_level": "WARNING",
}
_SPOILED = ("Traceback (most recent call last)", "was never retrieved", "was never awaited")
"""What a log must not hold: an exception that nobody expected, or that nobody looked at."""


@dataclass
class Lane:
    """What a schedule works with. `faults` counts what it injected, `points` the failpoints that killed.

    `rng` is the schedule's: tasks that run at once draw from it before they first wait, or their order would count.
    """

    zygote: Zygote
    folder: Path
    bug: str | None
    provider: Provider
    server: Server
    rng: random.Random = field(default_factory=random.Random)
    name: str = ""
    index: int = 0
    faults: int = 0
    points: Counter[str] = field(default_factory=Counter)
    baseline: dict[str, Any] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        """Asks the server that lives now."""
        return Client(self.server.port)

    def message(self, what: object) -> str:
        """A message that no other run of the schedule carries."""
        return f"{self.name} {what}"

    async def start(self) -> None:
        """Start the server and take its census, after a first answer has opened what stays open."""
        await self.server.start()
        await self.warm()
        self.baseline = await self.server.census()

    async def warm(self) -> None:
        self.provider.scripts["warm"] = [answer(["up"])]
        events = await (await self.client.ask("warm")).rest()
        checks.whole(events, events[0].data["run_id"])
        await checks.kept(self.client, events, "warm")

    async def settled(self) -> None:
        """Nothing is left of what the schedule did."""
        await checks.settled(self.server, self.baseline)

    async def stop(self) -> None:
        """The server stops as it should, and leaves whole logs and no complaint."""
        if self.server.alive:
            self.server.terminate()
            await self.server.stopped()
        if self.server.database.exists():
            checks.audit(self.server.database)
        for line in self.server.log.read_text(errors="replace").splitlines():
            if any(said in line for said in _SPOILED):
                raise Violation("traceback", f"the server's log has {line!r}: {self.server.log}")


Schedule = Callable[[Lane], Awaitable[None]]


@dataclass(frozen=True)
class Kind:
    """A kind of fault: one schedule injects `batch` of them or so, on a server with these settings."""

    name: str
    schedule: Schedule
    batch: int
    settings: dict[str, Any] = field(default_factory=dict)
    """Beyond the lane's own."""
    every: int = 0
    """So many faults are every case there is; a long run has at least as many."""


async def open_lane(stack: AsyncExitStack, zygote: Zygote, folder: Path, bug: str | None, kind: Kind) -> Lane:
    """A lane for schedules of that kind, on a fresh DATA_DIR."""
    provider = await stack.enter_async_context(Provider())
    settings = {**_SETTINGS, "openai_base_url": provider.base_url, **kind.settings}
    return Lane(zygote, folder, bug, provider, Server(zygote, folder, bug, **settings))
