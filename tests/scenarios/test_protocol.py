"""The stream on the wire: framing to the byte, headers, order, the other forms."""

import asyncio
import gc
import json
import re

import httpx
import pytest

from tests.scenarios.support import ask, gated, only_terminal, ordered, watch
from tests.support.harness import Running, serving, text_of
from tests.support.provider_protocol import (
    Cut,
    Gate,
    Raw,
    Send,
    Sleep,
    answer,
    chunk,
    done,
    error,
    rate_limited,
    usage_chunk,
)
from tests.support.provider_server import ProviderServer, wire

SIMULATED = ask(model="simulated/words")


async def raw(server: Running, body: dict, **kwargs) -> tuple[httpx.Response, bytes]:
    async with server.client.stream("POST", "/chat", json=body, **kwargs) as response:
        return response, b"".join([piece async for piece in response.aiter_raw()])


async def test_a_frame_is_one_data_line_its_id_and_an_empty_line(server: Running) -> None:
    response, body = await raw(server, SIMULATED)
    run_id = response.headers["content-location"].removeprefix("/runs/")
    assert b"\r" not in body
    assert body.endswith(b"\n\n")
    frames = body[:-2].split(b"\n\n")
    assert len(frames) > 10
    for seq, frame in enumerate(frames, 1):
        data, id_line = frame.split(b"\n")
        assert id_line == f"id: {run_id}:{seq}".encode()
        assert data.startswith(b"data: {")
        payload = json.loads(data[6:])
        assert payload["seq"] == seq
        assert json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode() == data[6:], "not compact"


async def test_headers(server: Running) -> None:
    response, _ = await raw(server, SIMULATED, headers={"Origin": "http://localhost:3000"})
    headers = response.headers
    assert headers["content-type"].partition(";")[0] == "text/event-stream"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-streamforge-protocol"] == "1"
    run = headers["content-location"]
    assert re.fullmatch(r"/runs/run_[0-9a-f]{32}", run)
    assert headers["location"] == f"{run}/events"
    assert headers["access-control-allow-origin"] == "http://localhost:3000"
    exposed = {name.strip().lower() for name in headers["access-control-expose-headers"].split(",")}
    assert exposed >= {"location", "content-location", "retry-after", "x-streamforge-protocol", "x-request-id"}


async def test_a_browser_may_send_what_resuming_needs(server: Running) -> None:
    headers = {
        "Origin": "http://localhost:5173",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, last-event-id, idempotency-key",
    }
    response = await server.client.options("/chat", headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["access-control-allow-origin"] == "http://localhost:5173"


async def test_order(with_provider: Running, provider: ProviderServer) -> None:
    await with_provider.upload("contract.md", b"# Terms\n\nThe notice period is 45 days. Invoices are due in 30 days.")
    provider.script(answer("The notice period is 45 days [1]. Invoices are due in 30 days [1].", chunk_by=4))
    events = await with_provider.events({"message": "How long is the notice period?"})
    ordered(events)
    started = events[0]
    assert started["v"] == 1
    assert started["model"] == "openai/test-model"
    assert {"run_id", "session_id", "user_message_id", "message_id"} <= started.keys()
    assert [e["phase"] for e in events if e["type"] == "status"] == ["retrieving", "generating"]
    assert len([e for e in events if e["type"] == "citation"]) == 2
    assert "[1]" not in text_of(events)
    assert all(e["_id"] == f"{started['run_id']}:{e['seq']}" for e in events)


async def test_a_citation_comes_before_the_answer_goes_on(with_provider: Running, provider: ProviderServer) -> None:
    await with_provider.upload("contract.md", b"# Terms\n\nThe notice period is 45 days. Invoices are due in 30 days.")
    gate = asyncio.Event()
    provider.script(gated("The notice period is 45 days [1]. And", gate, " more."))
    async with watch(with_provider.client, body={"message": "How long is the notice period?"}) as client:
        cited = await client.until("citation")
        assert cited["quote"] == "The notice period is 45 days."
        gate.set()
        ordered(await client.all())


async def test_usage_is_what_the_provider_counted(with_provider: Running, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "Hi."}), chunk({}, "length"), usage_chunk(11, 5), done()])
    events = await with_provider.events(ask())
    (usage,) = [e for e in events if e["type"] == "usage"]
    assert (usage["model"], usage["input_tokens"], usage["output_tokens"]) == ("openai/test-model", 11, 5)
    assert "estimated" not in usage
    assert "cost" not in usage, "an unknown cost is not zero"
    end = only_terminal(events)
    assert end["finish_reason"] == "length"
    assert (end["usage"]["input_tokens"], end["usage"]["output_tokens"]) == (11, 5)


async def test_usage_that_nobody_counted_is_marked_as_estimated(
    with_provider: Running, provider: ProviderServer
) -> None:
    provider.script(answer("Hello there, you.", usage=False))
    events = await with_provider.events(ask())
    (usage,) = [e for e in events if e["type"] == "usage"]
    assert usage["estimated"] is True
    assert usage["output_tokens"] > 0
    assert only_terminal(events)["usage"]["estimated"] is True


async def test_silence_is_filled_with_a_comment_and_one_newline(tmp_path, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script([chunk({"content": "Hi"}), Gate(gate), *answer(" there")])
    keys = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url}
    body = b""
    async with (
        serving(tmp_path / "data", heartbeat_seconds=0.05, llm_model="openai/m", **keys) as server,
        server.client.stream("POST", "/chat", json=ask()) as response,
    ):
        async for piece in response.aiter_raw():
            body += piece
            if body.count(b": hb") >= 2:
                gate.set()
    assert b"\n\n: hb\n: hb\n" in body
    without = re.sub(rb"(?m)^: hb\n", b"", body)
    assert [f.split(b"\n")[1].rpartition(b":")[2] for f in without[:-2].split(b"\n\n")] == [
        str(n).encode() for n in range(1, without.count(b"\n\n") + 1)
    ]


@pytest.mark.parametrize("form", ["curl -d", "no content type"])
async def test_curl_needs_no_header(server: Running, form: str) -> None:
    extra = ["-H", "Content-Type:"] if form == "no content type" else []
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sN", "-X", "POST", f"{server.base}/chat", "-d", '{"message":"hi","model":"simulated/words"}'),
        *extra,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert out.startswith(b'data: {"type":"run.started"')
    assert b'"type":"run.completed"' in out


async def test_a_foreign_page_cannot_use_what_curl_may(server: Running) -> None:
    form = {"content": b'{"message":"hi"}', "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    for header in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        response = await server.client.post("/chat", content=form["content"], headers={**form["headers"], **header})
        assert response.status_code in (403, 422)
    assert (await server.client.get("/sessions")).json()["items"] == []


CONTRACT = b"# Terms\n\nThe notice period is 45 days. It must be written."
CITED = "The notice period is 45 days [1]. It is good to know."
MARKED = "The notice period is 45 days. [1] It is good to know."


async def test_plain_text(with_provider: Running, provider: ProviderServer) -> None:
    await with_provider.upload("contract.md", CONTRACT)
    provider.script(answer(CITED, chunk_by=3))
    response, body = await raw(with_provider, {"message": "How long is notice?"}, headers={"Accept": "text/plain"})
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert body.decode() == f"{MARKED}\n"


async def test_text_frames(with_provider: Running, provider: ProviderServer) -> None:
    await with_provider.upload("contract.md", CONTRACT)
    provider.script(answer(CITED, chunk_by=3))
    async with with_provider.client.stream(
        "POST", "/chat", params={"format": "text"}, json={"message": "How long is notice?"}
    ) as response:
        body = (await response.aread()).decode()
    assert "id:" not in body
    assert "{" not in body
    assert "".join(frame.removeprefix("data: ") for frame in body.split("\n\n")) == MARKED


async def test_text_frames_keep_line_ends(with_provider: Running, provider: ProviderServer) -> None:
    text = "one\n\ntwo\r\nthree\n"
    provider.script(answer(text, chunk_by=5))
    response = await with_provider.client.post("/chat", params={"format": "text"}, json=ask())
    data = [
        "\n".join(line.removeprefix("data: ") for line in frame.split("\n"))
        for frame in response.text.removesuffix("\n\n").split("\n\n")
    ]
    assert "".join(data) == text.replace("\r", "")


async def test_one_json_answer(with_provider: Running, provider: ProviderServer) -> None:
    await with_provider.upload("contract.md", CONTRACT)
    provider.script(answer(CITED, chunk_by=3))
    body = {"message": "How long is notice?"}
    response = await with_provider.client.post("/chat", json=body, headers={"Accept": "application/json"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    folded = response.json()
    assert folded["marked_text"] == MARKED
    assert folded["text"] == MARKED.replace(" [1]", "")
    (part,) = folded["parts"]
    assert (part["type"], part["text"]) == ("text", folded["text"])
    assert (folded["status"], folded["finish_reason"]) == ("completed", "stop")
    assert folded["citations"][0]["quote"] == "The notice period is 45 days."
    assert folded["sources"][0]["title"] == "contract.md"
    assert response.headers["content-location"] == f"/runs/{folded['run_id']}"
    stored = (await with_provider.client.get(f"/chat/history/{folded['session_id']}")).json()
    assert stored["messages"][1]["content"] == MARKED


async def test_a_failed_run_is_a_problem_where_json_was_asked_for(
    with_provider: Running, provider: ProviderServer
) -> None:
    provider.script([error(429, "slow down", "requests", "rate_limit_exceeded")] * 5)
    response = await with_provider.client.post("/chat", json=ask(), headers={"Accept": "application/json"})
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["code"], problem["retryable"]) == ("rate_limited", True)
    assert problem["run_id"] and problem["session_id"]


async def test_a_whole_answer_is_whole_whatever_the_cursor(server: Running) -> None:
    """Also one ahead of the run, which is 409 to a stream."""
    json_please = {"Accept": "application/json"}
    first = (await server.client.post("/chat", json=ask(), headers=json_please)).json()
    for method, path in (("GET", f"/runs/{first['run_id']}/events"), ("POST", "/chat")):
        cursor = {"Last-Event-ID": f"{first['run_id']}:9999"}
        body = ask() if method == "POST" else None
        again = await server.client.request(method, path, json=body, headers={**json_please, **cursor})
        assert (again.status_code, again.json()) == (200, first)
        ahead = await server.client.request(method, path, json=body, headers=cursor)
        assert (ahead.status_code, ahead.json()["code"]) == (409, "cursor_ahead")


@pytest.mark.parametrize(("asked", "told"), [(7, "7"), (1.5, "2"), (100_000, "86400"), (float("inf"), None), (0, None)])
async def test_how_long_a_provider_asks_to_wait_is_passed_on(
    with_provider: Running, provider: ProviderServer, asked: float, told: str | None
) -> None:
    provider.script(rate_limited(asked))
    response = await with_provider.client.post("/chat", json=ask(), headers={"Accept": "application/json"})
    assert response.status_code == 429
    assert response.headers.get("retry-after") == told


async def test_everything_else_gets_events(server: Running) -> None:
    for accept in ("*/*", "text/event-stream", "text/event-stream, text/plain", ""):
        response, _ = await raw(server, SIMULATED, headers={"Accept": accept})
        assert response.headers["content-type"].startswith("text/event-stream"), accept


async def test_a_connection_that_the_provider_resets_when_it_is_idle_is_not_missed(
    with_provider: Running, provider: ProviderServer
) -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    whole = wire([step for step in answer("Hello.") if isinstance(step, Send)])
    # In two writes, or the connection is given back before anybody has asked for its end.
    provider.script([Raw(whole[:-20]), Sleep(0.05), Raw(whole[-20:]), Sleep(0.05), Cut(reset=True)])
    assert text_of(await with_provider.events(ask())) == "Hello."
    async with asyncio.timeout(5):
        while provider.open_connections:
            await asyncio.sleep(0.01)
    await with_provider.events(ask())  # the pool lets go of what it finds closed
    gc.collect()
    assert complaints == []
