"""Runs schedules on several lanes, counts, and says how to repeat what failed."""

import asyncio
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.kinds import KINDS
from tests.faults.lane import Kind, Lane, open_lane
from tests.faults.servers import Zygote
from tests.faults.violation import Violation

_BLOCK = 12
"""Schedules that one server gets before it is stopped and its database audited."""


@dataclass(frozen=True)
class Found:
    """A violation, and the schedule that showed it."""

    kind: str
    schedule: str
    violation: Violation


@dataclass
class Tally:
    """What was injected and what was found."""

    faults: Counter[str] = field(default_factory=Counter)
    schedules: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    found: list[Found] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What to run: about so many `faults` of each kind, from a seed; or these schedules alone."""

    seed: int
    faults: dict[str, int]
    lanes: int = 3
    bug: str | None = None
    schedules: range | None = None

    @property
    def enough(self) -> int:
        """So many violations are enough."""
        return 5 if self.bug is None else 1


async def run(plan: Plan, zygote: Zygote) -> Tally:
    """All of the plan's schedules. The folder of what failed is left behind, unless the bug was planted."""
    tally = Tally()
    begun = time.monotonic()
    blocks = deque(_blocks(plan))
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    if not zygote.template.exists():
        await _template(zygote, folder)
    lanes = [_lane(zygote, folder / str(n), plan, blocks, tally) for n in range(plan.lanes)]
    progress = asyncio.create_task(_progress(plan, tally), name="progress")
    await asyncio.gather(*lanes)
    progress.cancel()
    if not tally.found or plan.bug is not None:
        shutil.rmtree(folder)
    tally.seconds = time.monotonic() - begun
    return tally


async def _progress(plan: Plan, tally: Tally) -> None:
    """A line a minute, for those who wait."""
    while True:
        await asyncio.sleep(60)
        done = f"{tally.faults.total()} of about {sum(plan.faults.values())} faults"
        print(f"{done}, {len(tally.found)} violations", file=sys.stderr)


def _blocks(plan: Plan) -> list[tuple[Kind, range]]:
    """Schedules by kind and number, mixed so that lanes work on different kinds at once."""
    if plan.schedules is not None:
        return [(KINDS[name], plan.schedules) for name in plan.faults]
    blocks: list[tuple[Kind, range]] = []
    for name, faults in plan.faults.items():
        kind = KINDS[name]
        count = -(-faults // kind.batch)
        blocks += [(kind, range(at, min(at + _BLOCK, count))) for at in range(0, count, _BLOCK)]
    random.Random(plan.seed).shuffle(blocks)
    return blocks


async def _template(zygote: Zygote, folder: Path) -> None:
    """A DATA_DIR with its schema, to be copied: making one takes half a second."""
    async with AsyncExitStack() as stack:
        lane = await open_lane(stack, zygote, folder / "template", None, next(iter(KINDS.values())))
        await lane.start()
        await lane.stop()
        shutil.copytree(lane.server.data_dir, zygote.template)


async def _lane(zygote: Zygote, folder: Path, plan: Plan, blocks: "deque[tuple[Kind, range]]", tally: Tally) -> None:
    number = 0
    while blocks and len(tally.found) < plan.enough:
        kind, schedules = blocks.popleft()
        number += 1
        async with AsyncExitStack() as stack:
            lane = await open_lane(stack, zygote, folder / str(number), plan.bug, kind)
            last = str(schedules.start)
            try:
                await lane.start()
                for index in schedules:
                    last = str(index)
                    await _schedule(lane, kind, plan.seed, index)
                    tally.schedules[kind.name] += 1
                await lane.stop()
                shutil.rmtree(lane.folder)
            except Exception as error:
                violation = error if isinstance(error, Violation) else _unexpected(error)
                tally.found.append(Found(kind.name, last, violation))
            finally:
                await lane.server.kill()
            tally.faults[kind.name] += lane.faults
            tally.points += lane.points


def _unexpected(error: Exception) -> Violation:
    return Violation("error", "".join(traceback.format_exception(error)))


async def _schedule(lane: Lane, kind: Kind, seed: int, index: int) -> None:
    lane.rng = random.Random(f"{seed} {kind.name} {index}")
    lane.index, lane.name = index, f"{kind.name} {index}"
    lane.provider.forget()
    await kind.schedule(lane)
    await lane.settled()
