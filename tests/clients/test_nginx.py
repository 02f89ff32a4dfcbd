"""nginx in front, as Debian installs it: tokens pass as they come, and silence is no end."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.clients.docs import snippet
from tests.clients.nginx import nginx
from tests.scenarios.support import ask, gated, only_terminal, watch
from tests.support.harness import serving, text_of
from tests.support.provider_protocol import Gate, Sleep, Step, answer, chunk, done
from tests.support.provider_server import ProviderServer

GAPS = [0.08 + 0.01 * (7 * index % 13) for index in range(30)]
"""Seconds before each token: 80 to 200 ms, no two alike in a row."""


class Paced(NamedTuple):
    """When each token left the provider, and when it reached the client behind nginx; seconds."""

    sent: list[float]
    arrived: list[float]

    def deviations(self) -> list[float]:
        """How far each gap between tokens is from the one that was sent."""
        return [abs(b - a) for a, b in zip(gaps(self.sent), gaps(self.arrived), strict=True)]


def gaps(times: list[float]) -> list[float]:
    """Between each time and the next."""
    return [b - a for a, b in pairwise(times)]


@asynccontextmanager
async def behind_nginx(
    folder: Path, provider: ProviderServer, extra: str = "", **overrides: float
) -> AsyncIterator[httpx.AsyncClient]:
    """A client that speaks to nginx, which speaks to a server."""
    async with (
        serving(
            folder / "data",
            openai_api_key="sk-test-0123456789",
            openai_base_url=provider.base_url,
            llm_model="openai/test-model",
            **overrides,
        ) as server,
        nginx(folder / "nginx", server.base, extra) as base,
        httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as client,
    ):
        yield client


async def paced(client: httpx.AsyncClient, provider: ProviderServer, pauses: list[float]) -> Paced:
    """One answer, a token after each of these pauses."""
    gates = [asyncio.Event() for _ in pauses]
    steps: list[Step] = [chunk({"role": "assistant", "content": ""})]
    for index, gate in enumerate(gates):
        steps += [Gate(gate), chunk({"content": f"<{index}>"})]
    provider.script([*steps, chunk({}, "stop"), done()])
    sent: list[float] = []
    arrived: list[float] = []

    async def send() -> None:
        await provider.call(0)
        for pause, gate in zip(pauses, gates, strict=True):
            await asyncio.sleep(pause)
            sent.append(time.perf_counter())
            gate.set()

    async def read() -> None:
        async with watch(client, body=ask()) as watching:
            for index in range(len(pauses)):
                await watching.text(f"<{index}>")
                arrived.append(time.perf_counter())
            only_terminal(await watching.all())

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        group.create_task(send())
    return Paced(sent, arrived)


def as_sent(seen: Paced) -> None:
    """The gaps of the tokens that arrived are those that were sent."""
    assert statistics.median(seen.deviations()) < 0.02
    together = [gap for gap in gaps(seen.arrived) if gap < min(GAPS) / 2]
    assert len(together) <= 2, "tokens arrived together"  # two: a busy machine may be late for one, twice


def bunched(seen: Paced) -> None:
    """The tokens arrived together, those sent first a second too late."""
    assert statistics.median(gaps(seen.arrived)) < 0.005
    assert max(a - s for s, a in zip(seen.sent, seen.arrived, strict=True)) > 1
    with pytest.raises(AssertionError):
        as_sent(seen)


GZIP = "gzip_types text/event-stream;"
"""Event streams are compressed too: nginx gathers before it compresses, unless X-Accel-Buffering is no."""


@pytest.mark.parametrize("extra", ["", GZIP], ids=["default", "gzip"])
async def test_gaps_between_arriving_tokens_are_those_sent(
    tmp_path: Path, provider: ProviderServer, extra: str
) -> None:
    async with behind_nginx(tmp_path, provider, extra) as client:
        as_sent(await paced(client, provider, GAPS))


async def test_two_in_a_row_pass_tokens_as_they_come(tmp_path: Path, provider: ProviderServer) -> None:
    first = snippet("docs/clients.md", "Two proxies", "nginx")
    async with (
        behind_nginx(tmp_path, provider, first) as inner,
        nginx(tmp_path / "outer", str(inner.base_url)) as base,
        httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as client,
    ):
        as_sent(await paced(client, provider, GAPS))


async def test_an_upload_larger_than_nginxs_own_limit_reaches_the_server(
    tmp_path: Path, provider: ProviderServer
) -> None:
    async with behind_nginx(tmp_path, provider) as client:
        response = await client.post("/documents/upload", files={"file": ("zeros.bin", bytes(2_000_000))})
    assert response.status_code == 202, response.text


# --- the same without what makes it work: these tests can fail


async def test_nginx_that_overlooks_the_header_gathers_what_it_compresses(
    tmp_path: Path, provider: ProviderServer
) -> None:
    async with behind_nginx(tmp_path, provider, f"proxy_ignore_headers X-Accel-Buffering; {GZIP}") as client:
        bunched(await paced(client, provider, GAPS[:10]))


async def test_the_second_of_two_buffers_what_the_first_gives_without_the_header(
    tmp_path: Path, provider: ProviderServer
) -> None:
    async with (
        behind_nginx(tmp_path, provider) as inner,
        nginx(tmp_path / "outer", str(inner.base_url)) as base,
        httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as client,
    ):
        bunched(await paced(client, provider, GAPS[:10]))


# --- silence


async def silent(client: httpx.AsyncClient, provider: ProviderServer, seconds: float) -> None:
    """A model that thinks for so long before its first word; the answer must come whole, over one connection."""
    provider.script([Sleep(seconds), *answer("At last.")])
    started = time.perf_counter()
    async with watch(client, body=ask()) as watching:
        events = await watching.all(timeout=seconds + 15)
    assert only_terminal(events)["type"] == "run.completed"
    assert text_of(events) == "At last."
    assert time.perf_counter() - started >= seconds


@pytest.mark.timeout(180)
async def test_a_silence_of_90_seconds_survives_with_every_default(tmp_path: Path, provider: ProviderServer) -> None:
    """nginx gives up on an upstream that is quiet for 60 s; the heartbeat comes every 15 s."""
    async with behind_nginx(tmp_path, provider) as client:
        await silent(client, provider, 90)


async def test_a_silence_longer_than_proxy_read_timeout_survives(tmp_path: Path, provider: ProviderServer) -> None:
    async with behind_nginx(tmp_path, provider, "proxy_read_timeout 2s;", heartbeat_seconds=0.5) as client:
        await silent(client, provider, 3)


async def test_a_heartbeat_slower_than_proxy_read_timeout_cuts_and_the_client_comes_back(
    tmp_path: Path, provider: ProviderServer
) -> None:
    async with behind_nginx(tmp_path, provider, "proxy_read_timeout 1s;", heartbeat_seconds=30) as client:
        gate = asyncio.Event()
        provider.script(gated("Cut", gate, " off."))
        async with watch(client, body=ask()) as watching:
            await watching.text("Cut")
            with pytest.raises(httpx.RemoteProtocolError):
                await watching.all()
            cut = watching.events
        path, headers = f"/runs/{watching.run_id}/events", {"Last-Event-ID": cut[-1]["_id"]}
        gate.set()
        async with watch(client, path, headers=headers) as again:
            rest = await again.all()
        assert only_terminal(cut + rest)["type"] == "run.completed"
        assert text_of(cut + rest) == "Cut off."
