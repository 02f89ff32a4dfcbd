"""kill -9 at any point: what was acknowledged is there, and no run is stuck.

One server is killed once, with runs in every state; each test looks at what became of one of them.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from tests.scenarios.processes import Process, process, using
from tests.scenarios.support import Event, ask, rows, said, watch
from tests.support.provider_protocol import Gate, Stall, answer, chunk
from tests.support.provider_server import ProviderServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

GAP = 1_001
QUESTION = "Is this kept?"


@dataclass
class Crash:
    """The server, started again after the kill, and what its clients held before: events by name of the run."""

    running: Process
    provider: ProviderServer
    held: dict[str, list[Event]] = field(default_factory=dict)
    finished: bytes = b""

    def run_id(self, name: str) -> str:
        return self.held[name][0]["run_id"]

    def session_id(self, name: str) -> str:
        return self.held[name][0]["session_id"]

    async def events(self, name: str, after: str | None = None) -> list[Event]:
        headers = {"Last-Event-ID": after} if after else {}
        async with watch(self.running.client, f"/runs/{self.run_id(name)}/events", headers=headers) as client:
            return await client.all()

    async def messages(self, name: str) -> list[dict[str, Any]]:
        return (await self.running.client.get(f"/sessions/{self.session_id(name)}/messages")).json()["items"]

    def stored_before(self, name: str) -> int:
        """The last seq that was in the database when the server died."""
        sql = "SELECT coalesce(max(last_seq), 0) FROM run_events WHERE run_id = ? AND first_seq < ?"
        return rows(self.running.database, sql, self.run_id(name), GAP)[0][0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crash(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Crash]:
    step, gate = asyncio.Event(), asyncio.Event()
    env = {"CHECKPOINT_SECONDS": "60", "CHECKPOINT_EVENTS": "5"}
    async with (
        ProviderServer() as provider,
        process(tmp_path_factory.mktemp("crash") / "data", using(provider, **env)) as running,
    ):
        known = Crash(running, provider)
        provider.script(
            answer("All of this is stored, Grüße 🌍."),
            # Three events and two words, each sent when the one before was seen, are the five that make a checkpoint.
            [
                chunk({"content": "w15 "}),
                Gate(step),
                chunk({"content": "w16 "}),
                Gate(gate),
                chunk({"content": "unstored"}),
                Stall(),
            ],
            [chunk({"content": "Gone"}), Stall()],
            [Stall()],
        )
        async with running.client.stream("POST", "/chat", json=ask()) as response:
            known.finished = b"".join([piece async for piece in response.aiter_raw()])
            path = response.headers["location"]
        async with watch(running.client, path) as client:
            known.held["finished"] = await client.all()
        async with (
            watch(running.client, body=ask(QUESTION)) as streaming,
        ):
            await streaming.text("w15")
            step.set()
            await streaming.text("w16")
            await running.stored(streaming.run_id, 5)
            gate.set()
            await streaming.text("unstored")
            known.held["streaming"] = list(streaming.events)
            async with watch(running.client, body=ask(QUESTION)) as early:
                await early.text("Gone")
                known.held["early"] = list(early.events)
                async with watch(running.client, body=ask("First?")) as first:
                    await first.until("status")
                    known.held["first"] = list(first.events)
                    body = ask("Second?", session_id=first.session_id, if_busy="queue")
                    async with running.client.stream("POST", "/chat", json=body) as response:
                        assert response.status_code == 200  # the response's head is the acknowledgement
                        running.server.kill()
        await running.start()
        yield known


async def test_every_run_has_ended(crash: Crash) -> None:
    found = rows(crash.running.database, "SELECT status, count(*) FROM runs GROUP BY status ORDER BY status")
    assert found == [("completed", 1), ("failed", 4)]
    for name in ("streaming", "early", "first"):
        run = (await crash.running.client.get(f"/runs/{crash.run_id(name)}")).json()
        assert (run["status"], run["error"]["code"], run["error"]["retryable"]) == ("failed", "server_restarted", True)
        active = await crash.running.client.get(f"/sessions/{crash.session_id(name)}/active")
        assert active.json() == {"run_id": None}


async def test_what_was_stored_replays_then_a_snapshot_and_the_end(crash: Crash) -> None:
    held, stored = crash.held["streaming"], crash.stored_before("streaming")
    assert 5 == stored < len(held), "the client must be ahead of what was stored, or this tests nothing"
    *prefix, snapshot, end = await crash.events("streaming")
    assert prefix == held[:stored]
    assert (snapshot["type"], snapshot["seq"]) == ("snapshot", stored + GAP)
    assert (end["type"], end["seq"]) == ("run.failed", stored + GAP + 1)
    kept = "".join(e["text"] for e in prefix if e["type"] == "text.delta")
    (part,) = snapshot["parts"]
    assert (part["text"], part.get("open", False)) == (kept, False)
    for key in ("run_id", "session_id", "user_message_id", "message_id", "model", "v"):
        assert snapshot[key] == held[0][key]
    user, partial = await crash.messages("streaming")
    assert (user["status"], said(user)) == ("complete", QUESTION)
    assert (partial["status"], said(partial), partial["id"]) == ("partial", kept, held[0]["message_id"])


@pytest.mark.parametrize("name", ["streaming", "early", "first"])
async def test_no_client_is_told_that_it_is_ahead_or_done(crash: Crash, name: str) -> None:
    """Not even one that saw more than was stored."""
    unstored = crash.held[name][crash.stored_before(name) :]
    for event in unstored:
        assert [e["type"] for e in await crash.events(name, event["_id"])] == ["snapshot", "run.failed"]
    end = (await crash.events(name))[-1]
    path = f"/runs/{crash.run_id(name)}/events"
    done = await crash.running.client.get(path, headers={"Last-Event-ID": end["_id"]})
    assert done.status_code == 204


async def test_killed_before_the_first_checkpoint(crash: Crash) -> None:
    snapshot, end = await crash.events("early")
    assert (snapshot["type"], snapshot["seq"], snapshot["parts"]) == ("snapshot", GAP, [])
    assert end["error"]["code"] == "server_restarted"
    stored = await crash.messages("early")
    assert [(m["role"], m["status"], said(m)) for m in stored] == [
        ("user", "complete", QUESTION),
        ("assistant", "failed", ""),
    ]


async def test_a_message_that_waited_is_there_too(crash: Crash) -> None:
    stored = await crash.messages("first")
    assert [(m["status"], said(m)) for m in stored] == [
        ("complete", "First?"),
        ("failed", ""),
        ("complete", "Second?"),
        ("failed", ""),
    ]


async def test_a_finished_run_replays_byte_for_byte(crash: Crash) -> None:
    path = f"/runs/{crash.run_id('finished')}/events"
    assert (await crash.running.client.get(path)).content == crash.finished
    done = await crash.running.client.get(path, params={"after": len(crash.held["finished"])})
    assert done.status_code == 204


async def test_the_conversation_goes_on(crash: Crash) -> None:
    crash.provider.script(answer("Yes."))
    body = ask("Go on?", session_id=crash.session_id("streaming"))
    async with watch(crash.running.client, body=body) as client:
        assert (await client.all())[-1]["type"] == "run.completed"
    assert [m["role"] for m in await crash.messages("streaming")] == ["user", "assistant"] * 2
    assert crash.provider.calls[-1].json["messages"][-2]["role"] == "assistant"


async def test_killed_again_changes_nothing_more(crash: Crash) -> None:
    names = ("finished", "streaming", "early", "first")
    before = [await crash.events(name) for name in names]
    await crash.running.kill_and_start()
    assert [await crash.events(name) for name in names] == before
