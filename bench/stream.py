"""`python -m bench stream`: what a token and a request cost, server by server."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from .load import Arrivals, Client, spread
from .pings import pings
from .process import CLIENT_CORE, BenchError, Server, free_port, pin
from .tables import print_streams

SETTLED = 1.2  # seconds after which a server has done what it puts off (StreamForge checkpoints every second)
STREAMS, RATE = 300, 10
LONE_RATE = 100  # tokens a second of the one stream of an idle server
SLOW_MODEL = "simulated/words"


@dataclass(frozen=True)
class Sizes:
    """The sizes of a measure. `flat`: tokens of each of 32 streams; `window`: seconds with 300 paced streams; `lone`:
    tokens of each turn of the single stream; `turns`: number of turns among which the requests are divided."""

    flat: int = 1000
    rounds: int = 3
    requests: int = 400
    turns: int = 10
    ramp: float = 4
    window: float = 10
    lone: int = 500
    pings: int = 1000


QUICK = Sizes(flat=300, rounds=1, requests=40, turns=2, ramp=3, window=3, lone=100, pings=200)


@dataclass(frozen=True)
class Target:
    """A server of the table: its module and arguments (`{port}` is filled in), and the body of a request."""

    name: str
    module: tuple[str, ...]
    body: Callable[[str], dict[str, Any]] = lambda model: {"message": "hi", "model": model}
    ready: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def running(self, upstream_url: str, *under: str) -> Iterator[Server]:
        """It runs, with an empty folder for its data and the provider at this URL; `under` a module with its
        arguments, where one is given."""
        with tempfile.TemporaryDirectory() as data:
            env = {"OPENAI_BASE_URL": upstream_url, "OPENAI_API_KEY": "none", "DATA_DIR": data, **self.env}
            with Server((*under, *self.module), self.ready, env) as server:
                yield server


@dataclass
class Figures:
    """One row. CPU is user and system time of the server and its children."""

    name: str
    memory_mb: float = 0
    request_ms: float = 0  # CPU of a request of one token
    first_ms: float = 0  # p50 from the request to its first token, nothing else running
    flat_us: float = 0  # CPU per token, 32 streams flat out
    paced_us: float = 0  # CPU per token, 300 streams of 10 tokens/s
    delay_p50_ms: float = 0  # from sent to received, at that load
    delay_p99_ms: float = 0
    lone_p50_ms: float = 0  # from sent to received, one stream of 100 tokens/s, nothing else running
    lone_p99_ms: float = 0
    kept_up: float = 0  # share of the tokens due in the window that came
    health_ratio: float | None = None  # /health p50 over that of a bare app, the same run
    health_ms: float | None = None
    started_ms: float | None = None  # CPU from the POST until run.started is on the wire


TARGETS = {
    "passed": Target("bytes passed through (uvicorn, aiohttp)", ("bench.floors", "passed", "{port}")),
    "parsed": Target("hand-written: each token parsed, one typed event out", ("bench.floors", "parsed", "{port}")),
    "plain": Target("FastAPI + sse-starlette + ChatOpenAI.astream", ("bench.plain", "{port}"), ready="/health"),
    "streamforge": Target(
        "StreamForge",
        ("backend.main",),
        lambda model: {"message": "hi", "model": model if "/" in model else f"openai/{model}", "documents": False},
        ready="/ready",
        env={
            "LLM_MODEL": "openai/bench-flat-1",
            "MAX_RUNS": "2000",
            "STREAM_DELAY": "0.2",
            # A title would be a second call of the provider, which the other servers don't make.
            "AUTO_TITLE": "0",
            "LOG_LEVEL": "WARNING",
            "HOST": "127.0.0.1",
        },
    ),
}


class Opened:
    """A running server and its client."""

    def __init__(self, key: str) -> None:
        self.target = TARGETS[key]
        self.figures = Figures(self.target.name)
        self._stack = AsyncExitStack()

    async def start(self, upstream_url: str) -> None:
        """Start the server, check its stream, and wait until it is idle."""
        self.server = self._stack.enter_context(self.target.running(upstream_url))
        self.client = await self._stack.enter_async_context(Client(self.server.url, self.target.body))
        await self.client.first_token("bench-flat-1")
        await asyncio.sleep(SETTLED)
        self.figures.memory_mb = self.server.memory_mb()
        check_events(self.target, await self.client.whole(200))

    async def close(self) -> None:
        await self._stack.aclose()


async def measure(keys: Sequence[str], upstream_url: str, sizes: Sizes) -> dict[str, Figures]:
    """The figures of all servers. They run at the same time and are measured in turns, so that changes of the machine
    affect all of them equally. A server that is not measured is idle."""
    opened = {key: Opened(key) for key in keys}
    try:
        for key, one in opened.items():
            print(f"starting {TARGETS[key].name} ...", flush=True)
            await one.start(upstream_url)
        print("requests of one token, in turns ...", flush=True)
        await measure_requests(list(opened.values()), sizes)
        print(f"one stream of {LONE_RATE} tokens/s, in turns ...", flush=True)
        await measure_lone(list(opened.values()), sizes)
        print("flat out, in turns ...", flush=True)
        await measure_flat(list(opened.values()), sizes)
        for key, one in opened.items():
            if key == "streamforge":
                await measure_edges(one.figures, one.server, one.client, sizes)
            print(f"{STREAMS} streams: {TARGETS[key].name} ...", flush=True)
            await measure_paced(one.figures, one.server, one.client, sizes)
            await one.close()
    finally:
        for one in opened.values():
            await one.close()
    return {key: one.figures for key, one in opened.items()}


def check_events(target: Target, events: list[dict[str, Any]]) -> None:
    """StreamForge's stream is the promised one: run.started, no gap, the terminal event at the end."""
    if target is not TARGETS["streamforge"]:
        return
    types = [event["type"] for event in events]
    gapless = [event["seq"] for event in events] == list(range(1, len(events) + 1))
    if types[0] != "run.started" or types[-1] != "run.completed" or not gapless:
        raise BenchError(f"not the stream that was promised: {types}, gapless: {gapless}")


async def measure_requests(opened: Sequence[Opened], sizes: Sizes) -> None:
    """Requests of one token, one after the other with a pause, so that each finds an idle server."""
    costs: dict[str, list[float]] = {}
    firsts: dict[str, list[float]] = {}
    for one in opened:
        for _ in range(20):
            await one.client.first_token("bench-flat-1")
    await asyncio.sleep(SETTLED)
    for _ in range(sizes.turns):
        for one in opened:
            before = one.server.cpu()
            for _ in range(sizes.requests // sizes.turns):
                firsts.setdefault(one.target.name, []).append(await one.client.first_token("bench-flat-1"))
                await asyncio.sleep(0.02)
            await asyncio.sleep(SETTLED)
            cost = (one.server.cpu() - before) / (sizes.requests // sizes.turns)
            costs.setdefault(one.target.name, []).append(cost)
    for one in opened:
        one.figures.request_ms = statistics.median(costs[one.target.name]) * 1e3
        one.figures.first_ms = statistics.median(firsts[one.target.name]) * 1e3


async def measure_lone(opened: Sequence[Opened], sizes: Sizes) -> None:
    """One stream of 100 tokens/s on an idle server, three turns each."""
    delays: dict[str, list[float]] = {}
    for _ in range(3):
        for one in opened:
            arrivals = Arrivals()
            await one.client.paced(f"bench-rate{LONE_RATE}-{sizes.lone}", arrivals)
            if len(arrivals.delay) != sizes.lone:
                raise BenchError(f"one stream: {len(arrivals.delay)} of {sizes.lone} tokens came")
            delays.setdefault(one.target.name, []).extend(arrivals.delay)
    for one in opened:
        one.figures.lone_p50_ms, one.figures.lone_p99_ms = quantiles(delays[one.target.name])


def quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2] * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3


async def measure_flat(opened: Sequence[Opened], sizes: Sizes) -> None:
    """Measure 32 streams at full speed, including their requests and the writes afterwards."""
    costs: dict[str, list[float]] = {}
    for _ in range(sizes.rounds):
        for one in opened:
            before = one.server.cpu()
            counts = await asyncio.gather(*(one.client.counted(f"bench-flat-{sizes.flat}") for _ in range(32)))
            if any(count != sizes.flat for count in counts):
                raise BenchError(f"flat out, not all tokens came: {counts}, {sizes.flat} due each")
            await asyncio.sleep(SETTLED)
            costs.setdefault(one.target.name, []).append((one.server.cpu() - before) / (32 * sizes.flat) * 1e6)
    for one in opened:
        one.figures.flat_us = statistics.median(costs[one.target.name])


async def measure_paced(figures: Figures, server: Server, client: Client, sizes: Sizes) -> None:
    """300 streams of 10 tokens/s, measured in a window in which all are running and none begins or ends.

    The server is stopped after it, so what runs on beyond the window disturbs nothing.
    """
    arrivals = Arrivals()
    model = f"bench-rate{RATE}-{int(RATE * (sizes.ramp + sizes.window + 5))}"
    tasks = await spread(STREAMS, sizes.ramp, lambda: asyncio.create_task(client.paced(model, arrivals)))
    await asyncio.sleep(1)
    before, start = server.cpu(), time.monotonic()
    await asyncio.sleep(sizes.window)
    cpu, end = server.cpu() - before, time.monotonic()
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    if broken := [result for result in results if isinstance(result, Exception)]:
        raise BenchError(f"{len(broken)} of {STREAMS} paced streams broke: {broken[0]!r}") from broken[0]
    delays = [d for d, at in zip(arrivals.delay, arrivals.at, strict=True) if start <= at < end]
    if not delays:
        raise BenchError(f"not one token came in {sizes.window} s at {STREAMS} streams of {RATE} tokens/s")
    figures.paced_us = cpu / len(delays) * 1e6
    figures.delay_p50_ms, figures.delay_p99_ms = quantiles(delays)
    figures.kept_up = len(delays) / (STREAMS * RATE * (end - start))


async def measure_edges(figures: Figures, server: Server, client: Client, sizes: Sizes) -> None:
    """Measure what only StreamForge promises: the time of `/health`, and the CPU until run.started is sent."""
    with Server(("bench.bare", "{port}"), "/health") as bare:
        mine, theirs = [], []
        for _ in range(5):  # in turns, so that both see the same machine
            theirs += islice(pings(bare.port), sizes.pings // 5)
            mine += islice(pings(server.port), sizes.pings // 5)
    figures.health_ms = statistics.median(mine) * 1e3
    figures.health_ratio = statistics.median(mine) / statistics.median(theirs)
    costs = [await until_started(server, client) for _ in range(max(10, sizes.requests // 5))]
    figures.started_ms = statistics.median(costs) * 1e3


async def until_started(server: Server, client: Client) -> float:
    """CPU seconds from the POST until run.started is on the wire, and the first word of a model that then waits."""
    before = server.cpu()
    async with aclosing(client.events(SLOW_MODEL)) as events:
        async for event, _ in events:
            if event["type"] == "run.started":
                await asyncio.sleep(0.06)
                return server.cpu() - before
    raise BenchError("the stream ended before it began")


async def run(only: list[str], sizes: Sizes) -> None:
    pin(CLIENT_CORE)
    port = free_port()
    with Server(("bench.upstream", str(port)), "/v1/models", core=CLIENT_CORE, port=port) as upstream:
        print_streams(await measure(only or list(TARGETS), f"{upstream.url}/v1", sizes))
