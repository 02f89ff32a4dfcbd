"""A short run of the fault driver, and the proof that it finds what it looks for. `make faults` is the long one."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.bugs import BUGS
from tests.faults.driver import Plan, run
from tests.faults.failpoints import POINTS
from tests.faults.kinds import KINDS
from tests.faults.servers import Zygote

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEED = 7


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote() -> AsyncIterator[Zygote]:
    async with Zygote() as started:
        yield started


async def test_no_fault_breaks_a_promise(zygote: Zygote) -> None:
    faults = {name: kind.batch for name, kind in KINDS.items()} | {"kill9": len(POINTS), "sigterm": 3}
    tally = await run(Plan(SEED, faults), zygote)
    assert [f"{f.kind} {f.schedule}: {f.violation}" for f in tally.found] == []
    assert [name for name in KINDS if tally.faults[name] < faults[name] // 2] == [], "hardly a fault was injected"
    assert tally.faults["kill9"] >= len(POINTS)


@pytest.mark.parametrize("name", BUGS)
async def test_a_planted_bug_is_found(zygote: Zygote, name: str) -> None:
    bug = BUGS[name]
    tally = await run(Plan(SEED, {bug.kind: 1}, lanes=1, bug=name, schedules=bug.schedules), zygote)
    assert [f.violation.kind for f in tally.found] == [bug.found_as]
