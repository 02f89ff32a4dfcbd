"""Whatever fails on a provider's protocol: one typed end, the partial answer kept, nothing leaked."""

import io
import logging
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.conftest import SharedServers
from tests.contract.protocols import KEY, PROTOCOLS, RAW, ProviderProtocol, failed
from tests.scenarios.support import ask, only_terminal, ordered, rows
from tests.support.harness import Running, serving, text_of
from tests.support.provider_protocol import Cut, Stall, Status, Step
from tests.support.provider_server import ProviderServer

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("used_protocols"),
    pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda w: w.name),
]
OPTIONS: dict[str, Any] = {"log_level": "DEBUG"}
"""The log's level is the whole process's: each server of this module has the same."""


@pytest_asyncio.fixture(loop_scope="module")
async def server(protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers) -> Running:
    return await shared.with_settings(**OPTIONS, **protocol.settings(provider))


@pytest_asyncio.fixture(loop_scope="module")
async def own_server(protocol: ProviderProtocol, provider: ProviderServer, tmp_path: Path) -> AsyncGenerator[Running]:
    """A server with nothing in its database."""
    async with serving(tmp_path / "data", **OPTIONS, **protocol.settings(provider)) as running:
        yield running


@pytest.fixture
def logged(server: Running) -> Iterator[io.StringIO]:
    """What the server logs, as its operator would see it."""
    del server
    (handler,) = (h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler)
    before = handler.setStream(lines := io.StringIO())
    yield lines
    handler.setStream(before)


async def test_an_answer(server: Running, provider: ProviderServer, protocol: ProviderProtocol) -> None:
    provider.script(protocol.whole("Grüße, two  spaces and 🌍."))
    events = await server.events(ask(system_prompt="Be brief.", temperature=0.25, max_tokens=77))
    ordered(events)
    assert text_of(events) == "Grüße, two  spaces and 🌍."
    end = only_terminal(events)
    assert (end["type"], end["finish_reason"]) == ("run.completed", "stop")
    assert end["usage"]["input_tokens"] == 7
    assert end["usage"]["output_tokens"] > 0
    assert events[0]["model"] == protocol.model
    call = await provider.call(0)
    assert protocol.sent(call) == [("system", "Be brief."), ("user", "Say something.")]
    assert protocol.asked(call) == {"model": "test-model", "temperature": 0.25, "limit": 77}
    assert call.json.get("stream", call.path.endswith(":streamGenerateContent")) is True


async def test_the_finish_reason_is_passed_on(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol
) -> None:
    provider.script(protocol.whole("It was cut", finish="length"))
    assert only_terminal(await server.events(ask()))["finish_reason"] == "length"


async def test_a_model_that_is_not_listed_is_passed_on(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol
) -> None:
    events = await server.events(ask(model=f"{protocol.name}/brand/new:model-9"))
    assert only_terminal(events)["type"] == "run.completed"
    assert protocol.asked(await provider.call(0))["model"] == "brand/new:model-9"
    assert events[0]["model"] == f"{protocol.name}/brand/new:model-9"


async def test_the_message_is_stored_before_the_provider_is_called(
    own_server: Running, provider: ProviderServer, protocol: ProviderProtocol
) -> None:
    seen: list[object] = []

    def script(_: object) -> list[Step]:
        seen.extend(rows(own_server, "SELECT role, parts FROM messages"))
        seen.extend(rows(own_server, "SELECT status FROM runs"))
        return protocol.whole("Yes.")

    provider.script(script)
    await own_server.events(ask("Is it there?"))
    (role, parts), (status,) = seen  # type: ignore[misc]
    assert (role, status) == ("user", "running")
    assert "Is it there?" in parts


async def test_no_such_model(server: Running, provider: ProviderServer, protocol: ProviderProtocol) -> None:
    await failed(server, provider, protocol.no_such_model(), "model_not_found", retryable=False)


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "provider_error", False),
        (401, "provider_error", False),
        (403, "provider_error", False),
        (429, "rate_limited", True),
        (500, "provider_error", True),
        (503, "provider_error", True),
    ],
)
async def test_a_refusal(
    server: Running,
    provider: ProviderServer,
    protocol: ProviderProtocol,
    logged: io.StringIO,
    status: int,
    code: str,
    retryable: bool,
) -> None:
    await failed(server, provider, protocol.refused(status), code, retryable=retryable)
    assert "run_ended" in logged.getvalue()
    # The operator finds what the provider said, without the key.
    assert f"{RAW} ***" in logged.getvalue()
    assert not [x for x in (KEY, "Traceback", "Say something") if x in logged.getvalue()]


async def test_what_the_provider_said_is_shown_where_that_is_allowed(
    shared: SharedServers, provider: ProviderServer, protocol: ProviderProtocol
) -> None:
    server = await shared.with_settings(**OPTIONS, show_provider_errors=True, **protocol.settings(provider))
    provider.script(protocol.refused(400))
    events = await server.events(ask())
    assert only_terminal(events)["error"]["detail"] == f"{RAW} ***"
    run = (await server.client.get(f"/runs/{events[0]['run_id']}")).json()
    assert run["error"]["detail"] == f"{RAW} ***"
    provider.script(protocol.refused(500))
    problem = await server.client.post("/chat", json=ask(), headers={"Accept": "application/json"})
    assert problem.status_code == 502
    assert problem.json()["provider_detail"] == f"{RAW} ***"


async def test_a_malformed_chunk(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol, logged: io.StringIO
) -> None:
    script = [*protocol.begun("Half an answer"), *protocol.malformed()]
    await failed(server, provider, script, "provider_error", retryable=True, kept="Half an answer")
    assert not [x for x in (RAW, KEY, "Traceback", "Half an") if x in logged.getvalue()]


async def test_an_error_inside_a_200(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol, logged: io.StringIO
) -> None:
    script = [*protocol.begun("Half an answer"), *protocol.error_inside()]
    await failed(server, provider, script, "provider_error", retryable=True, kept="Half an answer")
    assert not [x for x in (KEY, "Traceback", "Half an") if x in logged.getvalue()]


@pytest.mark.parametrize("reset", [True, False])
async def test_a_cut_connection(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol, reset: bool
) -> None:
    script = [*protocol.begun("Half an answer"), Cut(reset)]
    await failed(server, provider, script, "provider_error", retryable=True, kept="Half an answer")


async def test_a_connection_cut_before_the_first_byte(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol
) -> None:
    await failed(server, provider, [Cut()], "provider_error", retryable=True)


async def test_no_finish_reason_is_not_completed(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol
) -> None:
    script = protocol.unfinished("Half an answer")
    await failed(server, provider, script, "provider_error", retryable=True, kept="Half an answer")


async def test_a_stall_in_the_middle(
    shared: SharedServers, provider: ProviderServer, protocol: ProviderProtocol
) -> None:
    server = await shared.with_settings(**OPTIONS, idle_timeout=0.7, **protocol.settings(provider))
    script = [*protocol.begun("Half an answer"), Stall()]
    await failed(server, provider, script, "upstream_stalled", retryable=True, kept="Half an answer")
    await (await provider.call(0)).disconnected()


async def test_a_stall_before_the_first_token(
    shared: SharedServers, provider: ProviderServer, protocol: ProviderProtocol
) -> None:
    server = await shared.with_settings(**OPTIONS, first_token_timeout=0.7, **protocol.settings(provider))
    await server.events(ask())  # the client is made with the first call, which takes a part of the time
    provider.reset()
    await failed(server, provider, [Stall()], "provider_timeout", retryable=True)
    await (await provider.call(0)).disconnected()


async def test_a_provider_that_is_not_there(
    protocol: ProviderProtocol, provider: ProviderServer, tmp_path: Path
) -> None:
    options = protocol.settings(provider)
    url = next(k for k in options if k.endswith("base_url"))
    async with serving(tmp_path / "data", **{**OPTIONS, **options, url: "http://127.0.0.1:9/v1"}) as server:
        await failed(server, provider, [], "provider_error", retryable=True)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<html>Bad gateway</html>", "provider_error"),
        (b"", "provider_error"),
        (b"{}", "provider_error"),
        (b"null", "provider_error"),
        (b"[]", "provider_error"),
        (b'"text"', "provider_error"),
        (b"\xff\xfe", "provider_error"),
    ],
)
async def test_a_200_that_is_no_answer(
    server: Running, provider: ProviderServer, protocol: ProviderProtocol, body: bytes, code: str
) -> None:
    script: list[Step] = [Status(200, {"Content-Type": "text/html"}, body)]
    await failed(server, provider, script, code, retryable=True)


@pytest.mark.parametrize(
    ("kind", "body", "code", "retryable"),
    [
        ("application/json", b'{"error": {"message": "prompt is too long: 9 tokens > 8"}}', "context_overflow", False),
        ("application/json", b'{"error": {"code": 429, "message": "slow"}}', "rate_limited", True),
        ("application/json", b'{"detail": "Invalid API key"}', "provider_error", False),
        ("text/html", b"<html><title>Sign in</title></html>", "provider_error", True),
    ],
)
async def test_an_error_with_status_200(
    server: Running,
    provider: ProviderServer,
    protocol: ProviderProtocol,
    kind: str,
    body: bytes,
    code: str,
    retryable: bool,
) -> None:
    script: list[Step] = [Status(200, {"Content-Type": kind}, body)]
    await failed(server, provider, script, code, retryable=retryable)
