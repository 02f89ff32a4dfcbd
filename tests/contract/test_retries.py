"""The one retry loop, against a provider that refuses for a while."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract.conftest import SharedServers
from tests.contract.protocols import PROTOCOLS, OpenAIProtocol, ProviderProtocol
from tests.scenarios.support import ask, only_terminal, ordered, watch
from tests.support.harness import Running, serving, text_of
from tests.support.provider_protocol import Cut, Send, Sleep, Step, error, rate_limited
from tests.support.provider_server import ProviderServer

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("used_protocols")]
both = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda w: w.name)


@pytest_asyncio.fixture(loop_scope="module")
async def server(protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers) -> Running:
    return await shared.with_settings(retry_seconds=4.0, **protocol.settings(provider))


@both
@pytest.mark.parametrize("refusal", ["429", "500", "503", "cut", "cut in the head", "error inside"])
async def test_a_refusal_that_passes_is_not_seen(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol, refusal: str
) -> None:
    steps: dict[str, list[Step]] = {
        "cut": [Cut()],
        "cut in the head": [*protocol.begun("")[:1], Cut()],
        "error inside": protocol.error_inside(),
    }
    provider.script(steps.get(refusal) or protocol.refused(int(refusal)), protocol.whole("Here it is."))
    events = await server.events(ask())
    ordered(events)
    assert only_terminal(events)["type"] == "run.completed"
    assert text_of(events) == "Here it is."
    assert len(provider.calls) == 2
    assert [e["type"] for e in events].count("text.start") == 1


@both
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_what_does_not_pass_is_asked_once(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol, status: int
) -> None:
    provider.script(protocol.refused(status))
    assert only_terminal(await server.events(ask()))["type"] == "run.failed"
    assert len(provider.calls) == 1


@pytest.mark.parametrize("code", [400, 401, 404])
async def test_nor_does_it_when_the_stream_says_so(shared: SharedServers, provider: ProviderServer, code: int) -> None:
    """vLLM and OpenRouter refuse inside a stream, with the HTTP status as the error's code."""
    protocol = OpenAIProtocol()
    provider.script([Send(b'data: {"error":{"message":"no","code":%d}}\n\n' % code)], protocol.whole("never"))
    server = await shared.with_settings(retry_seconds=4.0, **protocol.settings(provider))
    refused = only_terminal(await server.events(ask()))["error"]
    assert refused["code"] == ("model_not_found" if code == 404 else "provider_error")
    assert not refused["retryable"]
    assert len(provider.calls) == 1


@both
async def test_after_the_first_token_nothing_is_tried_again(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol
) -> None:
    provider.script([*protocol.begun("Half"), Cut()])
    events = await server.events(ask())
    assert (only_terminal(events)["error"]["code"], text_of(events)) == ("provider_error", "Half")
    assert len(provider.calls) == 1


@both
async def test_a_stop_does_not_wait_for_the_next_try(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol
) -> None:
    provider.script(*[protocol.refused(500)] * 20)
    async with watch(server.client, body=ask()) as client:
        await provider.call(1)
        cancelled = await server.client.post(f"/runs/{client.run_id}/cancel")
        assert cancelled.json()["status"] == "cancelled"
        assert only_terminal(await client.all(timeout=2))["type"] == "run.cancelled"
    count = len(provider.calls)
    await asyncio.sleep(0.8)
    assert len(provider.calls) == count


@both
async def test_the_budget_ends_it(server: Running, provider: ProviderServer, protocol: ProviderProtocol) -> None:
    provider.script(*[protocol.refused(503)] * 20)
    assert only_terminal(await server.events(ask()))["error"]["code"] == "provider_error"
    assert 2 <= len(provider.calls) <= 6


@both
async def test_a_whole_answer_has_a_limit(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers
) -> None:
    server = await shared.with_settings(total_timeout=1.5, **protocol.settings(provider))
    slow = [step for _ in range(40) for step in (protocol.begun("so ")[1], Sleep(0.1))]
    provider.script([protocol.begun("")[0], *slow])
    events = await server.events(ask())
    assert only_terminal(events)["error"]["code"] == "provider_timeout"
    assert text_of(events).startswith("so so")
    await (await provider.call(0)).disconnected()


@contextmanager
def unanswering() -> Iterator[int]:
    """A port whose queue of connections is full: the next one is neither accepted nor refused."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@both
async def test_a_connection_that_does_not_come_has_a_limit(
    protocol: ProviderProtocol, provider: ProviderServer, tmp_path: Path
) -> None:
    with unanswering() as port:
        given = {k: f"http://127.0.0.1:{port}/v1" if "url" in k else v for k, v in protocol.settings(provider).items()}
        async with serving(tmp_path / "data", connect_timeout=0.2, retry_seconds=0.5, **given) as server:
            async with asyncio.timeout(10):
                events = await server.events(ask())
            assert only_terminal(events)["error"]["code"] == "provider_timeout"


@pytest.mark.parametrize("protocol", PROTOCOLS[:1], ids=lambda w: w.name)
class TestRetryAfter:
    """OpenAI's way of saying when: Ollama has none."""

    async def test_it_is_waited_for(
        self, server: Running, provider: ProviderServer, protocol: ProviderProtocol
    ) -> None:
        provider.script(rate_limited(retry_after=1.5), protocol.whole("Now."))
        async with watch(server.client, body=ask()) as client:
            await provider.call(0)
            await asyncio.sleep(1.2)
            assert len(provider.calls) == 1
            assert text_of(await client.all()) == "Now."

    async def test_one_that_is_too_long_is_told_at_once(
        self, server: Running, provider: ProviderServer, protocol: ProviderProtocol
    ) -> None:
        provider.script(rate_limited(retry_after=3600))
        async with asyncio.timeout(2):
            end = only_terminal(await server.events(ask()))
        assert (end["error"]["code"], end["error"]["retryable"]) == ("rate_limited", True)
        assert end["error"]["retry_after"] == 3600
        assert len(provider.calls) == 1

    async def test_an_empty_account_does_not_fill_itself(
        self, server: Running, provider: ProviderServer, protocol: ProviderProtocol
    ) -> None:
        kind = "insufficient_quota"
        provider.script([error(429, "You exceeded your current quota", kind, kind)])
        assert only_terminal(await server.events(ask()))["error"]["code"] == "rate_limited"
        assert len(provider.calls) == 1
