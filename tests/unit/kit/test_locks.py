"""Locks by name."""

import asyncio

from backend.kit.locks import KeyedLocks


async def test_a_key_is_one_lock_and_keys_do_not_wait_for_each_other() -> None:
    locks = KeyedLocks()
    order: list[str] = []

    async def work(key: str, name: str, seconds: float) -> None:
        async with locks.get(key):
            order.append(f"{name} begins")
            await asyncio.sleep(seconds)
            order.append(f"{name} ends")

    await asyncio.gather(work("a", "first", 0.02), work("a", "second", 0), work("b", "other", 0))
    assert order == ["first begins", "other begins", "other ends", "first ends", "second begins", "second ends"]


async def test_a_lock_that_no_task_uses_is_forgotten() -> None:
    locks = KeyedLocks()
    async with locks.get("a"):
        assert list(locks._locks) == ["a"]
    assert list(locks._locks) == []
