"""A dialect whose bytes depend on all events before: its watchers join, share, fall behind and come back."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator

import pytest

from backend import events as ev
from backend.routers.dialects.text import FRAMES, PLAIN
from backend.services.runs.archive import replay
from backend.services.runs.dialect import Dialect
from backend.services.runs.fold import RunFold
from backend.services.runs.log import MemoryLog, SendPace
from tests.unit.services.runs.test_log import Store


class Lengths:
    """Shows each seq with the length of the text so far, which one event alone doesn't tell."""

    media_type = "text/plain"
    is_stateless = False

    def __init__(self) -> None:
        self.encoded: Counter[int] = Counter()
        """How often each event was encoded, by whichever encoder."""
        self.made = 0

    def encoder(self, run_id: str, before: RunFold) -> "LengthEncoder":
        assert run_id == "run_1"
        self.made += 1
        return LengthEncoder(self, before.text().count("x"))


class LengthEncoder:
    def __init__(self, dialect: Lengths, length: int) -> None:
        self._dialect = dialect
        self._length = length

    def event(self, seq: int, line: bytes) -> bytes:
        self._dialect.encoded[seq] += 1
        match ev.decode(line):
            case ev.TextDelta(text=text):
                self._length += len(text)
            case _:
                pass
        return b"%d:%d," % (seq, self._length)


def make() -> MemoryLog:
    return MemoryLog("run_1", pace=SendPace(0.0), max_events=200, max_bytes=1_000_000)


def events(count: int) -> list[ev.AnyEvent]:
    """Two parts of `count` deltas each."""
    parts: list[ev.AnyEvent] = []
    for part_id in ("p1", "p2"):
        parts.append(ev.TextStart(part_id=part_id))
        parts += [ev.TextDelta(part_id=part_id, text="x" * (n % 7)) for n in range(count)]
        parts.append(ev.TextEnd(part_id=part_id))
    return parts


def completed() -> ev.RunCompleted:
    return ev.RunCompleted(finish_reason="stop", usage=ev.TokenUsage())


async def collect(stream: AsyncGenerator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def cut(stream: AsyncGenerator[bytes], pieces: int) -> bytes:
    """What a client gets that leaves after so many pieces."""
    got = [chunk async for chunk, _ in _limited(stream, pieces)]
    await stream.aclose()
    return b"".join(got)


async def _limited(stream: AsyncGenerator[bytes], pieces: int) -> AsyncGenerator[tuple[bytes, int]]:
    for number in range(pieces):
        chunk = await anext(stream, None)
        if chunk is None:
            return
        yield chunk, number


async def test_watchers_in_step_share_one_encoding() -> None:
    log, store, dialect = make(), Store(), Lengths()
    watchers = [asyncio.create_task(collect(log.follow(0, dialect, store.read))) for _ in range(20)]
    for event in events(40):
        log.append(event)
        await asyncio.sleep(0)
    log.finish([completed()], stored=False)
    first, *others = await asyncio.gather(*watchers)
    assert first.count(b",") == log.head
    assert all(other == first for other in others)
    assert set(dialect.encoded.values()) == {1}, "an event was encoded more than once for watchers at equal cursors"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("dialect", [Lengths(), PLAIN, FRAMES], ids=["lengths", "plain", "frames"])
async def test_a_stream_joined_at_any_seq_is_the_rest_of_the_whole_one(dialect: Dialect, seed: int) -> None:
    chance = random.Random(seed)
    log, store = make(), Store()
    whole = asyncio.create_task(collect(log.follow(0, dialect, store.read)))
    joined: list[tuple[int, asyncio.Task[bytes]]] = []
    slow = [asyncio.create_task(cut(log.follow(0, dialect, store.read), chance.randrange(1, 30))) for _ in range(3)]
    for event in events(300):
        log.append(event)
        if log.unstored_count >= chance.randrange(20, 90):
            store.checkpoint(log)
        if chance.random() < 0.05:
            after = chance.randrange(log.head + 1)
            joined.append((after, asyncio.create_task(collect(log.follow(after, dialect, store.read)))))
        if chance.random() < 0.3:
            await asyncio.sleep(0)
    store.rows += log.encode_next([completed()])
    log.finish([completed()], stored=True)
    expected = b"".join(pieces := piecewise(log.run_id, dialect, store))
    assert await whole == expected
    for task in slow:
        assert expected.startswith(await task)
    for after, task in joined:
        assert await task == b"".join(pieces[after:])
    for after in (0, 1, chance.randrange(log.head), log.head):
        assert await collect(replay("run_1", after, dialect, store.read)) == b"".join(pieces[after:])


def piecewise(run_id: str, dialect: Dialect, store: Store) -> list[bytes]:
    """The bytes of each event, by one encoder that has seen them all."""
    encoder = dialect.encoder(run_id, RunFold())
    lines = {s: line for row in store.rows for s, line in enumerate(row.lines.split(b"\n"), row.first_seq)}
    return [encoder.event(seq, lines[seq]) for seq in sorted(lines)]


async def test_a_slow_watcher_does_not_cost_the_others_their_encoder() -> None:
    log, store, dialect = make(), Store(), Lengths()
    slow = log.follow(0, dialect, store.read)
    log.append(ev.TextStart(part_id="p1"))
    assert await anext(slow)
    quick = [asyncio.create_task(collect(log.follow(0, dialect, store.read))) for _ in range(5)]
    for number in range(100):
        log.append(ev.TextDelta(part_id="p1", text="x"))
        await asyncio.sleep(0)
        if number % 30 == 29:
            assert await anext(slow)
    log.finish([completed()], stored=False)
    rest = await collect(slow)
    for whole in await asyncio.gather(*quick):
        assert whole.endswith(rest)
    # One for each watcher from the start, and at most one each time that the slow one had fallen behind.
    assert dialect.made <= 6 + 4
