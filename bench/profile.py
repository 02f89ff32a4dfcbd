"""`python -m bench profile`: where StreamForge's CPU goes, layer by layer, by sampling its stack (`sampled.py`)."""

import asyncio
import json
import os
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from .load import Arrivals, Client, spread
from .process import CLIENT_CORE, BenchError, Server, free_port, pin
from .stream import RATE, SETTLED, STREAMS, TARGETS, Target
from .tables import figure, print_table

LOOP = "event loop: uvloop, polling, reading and writing sockets"
THREADS = "other threads: SQLite's writer"
# The innermost frame that is in one of these decides; the standard library's frames count for who calls them.
LAYERS = {
    "uvicorn: HTTP taken apart and put together": ("uvicorn/",),
    "FastAPI, Starlette, pydantic": ("fastapi/", "starlette/", "sse_starlette/", "pydantic/", "anyio/"),
    "routers: guard, endpoints, wire dialects, sending": ("backend/routers/",),
    "run hub, log, state, chat service": ("backend/services/", "backend/events/"),
    "answer chain: deadlines, parts, citations": ("backend/chains/",),
    "provider: request and parser": ("backend/chains/models/",),
    "aiohttp: towards the provider": ("aiohttp/", "yarl/", "multidict/", "aiosignal/", "frozenlist/", "propcache/"),
    "LangChain and the SDK": ("langchain_core/", "langchain_openai/", "langsmith/", "openai/", "httpx/", "httpcore/"),
    "storage, on the event loop": ("backend/storage/",),
    "logging": ("structlog/", "logging/"),
    LOOP: ("uvicorn/_compat.py", "uvicorn/server.py"),  # they run the loop; no frame of a callback is inside them
}
STREAMFORGE = TARGETS["streamforge"]
FRAME = re.compile(r'File "(.+)", line \d+ in (.+)')
_RULES = sorted(((part, layer) for layer, parts in LAYERS.items() for part in parts), key=lambda rule: -len(rule[0]))


@dataclass(frozen=True)
class Sizes:
    requests: int = 1000
    flat: int = 1000
    rounds: int = 4
    ramp: float = 4
    window: float = 10


QUICK = Sizes(requests=150, flat=500, rounds=1, ramp=3, window=3)


@dataclass
class Profile:
    """CPU seconds by layer, and by function inside it, of so many requests or tokens."""

    units: int
    samples: int
    layers: Counter[str]
    functions: Counter[tuple[str, str]]


def layer_of(path: str) -> str | None:
    return next((layer for part, layer in _RULES if f"/{part}" in path), None)


def stacks(text: str) -> Iterator[list[tuple[str, str]]]:
    """Each sample's frames as (path, function), innermost first."""
    for sample in re.split(r"^(?:Current thread|Thread|Stack) .*\n", text, flags=re.MULTILINE)[1:]:
        yield FRAME.findall(sample)


def folded(folder: Path, units: int) -> Profile:
    """Samples as CPU: a sample stands for an equal share of the process's time.

    What is left of the main thread's time is the event loop's: while it waits, its samples are others' time.
    """
    cpu = json.loads((folder / "cpu.json").read_text())
    samples = list(stacks((folder / "stacks").read_text()))
    if len(samples) < 20:
        raise BenchError(f"{len(samples)} samples in {cpu['process']:.2f} s of CPU: too few")
    share = cpu["process"] / len(samples)
    layers: Counter[str] = Counter()
    functions: Counter[tuple[str, str]] = Counter()
    for frames in samples:
        if any(path.endswith("/threading.py") for path, _ in frames):
            continue
        for path, function in frames:
            if layer := layer_of(path):
                layers[layer] += share
                if layer != LOOP:
                    functions[layer, f"{'/'.join(Path(path).parts[-2:])} {function}"] += share
                break
    del layers[LOOP]
    layers[LOOP] = max(0.0, cpu["main"] - sum(layers.values()))
    layers[THREADS] = cpu["process"] - cpu["main"]
    return Profile(units, len(samples), layers, functions)


class SamplerCrashed(Exception):
    """The sampler took the server with it: see `sampled.py`."""


@asynccontextmanager
async def sampling(server: Server, folder: Path) -> AsyncIterator[None]:
    """The server's stacks are in the folder afterwards. Raises SamplerCrashed."""
    os.kill(server.pid, signal.SIGUSR1)
    try:
        yield
        os.kill(server.pid, signal.SIGUSR2)
        while not (folder / "cpu.json").exists():
            await asyncio.sleep(0.2)
            if server.exit_code() is not None:
                raise ConnectionError("the server is gone")
    except (aiohttp.ClientError, ConnectionError):
        await asyncio.sleep(0.5)
        if server.exit_code() == -signal.SIGSEGV:
            raise SamplerCrashed from None
        raise


# --- loads: each tells how many requests or tokens it was


async def requests(server: Server, folder: Path, client: Client, sizes: Sizes) -> int:
    """Requests of one token, each of which finds an idle server."""
    async with sampling(server, folder):
        for _ in range(sizes.requests):
            await client.first_token("bench-flat-1")
            await asyncio.sleep(0.01)
        await asyncio.sleep(SETTLED)
    return sizes.requests


async def flat(server: Server, folder: Path, client: Client, sizes: Sizes) -> int:
    """32 streams as quick as they go."""
    async with sampling(server, folder):
        for _ in range(sizes.rounds):
            await asyncio.gather(*(client.counted(f"bench-flat-{sizes.flat}") for _ in range(32)))
            await asyncio.sleep(SETTLED)
    return 32 * sizes.flat * sizes.rounds


async def paced(server: Server, folder: Path, client: Client, sizes: Sizes) -> int:
    """300 streams of 10 tokens/s, while all of them run."""
    arrivals = Arrivals()
    model = f"bench-rate{RATE}-{int(RATE * (sizes.ramp + sizes.window + 5))}"
    tasks = await spread(STREAMS, sizes.ramp, lambda: asyncio.create_task(client.paced(model, arrivals)))
    await asyncio.sleep(1)
    async with sampling(server, folder):
        before = len(arrivals.at)
        await asyncio.sleep(sizes.window)
        tokens = len(arrivals.at) - before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return tokens


Load = Callable[[Server, Path, Client, Sizes], Awaitable[int]]
LOADS: dict[str, tuple[Load, str]] = {
    "a request of one token": (requests, "request"),
    "a token, 32 streams flat out": (flat, "token"),
    f"a token, {STREAMS} streams of {RATE} tokens/s": (paced, "token"),
}


async def measure(target: Target, load: Load, upstream_url: str, sizes: Sizes) -> Profile:
    with (
        tempfile.TemporaryDirectory() as folder,
        target.running(upstream_url, "bench.sampled", folder) as server,
    ):
        async with Client(server.url, target.body) as client:
            for _ in range(50):
                await client.first_token("bench-flat-1")
            await client.counted("bench-flat-200")
            await asyncio.sleep(SETTLED)
            return folded(Path(folder), await load(server, Path(folder), client, sizes))


async def measure_again(target: Target, load: Load, upstream_url: str, sizes: Sizes) -> Profile:
    """`measure`, until the sampler lets the server live."""
    for _ in range(5):
        try:
            return await measure(target, load, upstream_url, sizes)
        except SamplerCrashed:
            print("the sampler has met a frame half made, and ended the server: once more", flush=True)
    raise BenchError("the sampler ended the server five times")


async def run(sizes: Sizes) -> None:
    if not hasattr(signal, "setitimer"):
        raise BenchError("profile needs POSIX timers, which this system has not")
    pin(CLIENT_CORE)
    port = free_port()
    with Server(("bench.upstream", str(port)), "/v1/models", core=CLIENT_CORE, port=port) as upstream:
        for name, (load, unit) in LOADS.items():
            began = time.monotonic()
            profile = await measure_again(STREAMFORGE, load, f"{upstream.url}/v1", sizes)
            total = sum(profile.layers.values())
            print(f"\n{name}: {profile.samples} samples ({time.monotonic() - began:.0f} s)", flush=True)
            micro = 1e6 / profile.units
            rows = [[layer, figure(cpu * micro), f"{cpu / total:.0%}"] for layer, cpu in profile.layers.most_common()]
            print_table([f"CPU of {name}", f"µs per {unit}", "share"], [*rows, ["all", figure(total * micro), "100%"]])
            print("\nThe dearest functions, with what they call outside the layers:\n")
            for (_, function), cpu in profile.functions.most_common(12):
                print(f"    {figure(cpu * micro):>6} µs  {function}")
