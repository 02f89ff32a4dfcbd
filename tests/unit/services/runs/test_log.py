"""The log of a live run: bounded in memory, and every watcher sees every seq once."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from backend import events as ev
from backend.services.runs.log import MAX_UNSTORED, LogFull, RunLog, replay
from backend.storage.runs.events import EventLines


def make(max_events: int = 100, window: float = 0.0, max_bytes: int = 1_000_000) -> RunLog:
    return RunLog("run_1", window=window, max_events=max_events, max_bytes=max_bytes)


def delta(number: int) -> ev.TextDelta:
    return ev.TextDelta(part_id="p1", text=str(number))


def only_seq(run_id: str, seq: int, line: bytes) -> bytes:
    assert ev.decode(line).seq == seq
    return b"%d," % seq


class Store:
    """The database's part: what was checkpointed, a few rows at a time."""

    def __init__(self) -> None:
        self.rows: list[EventLines] = []
        self.reads = 0

    def checkpoint(self, log: RunLog) -> None:
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
    log, store = make(window=60.0), Store()
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
        if stored and log.unstored == 500:
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


def only_seq_padded(run_id: str, seq: int, line: bytes) -> bytes:
    """As long as the event, which is what counts."""
    return b"%d," % seq + b"," * len(line)
