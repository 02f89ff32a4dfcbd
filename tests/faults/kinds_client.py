"""Faults of clients: they leave and come back, come late, freeze."""

import asyncio

from tests.faults import checks
from tests.faults.client import Event, Stream
from tests.faults.lane import Lane
from tests.faults.provider import answer, pieces
from tests.support.provider_protocol import Gate, Stall

SEND_TIMEOUT = 0.3
_FREEZING = 10
_FROZEN_BUFFER = 4096
_LONG_TEXT = "x" * 4000


async def client_cut(lane: Lane) -> None:
    """Clients leave after event k, for every k, and come back: what they saw, joined, is what one saw who stayed."""
    rng, client = lane.rng, lane.client
    count = rng.randint(4, 14)
    message = lane.message("cut")
    lane.provider.scripts[message] = [answer(pieces(rng, count), rng.choice([0, 0.001, 0.004, 0.04]))]
    stream = await client.ask(message)
    if posting := rng.random() < 0.5:
        staying = await client.watch(stream.run_id)
        leaving = [stream]
    else:
        staying, leaving = stream, []
    leaving += [await client.watch(stream.run_id) for _ in range(count + 4 - posting)]
    rng.shuffle(leaving)
    reading = asyncio.create_task(staying.rest())
    all_joined = await asyncio.gather(*(_leave_and_return(lane, each, k) for k, each in enumerate(leaving)))
    events = await reading
    checks.whole(events, stream.run_id)
    for k, found in enumerate(all_joined):
        checks.ordered(found, stream.run_id)
        checks.same(f"a client that left after event {k}", found, events)
    lane.faults += len(leaving)
    await checks.kept(client, events, message)


async def _leave_and_return(lane: Lane, stream: Stream, k: int) -> list[Event]:
    rng = lane.rng
    reset, pause, by_header = rng.random() < 0.5, rng.choice([0, 0, 0.003, 0.02]), rng.random() < 0.7
    await stream.upto(k)
    stream.leave(reset)
    await asyncio.sleep(pause)
    after = None if by_header else len(stream.events)
    back = await lane.client.watch(stream.run_id, stream.cursor if by_header else None, after=after)
    return stream.events + await back.rest()


async def deserted(lane: Lane) -> None:
    """Clients leave runs that end when nobody watches; some come back in time, some too late, some never."""
    await asyncio.gather(*(_desert(lane, k) for k in range(8)))


async def _desert(lane: Lane, k: int) -> None:
    rng, client = lane.rng, lane.client
    message = lane.message(f"left after {k}")
    endless = rng.random() < 0.6
    whole = answer(pieces(rng, 8), 0.02)
    lane.provider.scripts[message] = [[*whole[:-3], Stall()] if endless else whole]
    stays_away, reset = rng.choice([0.0, 0.05, 0.4, 1.0]), rng.random() < 0.5
    stream = await client.ask(message, on_disconnect="cancel")
    await stream.upto(k)
    stream.leave(reset)
    await asyncio.sleep(stays_away)
    back = await client.watch(stream.run_id, stream.cursor)
    if endless and stays_away < 0.1:
        # Nobody is waited for in vain: this one leaves again, for good.
        back.leave()
        await asyncio.sleep(0.5)
        back = await client.watch(stream.run_id, stream.cursor)
    events = stream.events + await back.rest()
    end = checks.whole(events, stream.run_id)
    by = end.data.get("by")
    allowed = {"run.cancelled"} if endless else {"run.cancelled", "run.completed"}
    checks.expect("status", end.type in allowed and by in (None, "no_watcher"), f"{message}: {end.data}")
    lane.faults += 1
    await checks.kept(client, events, message)


async def second_watcher(lane: Lane) -> None:
    """Others join when event k has been seen, for every k, from the start or from any cursor until k."""
    rng, client = lane.rng, lane.client
    count = rng.randint(6, 16)
    message = lane.message("join")
    lane.provider.scripts[message] = [answer(pieces(rng, count), rng.choice([0.001, 0.003, 0.006]))]
    stream = await client.ask(message)
    joins: list[tuple[int, asyncio.Task[list[Event]]]] = []
    for k in range(count + 4):
        await stream.upto(k)
        after = rng.choice([0, rng.randint(0, len(stream.events))])
        joins.append((after, asyncio.create_task(_join(lane, stream.run_id, after))))
    events = await stream.rest()
    checks.whole(events, stream.run_id)
    for after, task in joins:
        found = await task
        checks.ordered(found, stream.run_id, after)
        checks.same(f"a watcher that joined after event {after}", found, events[after:])
    lane.faults += len(joins)
    await checks.kept(client, events, message)


async def _join(lane: Lane, run_id: str, after: int) -> list[Event]:
    return await (await lane.client.watch(run_id, after=after)).rest()


async def frozen_reader(lane: Lane) -> None:
    """Readers take nothing any more: they are dropped, nobody else waits for them, and they can come back."""
    rng, client = lane.rng, lane.client
    message = lane.message("freeze")
    texts = [f"{i}{_LONG_TEXT}" for i in range(rng.randint(60, 90))]
    gate = asyncio.Event()
    lane.provider.scripts[message] = [answer(texts, rng.choice([0, 0.002]), before=[Gate(gate)])]
    stream = await client.ask(message)
    frozen: list[Stream] = []
    for _ in range(_FREEZING):
        path = f"/runs/{stream.run_id}/events"
        frozen.append(Stream(await client.request("GET", path, buffer=_FROZEN_BUFFER)))
        await frozen[-1].upto(rng.randint(0, 2))
    gate.set()
    async with asyncio.timeout(5):  # long before a frozen reader would have been waited for
        events = await stream.rest()
    checks.whole(events, stream.run_id)
    await lane.settled()  # the server has closed their connections although they still hold theirs
    for each in frozen:
        cut = await _thaw(each)
        checks.expect("frozen", cut, "a reader that took nothing for longer than SEND_TIMEOUT was not dropped")
        back = await client.watch(stream.run_id, each.cursor)
        checks.same("a reader that froze and came back", each.events + await back.rest(), events)
        lane.faults += 1
    await checks.kept(client, events, message)


async def _thaw(stream: Stream) -> bool:
    """Reads what was on its way; whether the connection was cut before the end."""
    try:
        await stream.rest()
    except ConnectionError:
        stream.leave()
        return True
    return False
