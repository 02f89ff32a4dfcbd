"""kill -9 at every named failpoint, and the restart: nothing acknowledged is lost, no run stuck, no client misled."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

from tests.faults import checks
from tests.faults.client import TERMINAL, Event, Stream, joined, text_of
from tests.faults.failpoints import POINTS
from tests.faults.lane import Lane
from tests.faults.provider import answer, pieces, thinking
from tests.faults.violation import Violation
from tests.scenarios.support import rows
from tests.support.provider_protocol import Script, Stall

MAX_UNSTORED = 997
"""docs/protocol.md: a client is never shown more than so many events that are not stored."""
CHECKPOINT_SECONDS = 0.1
_LATE_SECONDS = 1.0
"""How much later than CHECKPOINT_SECONDS a checkpoint may be on a busy machine."""


@dataclass
class Sight:
    """What one client asked and saw until the server died."""

    message: str
    texts: list[str]
    stream: Stream | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        assert self.stream is not None
        return self.stream.run_id

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].type in TERMINAL


async def kill9(lane: Lane) -> None:
    """One kill, two where recovery is killed, at the point whose turn it is."""
    point = POINTS[lane.index % len(POINTS)]
    match point.partition(".")[0]:
        case "recover":
            await _at_recovery(lane, point)
        case "expire":
            await _at_expiry(lane, point)
        case "shutdown":
            await _at_shutdown(lane, point)
        case "after silence":
            await _after_silence(lane)
        case "in a flood":
            await _in_a_flood(lane)
        case "outside":
            await _outside(lane)
        case _:
            await _while_streaming(lane, point)


async def _while_streaming(lane: Lane, point: str) -> None:
    rng = lane.rng
    stop = rng.randint(1, 4) if point == "cancel.asked" else None
    sights = [_sight(lane, n, endless=stop is not None) for n in range(rng.randint(1, 4))]
    most = {"log": 8, "stream": 6, "checkpoint": 2}.get(point.partition(".")[0], len(sights))
    await lane.server.arm(point, rng.randint(1, most))
    await asyncio.gather(*(_watch(lane, sight, stop) for sight in sights))
    if not await lane.server.dead(0.1):
        point = "outside"  # the point was not passed so often
        await lane.server.kill()
    await _restarted(lane, sights, point)


async def _outside(lane: Lane) -> None:
    sights = [_sight(lane, n) for n in range(lane.rng.randint(1, 4))]
    watching = asyncio.gather(*(_watch(lane, sight) for sight in sights))
    await asyncio.sleep(lane.rng.uniform(0, 0.08))
    await lane.server.kill()
    await watching
    await _restarted(lane, sights, "outside")


async def _after_silence(lane: Lane) -> None:
    sights = [_sight(lane, n, endless=True) for n in range(lane.rng.randint(1, 3))]
    watching = asyncio.gather(*(_watch(lane, sight) for sight in sights))
    await asyncio.sleep(CHECKPOINT_SECONDS + _LATE_SECONDS + 0.3)
    killed = time.monotonic()
    await lane.server.kill()
    await watching
    await _restarted(lane, sights, "after silence", killed)


async def _in_a_flood(lane: Lane) -> None:
    """More events at once than may be shown while no checkpoint gets through."""
    rng = lane.rng
    sight = _sight(lane, 0)
    sight.texts = pieces(rng, rng.randint(500, 700))
    lane.provider.scripts[sight.message] = [[*thinking(sight.texts), Stall()]]
    await lane.server.arm("checkpoint.written", 1, times=9, action="delay", seconds=0.4)
    watching = asyncio.create_task(_watch(lane, sight))
    await asyncio.sleep(rng.uniform(0.05, 0.3))
    await lane.server.kill()
    await watching
    await _restarted(lane, [sight], "in a flood")


async def _at_recovery(lane: Lane, point: str) -> None:
    sights = [_sight(lane, n, endless=lane.rng.random() < 0.7) for n in range(lane.rng.randint(2, 4))]
    watching = asyncio.gather(*(_watch(lane, sight) for sight in sights))
    await asyncio.sleep(lane.rng.uniform(0.02, 0.1))
    await lane.server.kill()
    await watching
    _count(lane, "outside")
    armed = {"name": point, "nth": lane.rng.randint(1, 2) if point in ("recover.run", "recover.ended") else 1}
    if await lane.server.start(armed):
        point = "outside"  # fewer runs than that were left to recover
        await lane.server.kill()
    await _restarted(lane, sights, point)


async def _at_expiry(lane: Lane, point: str) -> None:
    """A finished log is being shortened: afterwards it is whole, verbatim or short."""
    sights = [_sight(lane, n) for n in range(lane.rng.randint(1, 3))]
    await asyncio.gather(*(_watch(lane, sight) for sight in sights))
    lane.server.terminate()
    await lane.server.stopped()
    nth = lane.rng.randint(1, len(sights))
    await lane.server.start({"name": point, "nth": nth}, event_retention_hours=1e-6)
    if not await lane.server.dead(2.0):
        raise Violation("failpoint", f"{point} was never reached")
    await _started_again(lane)
    _count(lane, point)
    for sight in sights:
        replay = await (await lane.client.watch(sight.run_id)).rest()
        end = checks.whole(replay, sight.run_id)
        if replay[0].type == "snapshot":
            checks.expect("gap", replay[0].seq == len(sight.events) + 1, f"snapshot at {replay[0].seq}")
            checks.expect("replay", _snapshot_text(replay[0]) == text_of(sight.events), f"{replay[0].data}")
            checks.expect("replay", end.type == sight.events[-1].type, f"{end.data}")
        else:
            checks.same("a log that was being shortened", replay, sight.events)
        await _nothing_after(lane, sight.run_id, sight.events[-1].id)


async def _at_shutdown(lane: Lane, point: str) -> None:
    sights = [_sight(lane, n, endless=lane.rng.random() < 0.5) for n in range(lane.rng.randint(1, 4))]
    watching = asyncio.gather(*(_watch(lane, sight) for sight in sights))
    await asyncio.sleep(lane.rng.uniform(0.01, 0.05))
    await lane.server.arm(point)
    lane.server.terminate()
    if not await lane.server.dead():
        raise Violation("failpoint", f"{point} was never reached")
    await watching
    await _restarted(lane, sights, point)


# --- clients


def _sight(lane: Lane, n: int, *, endless: bool = False) -> Sight:
    rng = lane.rng
    sight = Sight(lane.message(n), pieces(rng, rng.randint(1, 10)))
    script: Script = answer(sight.texts, rng.choice([0, 0.002, 0.01, 0.03]))
    lane.provider.scripts[sight.message] = [[*script[:-3], Stall()] if endless else script]
    return sight


async def _watch(lane: Lane, sight: Sight, stop: int | None = None) -> None:
    """Ask, and read until the end or the server's; stop the run after so many events."""
    with suppress(ConnectionError):
        sight.stream = await lane.client.ask(sight.message, sight.message)
        sight.events = sight.stream.events
        if stop is not None:
            await sight.stream.upto(stop)
            await lane.client.json("POST", f"/runs/{sight.run_id}/cancel")
        await sight.stream.rest()
    if sight.stream is not None:
        sight.stream.leave()


# --- after the kill


def _count(lane: Lane, point: str) -> None:
    lane.faults += 1
    lane.points[point] += 1


async def _started_again(lane: Lane) -> None:
    if not await lane.server.start():
        raise Violation("start", "killed although nothing was armed")


async def _restarted(lane: Lane, sights: list[Sight], point: str, killed: float | None = None) -> None:
    await _started_again(lane)
    _count(lane, point)
    live = rows(lane.server.database, "SELECT id, status FROM runs WHERE status IN ('queued', 'running')")
    checks.expect("stuck", not live, f"{live} after the restart")
    for sight in sights:
        if sight.stream is None:
            await _never_acknowledged(lane, sight)
        else:
            await _acknowledged(lane, sight, killed)


async def _never_acknowledged(lane: Lane, sight: Sight) -> None:
    """The client got no answer and asks again: whether the message had been stored or not, it is there once."""
    lane.provider.scripts[sight.message] = [answer(sight.texts)]
    events = await (await lane.client.ask(sight.message, sight.message)).rest()
    run_id = events[0].data["run_id"]
    checks.whole(events, run_id)
    stored = rows(lane.server.database, "SELECT id FROM messages WHERE parts LIKE ?", f'%"{sight.message}"%')
    checks.expect("lost_message", len(stored) == 1, f"{sight.message!r} is stored {len(stored)} times")


async def _acknowledged(lane: Lane, sight: Sight, killed: float | None) -> None:
    client, seen = lane.client, sight.events
    replay = await (await client.watch(sight.run_id)).rest()
    end = checks.whole(replay, sight.run_id)
    started = replay[0].data
    stored = await checks.messages(client, started["session_id"])
    asked = stored.get(started["user_message_id"])
    checks.expect(
        "lost_message", asked is not None and checks.said(asked) == sight.message, f"{sight.message}: {asked}"
    )
    active = await client.json("GET", f"/sessions/{started['session_id']}/active")
    checks.expect("stuck", active["run_id"] is None, f"{sight.run_id} is still active after the restart")
    kept = [e for e in replay if e.type != "snapshot"][: -1 if replay[-2].type == "snapshot" else None]
    if sight.ended and joined(replay) != joined(seen):
        raise Violation("early_terminal", f"{sight.run_id}: {seen[-1].data} was shown and is not what was stored")
    both = min(len(seen), len(kept))
    checks.same("what was stored before the kill", kept[:both], seen[:both])
    if len(kept) < len(replay):
        _recovered(sight, kept, replay[-2], end)
    told, answered = text_of(kept), stored.get(started["message_id"])
    checks.expect("partial", "".join(sight.texts).startswith(told) or _thought(replay), f"{told!r} of {sight.texts}")
    said = None if answered is None else checks.said(answered)
    checks.expect("partial", said == told, f"{sight.run_id} kept {told!r} and stored {said!r}")
    if killed is not None:
        due = [e for e in seen if e.at < killed - CHECKPOINT_SECONDS - _LATE_SECONDS]
        late = due[len(kept) :]
        checks.expect(
            "late_checkpoint", not late, f"{len(late)} events of {sight.run_id} were seen long before the kill"
        )
    cursor = seen[-1].seq if seen else 0
    checks.same(
        "what came after the client's cursor",
        await (await client.watch(sight.run_id, f"{sight.run_id}:{cursor}")).rest(),
        [e for e in replay if e.seq > cursor],
    )
    await _nothing_after(lane, sight.run_id, end.id)


def _recovered(sight: Sight, kept: list[Event], snapshot: Event, end: Event) -> None:
    """What recovery wrote: a snapshot of what was stored, ahead of whatever was shown, and why the run ended."""
    last_seen, last_kept = sight.events[-1].seq if sight.events else 0, len(kept)
    where = f"{sight.run_id}: {last_seen} seen, {last_kept} stored, snapshot at {snapshot.seq}"
    checks.expect("repeated_seq", snapshot.seq > last_seen, where)
    # Not only ahead of this client: of any that could have been.
    checks.expect("repeated_seq", snapshot.seq == last_kept + checks.RECOVERY_GAP, where)
    checks.expect("unstored", last_seen - last_kept <= MAX_UNSTORED, where)
    checks.expect("status", end.data.get("error", {}).get("code") == "server_restarted", f"{end.data}")
    checks.expect("replay", _snapshot_text(snapshot) == text_of(kept), f"{snapshot.data} of {text_of(kept)!r}")


def _snapshot_text(snapshot: Event) -> str:
    return "".join(p["text"] for p in snapshot.data.get("parts", ()) if p["kind"] == "text")


def _thought(events: list[Event]) -> bool:
    """Whether the text came in turns with reasoning: it is then not all of the pieces."""
    return any(e.type == "reasoning.start" for e in events)


async def _nothing_after(lane: Lane, run_id: str, cursor: str) -> None:
    """Who has the terminal event is told that nothing comes any more."""
    response = await lane.client.request("GET", f"/runs/{run_id}/events", headers={"Last-Event-ID": cursor})
    await response.close()
    checks.expect("status", response.status == 204, f"{response.status} after the end of {run_id}")
