"""Opens the runs: ends those that a crash interrupted, then keeps live runs until the server stops."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backend import events as ev
from backend.config.groups.runs import RunSettings
from backend.config.groups.storage import StorageSettings
from backend.services.foundation import Core
from backend.services.runs.hub import RunHub
from backend.storage.runs.turns import Turns


@dataclass(frozen=True, slots=True)
class Runs:
    """Live and stored runs. `turns` stores and reads the turns that they answer."""

    hub: RunHub
    turns: Turns


@asynccontextmanager
async def opened(
    settings: RunSettings, storage: StorageSettings, core: Core, charge: Callable[[ev.Usage], None]
) -> AsyncGenerator[Runs]:
    """The live and stored runs. `storage` says how long events are kept; `charge` adds the cost to a usage event.

    Live runs use capabilities that open later. So they must be drained before those close: `core.draining` ends them.
    """
    turns = Turns(core.database)
    hub = RunHub(turns, settings, storage.event_retention_hours, charge, core.telemetry, shows_advice=core.shows_advice)
    await hub.open()
    core.draining.add(hub.close)
    try:
        yield Runs(hub, turns)
    finally:
        await hub.close(0)
