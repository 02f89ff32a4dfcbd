"""The hub: cursors, and what it does when storage is gone for so long that memory is full."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend import events as ev
from backend.config.groups.runs import RunSettings
from backend.errors import BadRequest, TooManyRuns, Unavailable
from backend.kit.ids import new_id
from backend.routers.answers.cursor import parse_cursor
from backend.routers.dialects.events import DIALECT
from backend.services.runs.hub import RunHub
from backend.services.runs.keep import LEASE_MS
from backend.services.runs.log import MemoryLog
from backend.services.runs.run import Run
from backend.storage.engine.database import Database
from backend.storage.runs.turns import NewTurn, Turns

RUN = "run_0193"


@given(st.integers(0, 10**14))
def test_a_cursor_is_the_id_of_an_event(seq: int) -> None:
    assert parse_cursor(RUN, f"{RUN}:{seq}", None) == seq
    assert parse_cursor(RUN, None, str(seq)) == seq
    assert parse_cursor(RUN, f"{RUN}:{seq}", "999") == seq


@given(st.text(max_size=30))
def test_anything_else_is_refused_and_nothing_else_is_raised(text: str) -> None:
    for given_ in ((text, None), (f"{RUN}:{text}", None), (None, text)):
        try:
            seq = parse_cursor(RUN, *given_)
        except BadRequest as error:
            assert error.code == "bad_cursor"
        else:
            assert str(seq) == (given_[1] or str(given_[0]).rpartition(":")[2]).lstrip("0") or seq == 0


@pytest.fixture
async def turns(tmp_path: Path) -> AsyncIterator[Turns]:
    database = Database(tmp_path / "test.db")
    yield Turns(database)
    await database.close()


async def started(turns: Turns, hub: RunHub, body: Any) -> Run:
    """A run of this hub, stored as the chat service stores it."""
    ids: dict[str, Any] = {k: new_id("x") for k in ("run_id", "user_message_id", "message_id")}
    session = new_id("ses")
    await turns.open(
        NewTurn(
            owner="local",
            session_id=session,
            title="Test",
            parts="[]",
            model="test/model",
            instance_id=hub.instance_id,
            lease_ms=LEASE_MS,
            **ids,
        )
    )
    hub.reserve()
    return hub.start("local", ev.RunStarted(session_id=session, model="test/model", v=1, **ids), body, "req")


def hub_of(turns: Turns, **settings: Any) -> RunHub:
    return RunHub(turns, RunSettings(**{"checkpoint_seconds": 60, **settings}), 24, lambda usage: None)


async def seqs(hub: RunHub, run_id: str, after: int = 0) -> list[int]:
    """The seqs that a watcher is given until the end of the run."""
    stream = await hub.follow("local", run_id, after, DIALECT)
    assert stream is not None
    body = b"".join([chunk async for chunk in stream])
    return [int(frame.split(b"\n")[1].rpartition(b":")[2]) for frame in body.split(b"\n\n") if frame]


async def chatter(run: Run, words: int) -> str:
    run.emit(ev.TextStart(part_id="p1"))
    for number in range(words):
        run.emit(ev.TextDelta(part_id="p1", text=f"{number} "))
        await asyncio.sleep(0)
    run.emit(ev.TextEnd(part_id="p1"))
    return "stop"


async def test_storage_gone_and_the_tail_full_ends_the_run(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: object) -> None:
        raise Unavailable("gone", code="storage_busy")

    hub = hub_of(turns, log_tail_events=100, checkpoint_events=10)
    await hub.open()
    monkeypatch.setattr(Turns, "append", gone)
    run = await started(turns, hub, lambda r: chatter(r, 5_000))
    seen = await asyncio.wait_for(seqs(hub, run.id), 10)
    assert isinstance(run.state.terminal, ev.RunFailed)
    assert run.state.terminal.error.code == "not_saved"
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) <= 103, "memory is bounded"
    await hub.close(0)


async def test_a_long_run_is_trimmed_and_a_late_watcher_sees_it_all(turns: Turns) -> None:
    hub = hub_of(turns, log_tail_events=100, checkpoint_events=10)
    await hub.open()
    halfway, go = asyncio.Event(), asyncio.Event()

    async def body(run: Run) -> str:
        run.emit(ev.TextStart(part_id="p1"))
        for number in range(600):
            run.emit(ev.TextDelta(part_id="p1", text=f"{number} "))
            while run.log.unstored_count > 50:
                await asyncio.sleep(0.001)
            if number == 400:
                halfway.set()
                await go.wait()
        run.emit(ev.TextEnd(part_id="p1"))
        return "stop"

    run = await started(turns, hub, body)
    await asyncio.wait_for(halfway.wait(), 20)
    assert isinstance(run.log, MemoryLog)
    assert len(run.log._tail) <= 150, "what is stored may leave memory"
    late = asyncio.create_task(seqs(hub, run.id))
    behind = asyncio.create_task(seqs(hub, run.id, after=17))
    go.set()
    whole = await asyncio.wait_for(late, 20)
    assert whole == list(range(1, 605))
    assert await behind == whole[17:]
    assert await seqs(hub, run.id) == whole, "stored as it was live"
    await hub.close(0)


async def test_a_storage_that_is_gone_is_not_asked_at_every_event(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def gone(*_: object) -> None:
        nonlocal asked
        asked += 1
        raise Unavailable("gone", code="storage_busy")

    hub = hub_of(turns, log_tail_events=2_000, checkpoint_events=10)
    await hub.open()
    with monkeypatch.context() as patch:
        patch.setattr(Turns, "append", gone)
        run = await started(turns, hub, lambda r: chatter(r, 1_500))
        await asyncio.wait_for(run.log.wait_for_end(), 10)
    assert 1 <= asked <= 10
    assert isinstance(run.state.terminal, ev.RunCompleted), "it was back in time for the end"
    await hub.close(0)


async def test_places_are_given_back_however_a_run_ends(turns: Turns) -> None:
    hub = hub_of(turns, max_runs=1)
    await hub.open()

    async def crash(_: Run) -> str:
        raise RuntimeError("a fault of ours")

    async def wait(_: Run) -> str:
        await asyncio.Event().wait()
        return "never"

    for body, code in ((crash, "internal"), (wait, None)):
        run = await started(turns, hub, body)
        with pytest.raises(TooManyRuns):
            hub.reserve()
        if code is None:
            run.cancel("user")
        await asyncio.wait_for(run.log.wait_for_end(), 5)
        terminal = run.state.terminal
        assert isinstance(terminal, ev.RunCancelled if code is None else ev.RunFailed)
        assert "a fault of ours" not in ev.encode(terminal).decode()
    hub.reserve()
    hub.release()
    await hub.close(0)
    with pytest.raises(Unavailable):
        hub.reserve()


async def test_runs_of_somebody_else_are_not_there(turns: Turns) -> None:
    hub = hub_of(turns)
    await hub.open()
    run = await started(turns, hub, lambda r: chatter(r, 3))
    assert hub.live("eve", run.id) is None
    await run.log.wait_for_end()
    for call in (hub.follow("eve", run.id, 0, DIALECT), hub.outcome("eve", run.id), hub.stored("eve", run.id)):
        with pytest.raises(Exception, match="No such run"):
            await call
    await hub.close(0)


async def test_a_client_that_saw_an_unsaved_run_is_not_ahead_after_a_crash(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage was gone for more events than recovery jumps over, and did not come back before the process died."""

    async def gone(*_: object) -> None:
        raise Unavailable("gone", code="storage_busy")

    hub = hub_of(turns, log_tail_events=2_000)
    await hub.open()
    with monkeypatch.context() as patch:
        patch.setattr(Turns, "append", gone)
        patch.setattr(Turns, "close", gone)
        run = await started(turns, hub, lambda r: chatter(r, 1_500))
        last = (await asyncio.wait_for(seqs(hub, run.id), 10))[-1]
        await hub.close(0)
    after = hub_of(turns)
    await after.open()
    again = await after.follow("local", run.id, last, DIALECT)
    assert again is None or [c async for c in again], "it is told what became of the run"
    await after.close(0)
