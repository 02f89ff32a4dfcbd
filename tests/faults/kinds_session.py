"""Faults of sessions: the same request twice, a message while another is being answered, a stop."""

import asyncio
from typing import Any, cast

from tests.faults import checks
from tests.faults.client import Event, Stream, text_of
from tests.faults.lane import Lane
from tests.faults.provider import answer, pieces
from tests.support.provider_protocol import Gate, Stall

_CANCEL_SECONDS = 1.0
"""docs: a stop has reached the provider within a second."""


async def repeated_post(lane: Lane) -> None:
    """The same POST again, at once and after the end: the same run, the same bytes, one call of the provider."""
    rng, client = lane.rng, lane.client
    message = lane.message("repeat")
    count = rng.randint(2, 9)
    lane.provider.scripts[message] = [answer(pieces(rng, count), rng.choice([0, 0.001, 0.005]))]
    times = rng.randint(2, 6)
    streams = await asyncio.gather(*(client.ask(message, message) for _ in range(times)))
    run_id = streams[0].run_id
    leaver = streams[rng.randrange(times)]
    leaver.leave(reset=True)
    stayed = [await each.rest() for each in streams if each is not leaver]
    again = await (await client.ask(message, message)).rest()
    checks.whole(again, run_id)
    for events in stayed:
        checks.same("a repeated POST", events, again)
    refused = await client.request(
        "POST", "/chat", {"message": f"{message}!", "documents": False}, {"Idempotency-Key": message}
    )
    problem = await refused.json()
    checks.expect("status", problem.get("code") == "idempotency_key_reused", f"another body, the same key: {problem}")
    calls = len(lane.provider.asked[message])
    checks.expect("repeated_run", {s.run_id for s in streams} == {run_id} and calls == 1, f"{calls} calls for one key")
    lane.faults += times + 1
    await checks.kept(client, again, message)


async def busy(lane: Lane) -> None:
    """Messages come while the session still answers: refused, queued or in place of it; the history stays linear."""
    rng, client = lane.rng, lane.client
    how = ("reject", "queue", "replace")[lane.index % 3]
    gate = asyncio.Event()
    first, others = lane.message("first"), [lane.message(f"other {i}") for i in range(rng.randint(3, 7))]
    lane.provider.scripts[first] = [answer(pieces(rng, 4), before=[Gate(gate)])]
    for message in others:
        lane.provider.scripts[message] = [answer(pieces(rng, rng.randint(1, 4)), rng.choice([0, 0.002]))]
    running = await client.ask(first)
    await running.upto(1)
    session_id = running.events[0].data["session_id"]
    asked = [asyncio.create_task(_busy(lane, m, session_id, how)) for m in others]
    if how == "reject":
        answers = await asyncio.gather(*asked)
        gate.set()
    else:
        await asyncio.sleep(rng.choice([0, 0.01]))
        gate.set()
        answers = await asyncio.gather(*asked)
    ended = [await running.rest(), *[await a.rest() for a in answers if isinstance(a, Stream)]]
    for events in ended:
        end = checks.whole(events, events[0].data["run_id"])
        expected = ("run.completed", "run.cancelled") if how == "replace" else ("run.completed",)
        checks.expect("status", end.type in expected, f"{how}: {end.data}")
    for refused in (a for a in answers if not isinstance(a, Stream)):
        good = how == "reject" and refused["code"] == "session_busy" and refused["run_id"] == running.run_id
        checks.expect("status", good, f"{how}: {refused}")
    await _linear(lane, session_id, ended)
    lane.faults += len(others)


async def _busy(lane: Lane, message: str, session_id: str, how: str) -> Stream | dict[str, Any]:
    body = {"message": message, "documents": False, "session_id": session_id, "if_busy": how}
    response = await lane.client.request("POST", "/chat", body)
    return Stream(response) if response.status == 200 else cast("dict[str, Any]", await response.json())


async def _linear(lane: Lane, session_id: str, ended: list[list[Event]]) -> None:
    """One path without branches: each message was answered, each answer is what its stream said."""
    path = list((await checks.messages(lane.client, session_id)).values())
    everything = await lane.client.json("GET", f"/sessions/{session_id}/messages?branches=true")
    parents = [m.get("parent_id") for m in path]
    linear = parents == [None, *(m["id"] for m in path[:-1])] and len(everything["items"]) == len(path)
    roles = [m["role"] for m in path]
    checks.expect(
        "history", linear and roles == ["user", "assistant"] * len(ended), f"{roles} after {len(ended)} turns"
    )
    stored = {m["id"]: checks.said(m) for m in path}
    for events in ended:
        told = text_of(events)
        answer_id = events[0].data["message_id"]
        checks.expect("partial", stored.get(answer_id) == told, f"{told!r} is stored as {stored.get(answer_id)!r}")


async def cancel(lane: Lane) -> None:
    """Stops at event k, for every k, some of them just when the answer ends: one end, and the provider is let go."""
    count = lane.rng.randint(4, 8)
    await asyncio.gather(*(_cancel_at(lane, k, count) for k in range(count + 4)))


async def _cancel_at(lane: Lane, k: int, count: int) -> None:
    rng, client = lane.rng, lane.client
    message = lane.message(f"stop at {k}")
    texts = pieces(rng, count)
    whole = answer(texts, rng.choice([0, 0.002, 0.005]))
    endless = rng.random() < 0.5
    lane.provider.scripts[message] = [[*whole[:-3], Stall()] if endless else whole]
    times, pause = rng.randint(1, 3), rng.choice([0, 0, 0.002])
    stream = await client.ask(message)
    await stream.upto(min(k, 3) if endless else k)
    await asyncio.sleep(pause)
    stopped = await asyncio.gather(*(client.json("POST", f"/runs/{stream.run_id}/cancel") for _ in range(times)))
    for call in lane.provider.asked[message]:
        try:
            await call._ended(_CANCEL_SECONDS)
        except AssertionError:
            raise checks.Violation("cancel", f"the provider was not let go within {_CANCEL_SECONDS:g} s") from None
    events = await stream.rest()
    end = checks.whole(events, stream.run_id)
    status = end.type.removeprefix("run.")
    checks.expect("status", all(s["status"] == status for s in stopped), f"{stopped} after {end.type}")
    allowed = ("cancelled",) if endless else ("cancelled", "completed")
    checks.expect("status", status in allowed, f"a stopped run is {status}")
    told = text_of(events)
    checks.expect("partial", "".join(texts).startswith(told), f"{told!r} is no beginning of {texts}")
    counted = any(e.type == "usage" for e in events)
    checks.expect("usage", counted or not told, f"{stream.run_id} told {told!r} and counted nothing")
    lane.faults += 1
    await checks.kept(client, events, message)
