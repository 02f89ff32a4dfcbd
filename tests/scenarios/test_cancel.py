"""Leaving does not stop a run, cancelling does; each run ends once."""

import asyncio
import time
from typing import cast

import pytest

from backend.services.runs.log import MemoryLog
from tests.scenarios.support import ask, gated, messages, only_terminal, ordered, rows, said, watch
from tests.support.harness import Running, text_of
from tests.support.provider_protocol import Sleep, Stall, answer, chunk
from tests.support.provider_server import ProviderServer


async def test_leaving_does_not_stop_the_run(with_provider: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("Hello there", gate, " my friend."))
    client = with_provider.client
    async with watch(client, body=ask()) as first:
        await first.text("there")
    gate.set()
    async with watch(client, f"/runs/{first.run_id}/events") as second:
        ordered(await second.all())
    await (await provider.call(0)).answered()
    stored = await messages(with_provider, first.session_id)
    assert [(m["status"], said(m)) for m in stored] == [
        ("complete", "Say something."),
        ("complete", "Hello there my friend."),
    ]


async def test_leaving_leaves_nothing_behind(with_provider: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("Hello there", gate, " my friend."))
    async with watch(with_provider.client, body=ask()) as first:
        await first.text("there")
        before = {t.get_name() for t in asyncio.all_tasks()}
        for _ in range(5):
            async with watch(with_provider.client, f"/runs/{first.run_id}/events") as other:
                await other.text("there")
        run = with_provider.services.runs.hub.live("local", first.run_id)
        assert run is not None
        async with asyncio.timeout(5):
            while len(cast(MemoryLog, run.log)._waiters) > 1:
                await asyncio.sleep(0.01)
        gate.set()
        await first.all()
    assert with_provider.services.runs.hub.live("local", first.run_id) is None
    assert f"run {first.run_id}" in before
    assert not [t for t in asyncio.all_tasks() if t.get_name() == f"run {first.run_id}"]


async def test_cancel_closes_the_upstream_and_keeps_what_came(with_provider: Running, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "Half an "}), chunk({"content": "answer"}), Stall()])
    async with watch(with_provider.client, body=ask()) as client:
        await client.text("answer")
        cancelled = await with_provider.client.post(f"/runs/{client.run_id}/cancel")
        assert cancelled.json() == {"id": client.run_id, "status": "cancelled"}
        events = await client.all()
    await (await provider.call(0)).disconnected()
    ordered(events)
    end = only_terminal(events)
    assert (end["type"], end["by"]) == ("run.cancelled", "user")
    stored = (await messages(with_provider, client.session_id))[1]
    assert (stored["status"], said(stored)) == ("cancelled", "Half an answer")
    run = (await with_provider.client.get(f"/runs/{client.run_id}")).json()
    assert run["status"] == "cancelled"
    assert run["finished_at"]


async def test_a_cancelled_answer_keeps_its_usage(with_provider: Running, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "A dozen words or so came before somebody stopped the answer"}), Stall()])
    async with watch(with_provider.client, body=ask()) as client:
        await client.text("stopped")
        await with_provider.client.post(f"/runs/{client.run_id}/cancel")
        end = only_terminal(await client.all())
    assert end["usage"]["output_tokens"] > 0, "what was generated was paid for"
    assert end["usage"]["estimated"] is True


async def test_a_cancel_is_not_swallowed_by_a_token_of_the_same_moment(
    with_provider: Running, provider: ProviderServer
) -> None:
    """The loop is blocked while tokens arrive, then cancels: both fall into one turn. What waits for a token with a
    timeout of its own (`asyncio.wait_for` on Python 3.11) gives the token and forgets the cancel."""
    hub = with_provider.services.runs.hub
    tokens = [step for n in range(200) for step in (chunk({"content": f"{n} "}), Sleep(0.003))]
    for number in range(25):
        provider.script(tokens)
        async with watch(with_provider.client, body=ask()) as client:
            await client.text("3 ")
            run = hub.live("local", client.run_id)
            assert run is not None
            await asyncio.sleep(0.0007 * (number % 5))
            time.sleep(0.005)
            run.cancel("user")
            await (await provider.call(number)).disconnected(timeout=0.5)
            assert only_terminal(await client.all(timeout=1))["type"] == "run.cancelled"


async def test_cancel_is_idempotent(with_provider: Running, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "Half"}), Stall()])
    async with watch(with_provider.client, body=ask()) as client:
        await client.text("Half")
        path = f"/runs/{client.run_id}/cancel"
        answers = await asyncio.gather(*(with_provider.client.post(path) for _ in range(10)))
        answers.append(await with_provider.client.post(path))
        only_terminal(await client.all())
    assert {(a.status_code, a.json()["status"]) for a in answers} == {(200, "cancelled")}


async def test_cancel_of_a_finished_run_changes_nothing(server: Running) -> None:
    events = await server.events(ask(model="simulated/words"))
    run_id = events[0]["run_id"]
    response = await server.client.post(f"/runs/{run_id}/cancel")
    assert response.json() == {"id": run_id, "status": "completed"}
    async with watch(server.client, f"/runs/{run_id}/events") as again:
        assert await again.all() == events


async def test_cancel_before_the_provider_answered(with_provider: Running, provider: ProviderServer) -> None:
    provider.script([Stall()])
    async with watch(with_provider.client, body=ask()) as client:
        call = await provider.call(0)
        await with_provider.client.post(f"/runs/{client.run_id}/cancel")
        events = await client.all()
    await call.disconnected()
    assert only_terminal(events)["type"] == "run.cancelled"
    stored = await messages(with_provider, events[0]["session_id"])
    assert [(m["role"], m["status"], said(m)) for m in stored] == [
        ("user", "complete", "Say something."),
        ("assistant", "cancelled", ""),
    ]


async def test_cancel_before_the_task_has_begun_ends_the_run(server: Running) -> None:
    """The hub is asked in the same breath in which the run was started."""
    hub = server.services.runs.hub
    start = hub.start

    def start_and_cancel(*args, **kwargs):
        run = start(*args, **kwargs)
        run.cancel("user")
        return run

    hub.start = start_and_cancel
    events = await server.events(ask(model="simulated/words"))
    assert [e["type"] for e in events] == ["run.started", "run.cancelled"]


async def test_cancel_races_completion(server: Running) -> None:
    """Whoever is first wins, and there is one end; what is stored agrees with what was streamed."""
    ends: set[str] = set()
    body = ask(model="simulated/words", max_tokens=6)
    for number in range(60):
        async with watch(server.client, body=body) as client:
            for _ in range(number):
                await asyncio.sleep(0)
            cancelled = await server.client.post(f"/runs/{client.run_id}/cancel")
            events = await client.all()
        end = only_terminal(events)
        ends.add(end["type"])
        status = end["type"].removeprefix("run.")
        assert cancelled.json()["status"] == status
        answered = (await messages(server, client.session_id))[1]
        assert answered["status"] == {"completed": "complete"}.get(status, status)
        assert said(answered) == text_of(events)
    assert rows(server, "SELECT count(*) FROM runs WHERE status = 'running'") == [(0,)]


async def test_cancel_at_every_event_has_one_end(server: Running) -> None:
    """Straight at the hub, right after every event of the run, the last one too."""
    hub = server.services.runs.hub
    ends: list[str] = []
    for at in range(1, 14):
        start = hub.start

        def watched(owner, started, body, request_id, on_disconnect=None, at=at, start=start):
            async def cancelled_at(run):
                emit = run.emit

                def emit_and_cancel(event):
                    emit(event)
                    if run.log.head == at:
                        asyncio.get_running_loop().call_soon(run.cancel, "user")

                return await body(_Emitting(run, emit_and_cancel))

            return start(owner, started, cancelled_at, request_id, on_disconnect)

        hub.start = watched
        try:
            events = await server.events(ask(model="simulated/words", max_tokens=5))
        finally:
            hub.start = start
        ordered(events)
        ends.append(events[-1]["type"])
    assert set(ends) == {"run.cancelled", "run.completed"}


class _Emitting:
    """A run whose `emit` is another one."""

    def __init__(self, run, emit) -> None:
        self._run = run
        self.emit = emit

    def __getattr__(self, name):
        return getattr(self._run, name)


async def test_active_run_of_a_session(with_provider: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("Hello", gate, " you"))
    async with watch(with_provider.client, body=ask()) as client:
        await client.text("Hello")
        path = f"/sessions/{client.session_id}/active"
        assert (await with_provider.client.get(path)).json() == {"run_id": client.run_id}
        gate.set()
        await client.all()
    assert (await with_provider.client.get(path)).json() == {"run_id": None}
    assert (await with_provider.client.get("/sessions/ses_none/active")).status_code == 404


async def test_deleting_a_session_cancels_its_run_and_leaves_nothing(
    with_provider: Running, provider: ProviderServer
) -> None:
    provider.script(answer("First."), [chunk({"content": "Half an"}), Stall()])
    first = await with_provider.events(ask())
    session_id = first[0]["session_id"]
    async with watch(with_provider.client, body=ask(session_id=session_id)) as client:
        await client.text("Half")
        assert rows(with_provider, "SELECT count(*) FROM runs") == [(2,)]
        deleted = await with_provider.client.delete(f"/sessions/{session_id}")
        assert deleted.status_code == 204
        end = only_terminal(await client.all())
    assert (end["type"], end["by"]) == ("run.cancelled", "session_deleted")
    await (await provider.call(1)).disconnected()
    for table in ("sessions", "messages", "runs", "run_events"):
        assert rows(with_provider, f"SELECT count(*) FROM {table}") == [(0,)], table
    for path in (f"/runs/{client.run_id}", f"/runs/{client.run_id}/events", f"/sessions/{session_id}"):
        assert (await with_provider.client.get(path)).status_code == 404


async def test_deleting_a_session_ends_those_who_wait_in_it(with_provider: Running, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "Half"}), Stall()])
    async with watch(with_provider.client, body=ask()) as first:
        await first.text("Half")
        body = ask(session_id=first.session_id, if_busy="queue")
        async with watch(with_provider.client, body=body) as second:
            await second.until("status")
            assert (await with_provider.client.delete(f"/sessions/{first.session_id}")).status_code == 204
            for client in (first, second):
                assert only_terminal(await client.all())["by"] == "session_deleted"
    assert len(provider.calls) == 1
    assert rows(with_provider, "SELECT count(*) FROM run_events") == [(0,)]


@pytest.mark.parametrize("checkpointed", [True, False])
async def test_deleting_while_a_checkpoint_is_under_way(
    with_provider: Running, provider: ProviderServer, checkpointed: bool
) -> None:
    provider.script([chunk({"content": "Half"}), Stall()])
    async with watch(with_provider.client, body=ask()) as client:
        await client.text("Half")
        hub = with_provider.services.runs.hub
        delete = asyncio.create_task(with_provider.client.delete(f"/sessions/{client.session_id}"))
        if checkpointed:
            await hub._keeper.checkpoint()
        await delete
        await hub._keeper.checkpoint()
        await client.all()
    assert rows(with_provider, "SELECT count(*) FROM run_events") == [(0,)]
