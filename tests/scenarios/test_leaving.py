"""`on_disconnect`: what becomes of an answer that nobody watches any more."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvloop

from tests.scenarios.support import ask, gated, messages, only_terminal, said, watch
from tests.support.harness import Running, serving
from tests.support.provider_server import ProviderServer

GRACE = 0.4


@pytest.fixture
async def server(tmp_path: Path, provider: ProviderServer) -> AsyncIterator[Running]:
    keys = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url}
    async with serving(tmp_path / "data", llm_model="openai/test-model", disconnect_grace=GRACE, **keys) as running:
        yield running


async def ended(server: Running, run_id: str) -> dict[str, str]:
    """The run's row, once it isn't running any more."""
    async with asyncio.timeout(5):
        while (run := (await server.client.get(f"/runs/{run_id}")).json())["status"] == "running":
            await asyncio.sleep(0.02)
    return run


async def test_the_last_to_leave_ends_it(server: Running, provider: ProviderServer) -> None:
    provider.script(gated("Half an", asyncio.Event(), " answer."))
    async with watch(server.client, body=ask(on_disconnect="cancel")) as client:
        await client.text("Half an")
        run_id, session_id = client.run_id, client.session_id
        async with watch(server.client, f"/runs/{run_id}/events") as second:
            await second.text("Half an")
            await client.leave()
            await asyncio.sleep(3 * GRACE)
            assert (await server.client.get(f"/runs/{run_id}")).json()["status"] == "running"
    await (await provider.call(0)).disconnected()
    assert (await ended(server, run_id))["status"] == "cancelled"
    async with watch(server.client, f"/runs/{run_id}/events") as late:
        end = only_terminal(await late.all())
    assert (end["type"], end["by"]) == ("run.cancelled", "no_watcher")
    assert said((await messages(server, session_id))[1]) == "Half an"


async def test_who_comes_back_in_time_misses_nothing(server: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("Half an", gate, " answer."))
    async with watch(server.client, body=ask(on_disconnect="cancel")) as client:
        await client.text("Half an")
        await client.leave()
        async with watch(server.client, f"/runs/{client.run_id}/events") as again:
            await asyncio.sleep(2 * GRACE)
            gate.set()
            assert only_terminal(await again.all())["type"] == "run.completed"


async def test_the_request_says_otherwise_than_the_setting(tmp_path: Path, provider: ProviderServer) -> None:
    keys = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url}
    options = {"llm_model": "openai/test-model", "disconnect_grace": 0.1, "on_disconnect": "cancel", **keys}
    async with serving(tmp_path / "data", **options) as server:
        gate = asyncio.Event()
        provider.script(gated("Half an", gate, " answer."), gated("Half an", asyncio.Event(), ""))
        async with watch(server.client, body=ask(on_disconnect="continue")) as client:
            await client.text("Half an")
        await asyncio.sleep(0.6)
        gate.set()
        assert (await ended(server, client.run_id))["status"] == "completed"
        async with watch(server.client, body=ask()) as client:
            await client.text("Half an")
        assert (await ended(server, client.run_id))["status"] == "cancelled"


async def test_who_had_asked_for_more_on_the_same_connection_has_left_too(
    server: Running, provider: ProviderServer
) -> None:
    """Pipelining: the next request lies in the server while the first is answered."""
    provider.script(gated("Half an", asyncio.Event(), " answer."))
    body = json.dumps(ask(on_disconnect="cancel"))
    head = "Host: localhost\r\n"
    _, sent = await asyncio.open_connection("127.0.0.1", server.port)
    sent.write(f"POST /chat HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    await provider.call(0)
    sent.write(f"GET /health HTTP/1.1\r\n{head}\r\n".encode())
    await asyncio.sleep(0.2)
    sent.close()
    async with asyncio.timeout(5):
        await (await provider.call(0)).disconnected()


async def test_one_who_waits_for_json_watches_too(server: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("A whole", gate, " answer."), gated("Half an", asyncio.Event(), " answer."))
    accept = {"Accept": "application/json"}
    asked = asyncio.create_task(server.client.post("/chat", json=ask(on_disconnect="cancel"), headers=accept))
    await provider.call(0)
    await asyncio.sleep(2 * GRACE)
    gate.set()
    assert (await asked).json()["text"] == "A whole answer."
    with pytest.raises(httpx.ReadTimeout):
        await server.client.post("/chat", json=ask(on_disconnect="cancel"), headers=accept, timeout=0.3)
    await (await provider.call(1)).disconnected()


def test_without_a_grace_who_asked_is_there_in_time(tmp_path: Path) -> None:
    """On uvloop, as served: there a timer of 0 s goes off before the tasks that begin after it."""

    async def asked() -> None:
        gate = asyncio.Event()
        gate.set()
        async with ProviderServer() as provider:
            keys = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url}
            options = {"llm_model": "openai/test-model", "disconnect_grace": 0, "on_disconnect": "cancel", **keys}
            async with serving(tmp_path / "data", **options) as server:
                for accept in ("application/json", "text/plain"):
                    provider.script(gated("A whole", gate, " answer."))
                    answer = await server.client.post("/chat", json=ask(), headers={"Accept": accept})
                    assert "A whole answer." in answer.text
                provider.script(gated("Half an", asyncio.Event(), ""))
                async with watch(server.client, body=ask()) as client:
                    await client.text("Half an")
                assert (await ended(server, client.run_id))["status"] == "cancelled"

    uvloop.run(asked())


async def test_an_unknown_wish_is_422(server: Running) -> None:
    refused = await server.client.post("/chat", json=ask(on_disconnect="explode"))
    assert refused.status_code == 422
    assert "on_disconnect" in refused.text
