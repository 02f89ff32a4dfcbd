"""`python -m bench many`: a thousand streams at once, silent or slow: memory of each, and `/health` beside them."""

import asyncio
import time
from dataclasses import dataclass

from . import wire
from .load import Arrivals, Client
from .pings import WARM_UP
from .process import CLIENT_CORE, BenchError, Server, allow_descriptors, free_port, pin, printed_by
from .stream import SETTLED, TARGETS, Target
from .tables import figure, milliseconds, print_table

DECODED = 20  # slow streams that are read by httpx-sse; the others' tokens are counted in the bytes
PING_PAUSE = 0.01


@dataclass(frozen=True)
class Sizes:
    """`streams` at once, opened evenly over `ramp` seconds; CPU is read over `window` seconds, and then
    `/health` asked for `pings` seconds."""

    streams: int = 1000
    ramp: float = 6
    window: float = 10
    pings: float = 8

    @property
    def lasting(self) -> int:
        """Seconds that a stream must last to be there for all of it."""
        return int(2 * self.ramp + SETTLED + self.window + self.pings) + 5


QUICK = Sizes(streams=300, ramp=2, window=4, pings=4)


@dataclass
class Figures:
    """One row. Memory is what the process grew by, divided by the streams."""

    name: str
    kind: str
    memory_kb: float
    health_p50_ms: float
    health_p99_ms: float
    cpu_us: float | None = None  # per token, at 1 token/s
    delay_p50_ms: float | None = None
    delay_p99_ms: float | None = None


class Counted:
    """Tokens of one stream, counted by their closing mark."""

    def __init__(self) -> None:
        self.tokens = 0

    def add(self, data: bytes) -> None:
        self.tokens += data.count(b">")


async def started(server: Server, client: Client) -> float:
    """Memory in MB of a server that has answered some requests and does nothing now."""
    for _ in range(WARM_UP):
        await client.first_token("bench-flat-1")
    await asyncio.sleep(SETTLED)
    return server.memory_mb()


async def health(server: Server, sizes: Sizes) -> tuple[float, float]:
    """p50 and p99 in ms, timed by a process of its own."""
    module = ("bench.pings", str(server.port), str(sizes.pings), str(PING_PAUSE))
    times = sorted(await printed_by(module))
    return times[len(times) // 2] * 1e3, times[int(len(times) * 0.99)] * 1e3


async def opened(server: Server, target: Target, model: str, sizes: Sizes, counts: list[Counted]) -> list[wire.Answer]:
    """One running stream for each counter, opened one after the other."""
    answers: list[wire.Answer] = []
    for counter in counts:
        answers.append(await wire.post(server.port, "/chat", target.body(model), counter.add))
        await asyncio.sleep(sizes.ramp / sizes.streams)
    await asyncio.gather(*(answer.begun for answer in answers))
    return answers


async def finished(answers: list[wire.Answer], counts: list[Counted], due: int) -> None:
    """Raise BenchError unless all streams are running, and then end with every token."""
    if any(answer.ended.done() for answer in answers):
        raise BenchError("streams ended while they were measured: it took them too long to begin")
    await asyncio.gather(*(answer.ended for answer in answers))
    if any(counter.tokens != due for counter in counts):
        raise BenchError(f"{sum(counter.tokens for counter in counts)} of {due * len(counts)} tokens came")


async def measure_silent(target: Target, server: Server, client: Client, sizes: Sizes) -> Figures:
    """Measure streams whose provider holds back its only token."""
    before = await started(server, client)
    counts = [Counted() for _ in range(sizes.streams)]
    answers = await opened(server, target, f"bench-late{sizes.lasting * 1000}-flat-1", sizes, counts)
    await asyncio.sleep(SETTLED)
    memory = (server.memory_mb() - before) / sizes.streams * 1e3
    p50, p99 = await health(server, sizes)
    await finished(answers, counts, due=1)
    return Figures(target.name, "silent", memory, p50, p99)


async def measure_slow(target: Target, server: Server, client: Client, sizes: Sizes) -> Figures:
    """Measure streams of 1 token/s."""
    before = await started(server, client)
    model, arrivals = f"bench-rate1-{sizes.lasting}", Arrivals()
    decoded = [asyncio.create_task(client.paced(model, arrivals)) for _ in range(DECODED)]
    counts = [Counted() for _ in range(sizes.streams - DECODED)]
    answers = await opened(server, target, model, sizes, counts)

    def arrived() -> int:
        return sum(counter.tokens for counter in counts) + len(arrivals.at)

    cpu, tokens, begun = server.cpu(), arrived(), len(arrivals.at)
    await asyncio.sleep(sizes.window)
    cpu, tokens, delays = server.cpu() - cpu, arrived() - tokens, sorted(arrivals.delay[begun:])
    p50, p99 = await health(server, sizes)
    memory = (server.memory_mb() - before) / sizes.streams * 1e3
    await finished(answers, counts, due=sizes.lasting)
    await asyncio.gather(*decoded)
    if len(arrivals.at) != DECODED * sizes.lasting:
        raise BenchError(f"decoded, {len(arrivals.at)} of {DECODED * sizes.lasting} tokens came")
    return Figures(
        target.name,
        "1 token/s",
        memory,
        p50,
        p99,
        cpu / tokens * 1e6,
        delays[len(delays) // 2] * 1e3,
        delays[int(len(delays) * 0.99)] * 1e3,
    )


async def run(sizes: Sizes) -> None:
    pin(CLIENT_CORE)
    allow_descriptors(4 * sizes.streams + 200)
    rows: list[Figures] = []
    port = free_port()
    with Server(("bench.upstream", str(port)), "/v1/models", core=CLIENT_CORE, port=port) as upstream:
        for target in (TARGETS["parsed"], TARGETS["streamforge"]):
            for measure in (measure_silent, measure_slow):
                began = time.monotonic()
                with target.running(f"{upstream.url}/v1") as server:
                    async with Client(server.url, target.body) as client:
                        rows.append(await measure(target, server, client, sizes))
                print(f"{sizes.streams} streams, {target.name} ({time.monotonic() - began:.0f} s)", flush=True)
    head = ["server", f"{sizes.streams} streams", "memory a stream", "/health p50", "/health p99"]
    print_table([*head, "CPU µs per token", "delay p50", "delay p99"], [_row(row) for row in rows])


def _row(row: Figures) -> list[str]:
    figures = [row.name, row.kind, f"{row.memory_kb:.0f} KB"]
    figures += [milliseconds(row.health_p50_ms), milliseconds(row.health_p99_ms)]
    if row.cpu_us is None or row.delay_p50_ms is None or row.delay_p99_ms is None:
        return [*figures, "", "", ""]
    return [*figures, figure(row.cpu_us), milliseconds(row.delay_p50_ms), milliseconds(row.delay_p99_ms)]
