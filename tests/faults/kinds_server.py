"""Faults under the server and of itself: storage that fails, a request to stop. The kills are in `kill9`."""

import asyncio
from contextlib import suppress

from tests.faults import checks
from tests.faults.client import Stream, text_of
from tests.faults.lane import Lane
from tests.faults.provider import answer, pieces
from tests.support.provider_protocol import Stall

_STORAGE_POINTS = tuple(f"{op}.{step}" for op in ("open", "checkpoint", "close") for step in ("begin", "written"))
_ERRORS = ("locked", "full", "broken")
_EXPECTED = {"locked": (503, "storage_busy"), "full": (507, "storage_full"), "broken": (507, "storage_full")}


async def storage_fault(lane: Lane) -> None:
    """The database is locked, the disk full or broken, at one of a run's writes."""
    for n in range(6):
        rng = lane.rng
        point, action = rng.choice(_STORAGE_POINTS), rng.choice(_ERRORS)
        message = lane.message(f"{n} {point} {action}")
        lane.provider.scripts[message] = [answer(pieces(rng, rng.randint(2, 8)), rng.choice([0.002, 0.01]))]
        await lane.server.arm(point, 1, times=rng.randint(1, 2), action=action)
        match point.partition(".")[0]:
            case "open":
                await _not_opened(lane, message, action)
            case "checkpoint":
                # Its commit may hold the run's end as well.
                await _ended(lane, message, ("run.completed", "run.failed"))
            case _:
                await _ended(lane, message, ("run.failed",))
        await lane.server.disarm()
        checks.expect("failpoint", point in lane.server.hits or "checkpoint" in point, f"{point} was never reached")
        lane.faults += point in lane.server.hits
        lane.server.hits.clear()


async def _not_opened(lane: Lane, message: str, action: str) -> None:
    """Refused with what is wrong, and nothing stored: the same POST later is the first."""
    client = lane.client
    body = {"message": message, "documents": False}
    response = await client.request("POST", "/chat", body, {"Idempotency-Key": message})
    problem = await response.json()
    checks.expect("status", (response.status, problem["code"]) == _EXPECTED[action], f"{response.status} {problem}")
    checks.expect("stored", await _times_stored(lane, message) == 0, f"{message!r} was refused and stored")
    await lane.server.disarm()
    events = await (await client.ask(message, message)).rest()
    checks.whole(events, events[0].data["run_id"])
    checks.expect("stored", await _times_stored(lane, message) == 1, f"{message!r} is not stored once")
    await checks.kept(client, events, message)


async def _times_stored(lane: Lane, message: str) -> int:
    found = await lane.client.json("GET", "/sessions?limit=20")
    return sum(s["title"] == message for s in found["items"])


async def _ended(lane: Lane, message: str, types: tuple[str, ...]) -> None:
    stream = await lane.client.ask(message)
    events = await stream.rest()
    end = checks.whole(events, stream.run_id)
    checks.expect("false_completion", end.type in types, f"{message}: {end.data}")
    if end.type == "run.failed":
        checks.expect("status", end.data["error"]["code"] == "not_saved", f"{message}: {end.data}")
        await lane.settled()  # stored late, once the disk is there again
    await checks.kept(lane.client, events, message)


async def sigterm(lane: Lane) -> None:
    """The server is asked to stop while it streams: one end for each stream, nothing new, exit 0, all of it stored."""
    rng, client = lane.rng, lane.client
    streams: dict[str, Stream] = {}
    for n in range(rng.randint(1, 6)):
        message = lane.message(n)
        texts = pieces(rng, rng.randint(1, 12))
        whole = answer(texts, rng.choice([0.002, 0.01]))
        lane.provider.scripts[message] = [whole if rng.random() < 0.5 else [*whole[:-3], Stall()]]
        streams[message] = await client.ask(message)
    await asyncio.gather(*(s.upto(rng.randint(0, 3)) for s in streams.values()))
    lane.server.terminate()
    reading = asyncio.gather(*(s.rest() for s in streams.values()))
    await _refused_while_stopping(lane)
    ended = await reading
    await lane.server.stopped()
    for message, events in zip(streams, ended, strict=True):
        end = checks.whole(events, streams[message].run_id)
        code = end.data.get("error", {}).get("code")
        good = end.type == "run.completed" or code == "shutdown"
        checks.expect("status", good, f"{message}: {end.data} after SIGTERM with {text_of(events)!r}")
    lane.faults += 1
    await lane.server.start()
    for message, events in zip(streams, ended, strict=True):
        await checks.kept(lane.client, events, message)


async def _refused_while_stopping(lane: Lane) -> None:
    """A new message is refused with 503, or finds the port closed; it may also have come before the signal did."""
    message = lane.message("too late")
    lane.provider.scripts[message] = [answer(["late"])]
    body = {"message": message, "documents": False}
    with suppress(ConnectionError):
        response = await lane.client.request("POST", "/chat", body)
        if response.status == 200:
            checks.terminal(await Stream(response).rest())
            return
        problem = await response.json()
        again = "retry-after" in response.headers
        checks.expect("status", response.status == 503 and again, f"{response.status} {problem} {response.headers}")
