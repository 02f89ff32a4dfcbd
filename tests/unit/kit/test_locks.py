"""Locks by key: one task at a time for one thing, and nothing left behind."""

import asyncio

from backend.kit.locks import KeyedLocks


async def test_work_on_one_thing_is_done_one_after_the_other() -> None:
    locks, steps = KeyedLocks(), list[str]()

    async def work(key: str, name: str) -> None:
        async with locks.get(key):
            steps.append(f"{name} begins")
            await asyncio.sleep(0)
            steps.append(f"{name} ends")

    await asyncio.gather(work("a", "first"), work("a", "second"), work("b", "other"))
    assert [step for step in steps if "other" not in step] == [
        "first begins",
        "first ends",
        "second begins",
        "second ends",
    ]
    assert steps.index("other begins") < steps.index("second begins"), "another thing doesn't wait"


async def test_a_lock_that_nobody_needs_is_gone() -> None:
    locks = KeyedLocks()
    async with locks.get(("session", "ses_1")):
        assert len(locks) == 1
    assert len(locks) == 0
