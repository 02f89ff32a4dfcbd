"""`python -m bench fanout`: two hundred watchers of one run, over sockets."""

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass

from . import wire
from .load import Arrivals, Reader, text_of
from .process import CLIENT_CORE, BenchError, Server, allow_descriptors, free_port, pin
from .stream import SETTLED, TARGETS, Target
from .tables import figure, print_table

RUN_ID = re.compile(rb'"run_id":"(\w+)"')


QUEUES = Target("a queue for each watcher", ("bench.queues", "{port}"))
STREAMFORGE = TARGETS["streamforge"]


@dataclass(frozen=True)
class Sizes:
    """The sizes of a measure. `runs`: the server, how the provider sends, and the number of tokens. The first token
    comes after `attach` seconds.

    Flat out, the provider is faster than the server, which joins hundreds of tokens into an event. At 2,000 tokens/s
    the server sends most tokens one by one.
    """

    watchers: int = 200
    attach: float = 4
    runs: tuple[tuple[Target, str, int], ...] = (
        (QUEUES, "flat", 1_000),
        (STREAMFORGE, "flat", 20_000),
        (STREAMFORGE, "rate2000", 20_000),
        (QUEUES, "rate500", 1_000),
        (STREAMFORGE, "rate500", 2_000),
    )


QUICK = Sizes(watchers=50, attach=3, runs=((QUEUES, "flat", 1_000), (STREAMFORGE, "rate2000", 5_000)))


@dataclass
class Figures:
    """One row. `cpu` is the server's CPU time from before the first token until a second after the last."""

    name: str
    run: str
    tokens: int
    events: int
    watchers: int
    cpu: float  # seconds

    @property
    def per_event(self) -> float:
        """CPU time per event and watcher, in µs."""
        return self.cpu / (self.events * self.watchers) * 1e6

    @property
    def per_token(self) -> float:
        """CPU time per token and watcher, in µs. It doesn't depend on how tokens are joined into events."""
        return self.cpu / (self.tokens * self.watchers) * 1e6


class Digest:
    """Hash and number of events of a watcher's stream. Events are counted by their empty lines."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b()
        self._open = False  # the last piece ended in the middle of a mark
        self.events = 0

    def add(self, data: bytes) -> None:
        self._hash.update(data)
        self.events += data.count(b"\n\n") + (self._open and data.startswith(b"\n"))
        self._open = data.endswith(b"\n") and not data.endswith(b"\n\n")

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()


class Asker(Digest):
    """The client that sent the question. Stores the bytes of its stream, and decodes them after the measure."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def add(self, data: bytes) -> None:
        super().add(data)
        self.pieces.append(data)

    async def run_id(self, patience: float = 10) -> str:
        """The run's id, as soon as the stream has it."""
        deadline = time.monotonic() + patience
        while (match := RUN_ID.search(b"".join(self.pieces))) is None:
            if time.monotonic() > deadline:
                raise BenchError(f"no run was begun in {patience} s")
            await asyncio.sleep(0.01)
        return match[1].decode()

    def decoded(self) -> tuple[int, int]:
        """The numbers of tokens and of events, decoded by httpx-sse."""
        arrivals, events = Arrivals(), 0
        for event in Reader().feed(b"".join(self.pieces)):
            events += 1
            arrivals.add(text_of(event), time.monotonic())
        return len(arrivals.at), events


async def measure(target: Target, server: Server, plan: str, tokens: int, sizes: Sizes) -> Figures:
    """The figures of one run. Raises BenchError unless all watchers get the same bytes, with every token."""
    model = f"bench-late{int(sizes.attach * 1000)}-{plan}-{tokens}"
    asker, watchers = Asker(), [Digest() for _ in range(sizes.watchers)]
    first_answer = await wire.post(server.port, "/chat", target.body(model), asker.add)
    run_id = "only" if target is QUEUES else await asker.run_id()
    path = f"/runs/{run_id}/events"
    answers = [first_answer, *[await wire.get(server.port, path, watcher.add) for watcher in watchers]]
    await asyncio.gather(*(answer.begun for answer in answers))
    await asyncio.sleep(0.5)
    if any(b">" in piece for piece in asker.pieces):
        raise BenchError(f"{sizes.watchers} watchers were not there before the first token, after {sizes.attach} s")
    before = server.cpu()
    await asyncio.gather(*(answer.ended for answer in answers))
    await asyncio.sleep(SETTLED)
    cpu = server.cpu() - before
    came, events = asker.decoded()
    if came != tokens or events != asker.events:
        raise BenchError(f"{came} of {tokens} tokens came, in {events} events; counted in the bytes: {asker.events}")
    if different := [watcher.events for watcher in watchers if watcher.hash != asker.hash]:
        raise BenchError(f"{len(different)} watchers were sent something else: {different[:5]} of {events} events")
    return Figures(target.name, plan, tokens, events, sizes.watchers + 1, cpu)


async def run(sizes: Sizes) -> None:
    pin(CLIENT_CORE)
    allow_descriptors(4 * sizes.watchers + 200)
    rows: list[Figures] = []
    port = free_port()
    with Server(("bench.upstream", str(port)), "/v1/models", core=CLIENT_CORE, port=port) as upstream:
        for target, plan, tokens in sizes.runs:
            print(f"{sizes.watchers} watchers, {plan}, {target.name} ...", flush=True)
            with target.running(f"{upstream.url}/v1") as server:
                rows.append(await measure(target, server, plan, tokens, sizes))
    head = [f"server, {sizes.watchers} watchers", "run", "tokens", "events", "CPU µs an event and watcher"]
    print_table([*head, "CPU µs a token and watcher"], [_row(row) for row in rows])


def _row(row: Figures) -> list[str]:
    counts = [f"{row.tokens:,}", f"{row.events:,}"]
    run = "flat out" if row.run == "flat" else f"{row.run.removeprefix('rate')} tokens/s"
    return [row.name, run, *counts, figure(row.per_event), figure(row.per_token)]
