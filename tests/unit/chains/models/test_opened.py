"""Models are opened in a thread, once, for all who ask."""

import asyncio
import threading

import pytest

from backend.chains.models._opened import OpenedModels


class Slow:
    """Opens models as soon as the test lets it."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.opened: list[str] = []
        self.released: list[str] = []
        self.threads: set[int] = set()

    def open(self, name: str) -> str:
        self.threads.add(threading.get_ident())
        assert self.gate.wait(10)
        self.opened.append(name)
        if name == "broken":
            raise ImportError(name)
        return name.upper()

    async def release(self, opened: str) -> None:
        self.released.append(opened)


async def test_the_loop_goes_on_and_all_wait_for_the_same_thread() -> None:
    slow = Slow()
    models = OpenedModels(slow.open, slow.release)
    waiting = [asyncio.create_task(models.get("a")) for _ in range(3)]
    while not slow.threads:
        await asyncio.sleep(0)
    waiting[0].cancel()
    slow.gate.set()
    assert await asyncio.gather(*waiting[1:]) == ["A", "A"]
    assert await models.get("a") == "A"
    assert slow.opened == ["a"] and threading.get_ident() not in slow.threads
    await models.close()
    assert slow.released == ["A"]


async def test_what_fails_is_tried_anew() -> None:
    slow = Slow()
    slow.gate.set()
    models = OpenedModels(slow.open)
    for _ in range(2):
        with pytest.raises(ImportError):
            await models.get("broken")
    assert slow.opened == ["broken", "broken"]


async def test_the_oldest_makes_room() -> None:
    slow = Slow()
    slow.gate.set()
    models = OpenedModels(slow.open, slow.release)
    for number in range(70):
        await models.get(f"m{number}")
    assert slow.released == [f"M{number}" for number in range(6)]
