"""The log of a live run: bounded in memory, and every watcher sees every seq once."""

import asyncio
import itertools
from collections.abc import AsyncGenerator

import pytest

from backend import events as ev
from backend.services.runs.archive import replay
from backend.services.runs.fold import RunFold
from backend.services.runs.log import MAX_UNSTORED, LogFull, MemoryLog, SendPace
from backend.storage.runs.events import EventLines


def make(max_events: int = 100, pace: SendPace | None = None, max_bytes: int = 1_000_000) -> MemoryLog:
    return MemoryLog("run_1", pace=pace or SendPace(0.0), max_events=max_events, max_bytes=max_bytes)


def delta(number: int) -> ev.TextDelta:
    return ev.TextDelta(part_id="p1", text=str(number))


class OnlySeq:
    """A stateless dialect that shows the seq alone; `padded`, as many bytes as the event has."""

    media_type = "text/plain"
    is_stateless = True

    def __init__(self, padded: bool = False) -> None:
        self._padded = padded

    def encoder(self, run_id: str, before: RunFold) -> "OnlySeq":
        assert run_id == "run_1" and before.started is None
        return self

    def event(self, seq: int, line: bytes) -> bytes:
        assert ev.decode(line).seq == seq
        return b"%d," % seq + (b"," * len(line) if self._padded else b"")


only_seq, only_seq_padded = OnlySeq(), OnlySeq(padded=True)


class Store:
    """The database's part: what was checkpointed, a few rows at a time."""

    def __init__(self) -> None:
        self.rows: list[EventLines] = []
        self.reads = 0

    def checkpoint(self, log: MemoryLog) -> None:
        lines = log.unstored_lines()
        assert lines is not None
        self.rows.append(lines)
        log.mark_stored(lines.last_seq)

    async def read(self, run_id: str, after: int) -> list[EventLines]:
        self.reads += 1
        await asyncio.sleep(0)
        return [row for row in self.rows if row.last_seq > after][:2]


def seqs(chunk: bytes) -> list[int]:
    return [int(n) for n in chunk.decode().split(",") if n]


async def collect(stream: AsyncGenerator[bytes]) -> list[int]:
    return [seq async for chunk in stream for seq in seqs(chunk)]


async def test_a_watcher_that_is_far_behind_reads_from_storage_and_sees_every_seq_once() -> None:
    log, store = make(max_events=100), Store()
    late = log.follow(0, only_seq, store.read)
    log.append(delta(0))
    seen = seqs(await anext(late))
    for number in range(1, 1_000):
        log.append(delta(number))
        if number % 40 == 0:
            store.checkpoint(log)
    log.finish([delta(1_000)], stored=False)
    assert await collect(log.follow(0, only_seq, store.read)) == list(range(1, 1_002))
    assert seen + await collect(late) == list(range(1, 1_002))
    assert store.reads


async def test_memory_holds_only_what_is_not_stored_and_a_short_tail() -> None:
    log, store = make(max_events=100), Store()
    for number in range(5_000):
        log.append(delta(number))
        if number % 50 == 49:
            store.checkpoint(log)
        assert len(log._tail) <= 150
    assert log.head == 5_000


async def test_a_tail_that_cannot_be_stored_ends_the_run() -> None:
    log = make(max_events=100)
    with pytest.raises(LogFull):
        for number in range(101):
            log.append(delta(number))
    assert log.head == 100


async def test_the_tail_is_bounded_in_bytes_too() -> None:
    log, store = make(max_events=1_000, max_bytes=10_000), Store()
    big = ev.TextDelta(part_id="p1", text="x" * 3_000)
    for _ in range(4):
        log.append(big)
    with pytest.raises(LogFull):
        log.append(big)
    store.checkpoint(log)
    log.append(big)
    assert log.head == 5


async def test_watchers_are_never_shown_more_than_recovery_can_jump_over() -> None:
    log, store = make(max_events=5_000), Store()
    watcher = log.follow(0, only_seq, store.read)
    for number in range(1_500):
        log.append(delta(number))
    seen: list[int] = []
    while len(seen) < MAX_UNSTORED:
        seen += seqs(await anext(watcher))
    assert seen == list(range(1, MAX_UNSTORED + 1))
    waiting = asyncio.ensure_future(anext(watcher))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done(), "shown more than is safe to show before a checkpoint"
    store.checkpoint(log)
    assert seqs(await waiting)[0] == MAX_UNSTORED + 1


async def test_what_is_hidden_is_shown_at_the_end() -> None:
    log, store = make(max_events=5_000), Store()
    for number in range(1_500):
        log.append(delta(number))
    log.finish([delta(0)], stored=False)
    assert await collect(log.follow(0, only_seq, store.read)) == list(range(1, 1_502))


async def test_a_watcher_of_a_deleted_run_does_not_spin() -> None:
    """Its session was deleted: what it is behind on is neither in memory nor in the database."""
    log, store = make(max_events=100), Store()
    for _ in range(3):
        for number in range(60):
            log.append(delta(number))
        store.checkpoint(log)
    log.finish([delta(0)], stored=True)
    store.rows.clear()
    async with asyncio.timeout(2):
        seen = await collect(log.follow(0, only_seq, store.read))
    assert seen == [], "a gap would look like a whole stream"
    assert store.reads < 10


async def test_text_of_one_window_is_sent_together_and_the_end_at_once() -> None:
    log, store = make(pace=SendPace(60.0, per_second=0.001)), Store()
    watcher = log.follow(0, only_seq, store.read)
    first = asyncio.ensure_future(anext(watcher))
    await asyncio.sleep(0)
    log.append(delta(0))
    assert seqs(await first) == [1]
    rest = asyncio.ensure_future(collect(watcher))
    await asyncio.sleep(0)
    for number in range(5):
        log.append(delta(number))
        await asyncio.sleep(0)
    assert not rest.done()
    log.finish([delta(9)], stored=True)
    async with asyncio.timeout(2):
        assert await rest == [2, 3, 4, 5, 6, 7]


async def test_text_leaves_at_once_while_the_process_wakes_few() -> None:
    log, store = make(pace=SendPace(60.0, per_second=1_000_000_000)), Store()
    watcher = log.follow(0, only_seq, store.read)
    for number in range(1, 6):
        waiting = asyncio.ensure_future(anext(watcher))
        for _ in range(3):
            await asyncio.sleep(0)
        log.append(delta(number))
        for _ in range(3):
            await asyncio.sleep(0)
        assert waiting.done()
        assert seqs(waiting.result()) == [number]


async def test_who_waits_for_the_end_is_not_woken_before() -> None:
    log = make()
    waiting = asyncio.ensure_future(log.wait_for_end())
    await asyncio.sleep(0)
    log.append(delta(1))
    await asyncio.sleep(0)
    assert log._waiters == []
    assert not waiting.done()
    log.finish([delta(2)], stored=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waiting.done()


def woken(pace: SendPace, runs: int, rate: float, watchers: int = 1, seconds: float = 2.0) -> list[list[float]]:
    """When each of `runs` runs wakes its watchers, in seconds, after its first wake. Each run has `rate` texts a
    second, evenly spaced, and its phase in between."""
    texts = sorted((i / rate + run / (rate * runs), run) for run in range(runs) for i in range(int(rate * seconds)))
    timers: list[tuple[float, int]] = []
    last, wakes = [-1.0] * runs, [list[float]() for _ in range(runs)]

    def wake(run: int, now: float) -> None:
        pace.count(watchers, now)
        last[run] = now
        wakes[run].append(now)

    for now, run in texts:
        while timers and timers[0][0] <= now:
            due, held = timers.pop(0)
            wake(held, due)
        if all(held != run for _, held in timers):
            if (due := pace.due(last[run])) <= now:
                wake(run, now)
            else:
                timers = sorted([*timers, (due, run)])
    return wakes


def test_a_lone_run_of_an_idle_process_wakes_its_watcher_for_each_text() -> None:
    (wakes,) = woken(SendPace(0.02, per_second=1000), runs=1, rate=100)
    assert wakes == [i / 100 for i in range(200)]


def test_a_fast_run_wakes_its_watcher_as_often_as_the_process_may() -> None:
    (wakes,) = woken(SendPace(0.02, per_second=1000), runs=1, rate=10_000)
    assert 1_900 <= len(wakes) <= 2_000


def test_runs_that_share_a_busy_process_join_the_text_of_a_window_and_no_more() -> None:
    every = woken(SendPace(0.02, per_second=1000), runs=50, rate=200)
    for wakes in every:
        gaps = [after - before for before, after in itertools.pairwise(wakes)]
        assert max(gaps) < 0.02 + 1 / 200 + 0.001
        assert sum(gaps) / len(gaps) > 0.019


def test_a_slow_run_of_a_busy_process_is_not_held() -> None:
    every = woken(SendPace(0.02, per_second=1000), runs=300, rate=10)
    for run, wakes in enumerate(every):
        assert wakes == [i / 10 + run / 3000 for i in range(20)]


def test_a_run_of_many_watchers_holds_its_text_a_window_at_most() -> None:
    pace = SendPace(0.02, per_second=1000)
    pace.count(200, now=10.0)
    assert pace.due(woken_at=10.0) == pytest.approx(10.02)
    pace.count(200, now=10.01)
    assert pace.due(woken_at=10.01) == pytest.approx(10.03)


def test_a_quiet_window_makes_the_process_idle_again() -> None:
    pace = SendPace(0.02, per_second=1000)
    for _ in range(1000):
        pace.count(1, now=10.0)
    assert pace.due(woken_at=10.015) == pytest.approx(10.02)


def test_no_window_holds_no_text() -> None:
    pace = SendPace(0.0)
    pace.count(1000, now=10.0)
    assert pace.due(woken_at=10.0) <= 10.0


async def test_a_watcher_that_leaves_leaves_nothing_behind() -> None:
    log, store = make(), Store()
    for _ in range(3):
        task = asyncio.ensure_future(collect(log.follow(0, only_seq, store.read)))
        async with asyncio.timeout(1):
            while len(log._waiters) != 1:
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert log._waiters == []


async def test_the_last_commit_holds_exactly_what_was_not_stored() -> None:
    log, store = make(), Store()
    for number in range(10):
        log.append(delta(number))
    store.checkpoint(log)
    log.append(delta(10))
    (last,) = log.encode_next([delta(11), delta(12)])
    assert (last.first_seq, last.last_seq) == (11, 13)
    assert [ev.decode(line).seq for line in last.lines.split(b"\n")] == [11, 12, 13]


async def test_a_finished_log_is_read_from_storage_like_a_live_one() -> None:
    log, store = make(), Store()
    for number in range(90):
        log.append(delta(number))
        if number % 7 == 6:
            store.checkpoint(log)
    store.rows += log.encode_next([delta(90)])
    log.finish([delta(90)], stored=True)
    for after in (0, 1, 6, 7, 8, 50, 89, 90):
        live = b"".join([c async for c in log.follow(after, only_seq, store.read)])
        stored = b"".join([c async for c in replay("run_1", after, only_seq, store.read)])
        assert live == stored


@pytest.mark.parametrize("stored", [False, True])
async def test_a_replay_of_50_000_events_gives_others_their_turn(stored: bool) -> None:
    count, turns = 50_000, 0
    log, store = make(max_events=count, max_bytes=10**9), Store()
    for number in range(count):
        log.append(delta(number))
        if stored and log.unstored_count == 500:
            store.checkpoint(log)
    log.finish([], stored=True)

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    stream = replay("run_1", 0, only_seq, store.read) if stored else log.follow(0, only_seq, store.read)
    longest, before, seen = 0, 0, 0
    async for chunk in stream:
        longest, seen = max(longest, chunk.count(b",")), seen + chunk.count(b",")
        assert turns > before or seen == chunk.count(b","), "two pieces without a turn for the others"
        before = turns
    beside.cancel()
    assert seen == count
    assert longest <= 2_000


@pytest.mark.parametrize("stored", [False, True])
async def test_a_piece_is_bounded_in_bytes(stored: bool) -> None:
    log, store = make(max_events=100, max_bytes=10**8), Store()
    for _ in range(50):
        log.append(ev.TextDelta(part_id="p1", text="x" * 100_000))
    if stored:
        store.checkpoint(log)
    log.finish([], stored=True)
    stream = replay("run_1", 0, only_seq_padded, store.read) if stored else log.follow(0, only_seq, store.read)
    pieces = [seqs(chunk) async for chunk in stream]
    assert [seq for piece in pieces for seq in piece] == list(range(1, 51))
    assert max(map(len, pieces)) <= 3
