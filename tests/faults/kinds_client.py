"""Faults of clients: they leave and come back, come late, repeat themselves, freeze."""

import asyncio

from tests.faults import checks
from tests.faults.client import Event, Stream
from tests.faults.lane import Lane
from tests.faults.provider import answer, pieces


async def client_cut(lane: Lane) -> None:
    """Clients leave after event k, for every k, and come back: what they saw, joined, is what one saw who stayed."""
    rng, client = lane.rng, lane.client
    count = rng.randint(4, 14)
    message = lane.message("cut")
    lane.provider.scripts[message] = [answer(pieces(rng, count), rng.choice([0, 0.001, 0.004]))]
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
