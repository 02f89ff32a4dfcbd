"""Readers are as tolerant as the standards, on every protocol: only what makes the text unknowable ends an answer."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.conftest import SharedServers
from tests.contract.protocols import (
    PROTOCOLS,
    OllamaProtocol,
    OpenAIProtocol,
    ProviderProtocol,
)
from tests.scenarios.support import ask, only_terminal, ordered
from tests.support.harness import text_of
from tests.support.provider_protocol import Send, Sleep, Status, Step, answer, chunk, done, usage_chunk
from tests.support.provider_server import ProviderServer

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("used_protocols"),
    pytest.mark.filterwarnings("ignore:.*is not a valid"),
]
every = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
EVENTS = [protocol for protocol in PROTOCOLS if not isinstance(protocol, OllamaProtocol)]
events_only = pytest.mark.parametrize("protocol", EVENTS, ids=lambda protocol: protocol.name)
OPENAI = OpenAIProtocol()
TEXT = "Grüße, two  spaces, 🌍 and a\u2028line."


async def read(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers, script: list[Step], **settings: Any
) -> tuple[str, dict[str, Any]]:
    """The text and the terminal event of one answer."""
    provider.script(script)
    server = await shared.with_settings(**protocol.settings(provider), **settings)
    async with asyncio.timeout(20):
        events = await server.events(ask())
    ordered(events)
    return text_of(events), only_terminal(events)


def body_of(protocol: ProviderProtocol, text: str = TEXT) -> bytes:
    """The bytes of a whole answer."""
    return b"".join(step.data for step in protocol.whole(text) if isinstance(step, Send))


def as_stream(protocol: ProviderProtocol, *pieces: bytes, kind: str = "") -> list[Step]:
    usual = "application/x-ndjson" if isinstance(protocol, OllamaProtocol) else "text/event-stream"
    return [Status(200, {"Content-Type": kind or usual}), *map(Send, pieces)]


def data_events(body: bytes) -> list[bytes]:
    return [event for event in body.replace(b"\r\n", b"\n").split(b"\n\n") if event]


DRESSES: dict[str, Callable[[bytes], bytes]] = {
    "LF": lambda body: body.replace(b"\r\n", b"\n"),
    "CRLF": lambda body: body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
    "CR": lambda body: body.replace(b"\r\n", b"\n").replace(b"\n", b"\r"),
    "byte order mark": lambda body: b"\xef\xbb\xbf" + body,
    "no space after the colon": lambda body: body.replace(b"data: ", b"data:"),
    "comments": lambda body: b": hi\n\n" + body.replace(b"data: ", b": keep-alive\ndata: "),
    "pings": lambda body: b"".join(
        b'event: ping\ndata: {"type": "ping"}\n\n' + event + b"\n\n" for event in data_events(body)
    ),
    "empty data": lambda body: b"data:\n\ndata\n\n" + body + b"data: \n\n",
    "id and retry": lambda body: body.replace(b"data: ", b"id: 7\nretry: 3000\ndata: "),
    "an unknown field": lambda body: body.replace(b"data: ", b"colour: red\ndata: "),
    "no last line end": lambda body: body.rstrip(b"\r\n"),
    "several data lines": lambda body: body.replace(b"data: {", b"data: {\ndata: "),
}


@events_only
@pytest.mark.parametrize("dress", DRESSES)
async def test_whatever_events_may_look_like(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers, dress: str
) -> None:
    body = DRESSES[dress](body_of(protocol))
    text, end = await read(protocol, provider, shared, as_stream(protocol, body))
    assert (text, end["type"]) == (TEXT, "run.completed")


@every
@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/octet-stream"])
async def test_a_stream_under_another_name_is_read_by_its_content(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers, kind: str
) -> None:
    text, end = await read(protocol, provider, shared, as_stream(protocol, body_of(protocol), kind=kind))
    assert (text, end["type"]) == (TEXT, "run.completed")


@every
async def test_bytes_cut_anywhere(protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers) -> None:
    body = body_of(protocol)
    pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
    text, end = await read(protocol, provider, shared, as_stream(protocol, *pieces))
    assert (text, end["type"]) == (TEXT, "run.completed")


@every
async def test_a_character_cut_in_two(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers
) -> None:
    """The halves of a UTF-16 pair in two pieces of the text: one character. A lone half is U+FFFD."""
    body = body_of(protocol, "A B C D")
    for letter, text in ((b"A", rb"\\ud83d"), (b"B", rb"\\ude00"), (b"C", rb"\\ud83d")):
        body = re.sub(rb'" ?%b"' % letter, rb'"%b"' % text, body, count=1)
    text, end = await read(protocol, provider, shared, as_stream(protocol, body))
    assert end["type"] == "run.completed"
    assert text.replace(" ", "") == "😀\ufffdD"


ODD: dict[str, dict[str, Any]] = {
    "openai": {"created": "now", "usage": "none", "id": 7, "model": None, "error": None, "object": [], "logprobs": "x"},
    "ollama": {
        "created_at": 7,
        "total_duration": "long",
        "model": None,
        "error": "",
        "eval_duration": {},
        "done": None,
    },
    "anthropic": {"index": "0", "usage": "none", "message_id": {}, "extra": float("nan")},
    "google": {"responseId": 7, "usageMetadata": "none", "modelVersion": 3, "promptFeedback": None, "createTime": {}},
    "cohere": {"id": 7, "index": "0", "logprobs": "x", "extra": float("nan")},
}


@every
async def test_odd_types_in_fields_that_nobody_needs(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers
) -> None:
    lines = body_of(protocol).replace(b"\r\n", b"\n").split(b"\n")
    odd: list[bytes] = []
    for line in lines:
        prefix, brace, rest = line.partition(b"{")
        if not brace:
            odd.append(line)
            continue
        fields = json.loads(brace + rest)
        added = {k: v for k, v in ODD[protocol.name].items() if not (k == "done" and fields.get("done"))}
        odd.append(prefix + json.dumps({**fields, **added}).encode())
    text, end = await read(protocol, provider, shared, as_stream(protocol, b"\n".join(odd)))
    assert (text, end["type"]) == (TEXT, "run.completed")


def frame(**fields: Any) -> Send:
    return Send(b"data: " + json.dumps(fields).encode() + b"\n\n")


def choice(delta: Any, **more: Any) -> Send:
    return frame(choices=[{"index": 0, "delta": delta, "finish_reason": None, **more}])


STREAMS: dict[str, tuple[list[Step], str]] = {
    "choices null": ([frame(choices=None), choice({"content": "So."})], "So."),
    "choices empty, no usage": ([frame(choices=[], prompt_filter_results=[]), choice({"content": "So."})], "So."),
    "content null": ([choice({"content": None}), choice({"content": "So."}), choice({"content": None})], "So."),
    "delta null": ([choice(None), choice({"content": "So."})], "So."),
    "delta missing": ([frame(choices=[{"index": 0}]), choice({"content": "So."})], "So."),
    "an index that is text": ([choice({"content": "So."}, index="0")], "So."),
    "no index": ([frame(choices=[{"delta": {"content": "So."}}])], "So."),
    "index 1 alone": ([choice({"content": "So."}, index=1)], "So."),
    "several choices": (
        [frame(choices=[{"index": 1, "delta": {"content": "No"}}, {"index": 0, "delta": {"content": "So."}}])],
        "So.",
    ),
    "another choice in chunks of its own": (
        [choice({"content": "So"}), choice({"content": "No"}, index=1), choice({"content": "."})],
        "So.",
    ),
    "logprobs that are garbage": ([choice({"content": "So."}, logprobs="garbage")], "So."),
    "an empty error": ([frame(error={}, choices=[{"index": 0, "delta": {"content": "So."}}])], "So."),
    "an error of nulls": (
        [frame(error={"code": None, "message": ""}, choices=[{"index": 0, "delta": {"content": "So."}}])],
        "So.",
    ),
    "an error that is false": ([frame(error=False, choices=[{"index": 0, "delta": {"content": "So."}}])], "So."),
    "tool calls that are none": ([choice({"content": "So.", "tool_calls": [], "function_call": None})], "So."),
    "odd reasoning": ([choice({"content": "So.", "reasoning": {"a": 1}, "reasoning_content": 7})], "So."),
    "odd refusal": ([choice({"content": "So.", "refusal": False})], "So."),
    "a number as content": ([choice({"content": 4}), choice({"content": "2"})], "42"),
    "content as one part": ([choice({"content": {"type": "text", "text": "So."}})], "So."),
    "content in odd parts": ([choice({"content": [None, 7, "So", {"type": "text", "text": "."}, {"x": 1}]})], "So."),
    "a huge number": ([frame(created=10**400, choices=[{"index": 0, "delta": {"content": "So."}}])], "So."),
    "data that is no object": (
        [Send(b'data: null\n\ndata: []\n\ndata: 7\n\ndata: "x"\n\n'), choice({"content": "So."})],
        "So.",
    ),
    "message instead of delta": (
        [frame(choices=[{"index": 0, "message": {"role": "assistant", "content": word}}]) for word in ("One ", "two")],
        "One two",
    ),
    "messages that repeat what came before": (
        [frame(choices=[{"index": 0, "message": {"content": text}}]) for text in ("One", "One two", "One two")],
        "One two",
    ),
    "the whole message at the end": (
        [choice({"content": "One "}), choice({"content": "two"}), frame(choices=[{"message": {"content": "One two"}}])],
        "One two",
    ),
    "delta and message": (
        [
            choice({"content": word}, message={"content": whole})
            for word, whole in (("One ", "One "), ("two", "One two"))
        ],
        "One two",
    ),
    "legacy text": ([frame(choices=[{"index": 0, "text": word}]) for word in ("One ", "two")], "One two"),
    "one choice as an object": ([frame(choices={"delta": {"content": "So."}})], "So."),
    "bad UTF-8": ([Send(b'data: {"choices":[{"index":0,"delta":{"content":"So\xff."}}]}\n\n')], "So\ufffd."),
    "a NUL": ([choice({"content": "S\x00o."})], "So."),
    "NaN": ([Send(b'data: {"x":NaN,"choices":[{"index":0,"delta":{"content":"So."}}]}\n\n')], "So."),
    "single line ends": (
        [Send(b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n' % word) for word in (b"One ", b"two")],
        "One two",
    ),
    "a body a line, without events": (
        [Send(b'{"choices":[{"index":0,"delta":{"content":"%b"}}]}\n' % word) for word in (b"One ", b"two")],
        "One two",
    ),
}


@pytest.mark.parametrize("case", STREAMS)
async def test_what_servers_of_openais_api_send(case: str, provider: ProviderServer, shared: SharedServers) -> None:
    steps, expected = STREAMS[case]
    text, end = await read(OPENAI, provider, shared, [*steps, chunk({}, "stop"), usage_chunk(7, 3), done()])
    assert (text, end["type"]) == (expected, "run.completed")


async def test_everything_in_one_chunk(provider: ProviderServer, shared: SharedServers) -> None:
    delta = {"content": "So.", "reasoning_content": "Hm.", "tool_calls": []}
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    script: list[Step] = [frame(choices=[{"index": 0, "delta": delta, "finish_reason": "length"}], usage=usage), done()]
    text, end = await read(OPENAI, provider, shared, script)
    assert (text, end["finish_reason"], end["usage"]["input_tokens"]) == ("So.", "length", 7)


@pytest.mark.parametrize("broken", [b'data: {"choices":[{"delta":\n\n', b"data: oops\n\n", b'data: {"a":1}}\n\n'])
async def test_what_makes_the_text_unknowable_ends_it(
    broken: bytes, provider: ProviderServer, shared: SharedServers
) -> None:
    script = [chunk({"content": "Half"}), Send(broken), chunk({"content": " more"}), chunk({}, "stop"), done()]
    text, end = await read(OPENAI, provider, shared, script)
    assert (text, end["error"]["code"]) == ("Half", "provider_error")


# --- silence


def keep_alive(protocol: ProviderProtocol) -> Send:
    if isinstance(protocol, OllamaProtocol):
        return Send(b"\n")
    return Send(b": keep-alive\n\n")


@every
async def test_bytes_are_no_silence(
    protocol: ProviderProtocol, provider: ProviderServer, shared: SharedServers
) -> None:
    alive = [step for _ in range(5) for step in (keep_alive(protocol), Sleep(0.2))]
    script = [*alive, *protocol.begun("So "), *alive, *protocol.whole("it is.")]
    if isinstance(protocol, OllamaProtocol):
        head, *rest = protocol.whole("it is.")
        script = [head, *alive, *protocol.begun("So ")[1:], *alive, *rest]
    limits = {"idle_timeout": 0.8, "first_token_timeout": 0.8}
    text, end = await read(protocol, provider, shared, script, **limits)
    assert (text, end["type"]) == ("So it is.", "run.completed")


async def test_empty_deltas_are_no_silence(provider: ProviderServer, shared: SharedServers) -> None:
    alive = [step for _ in range(5) for step in (chunk({"content": ""}), Sleep(0.2))]
    script = [chunk({"content": "So "}), *alive, *answer("it is.")]
    text, end = await read(OPENAI, provider, shared, script, idle_timeout=0.8, first_token_timeout=0.8)
    assert (text, end["type"]) == ("So it is.", "run.completed")


async def test_bytes_without_an_end_have_a_limit(provider: ProviderServer, shared: SharedServers) -> None:
    script = [step for _ in range(60) for step in (keep_alive(OPENAI), Sleep(0.1))]
    _, end = await read(OPENAI, provider, shared, script, total_timeout=1.0, first_token_timeout=0.8)
    assert end["error"]["code"] == "provider_timeout"
    assert "TOTAL_TIMEOUT" in end["error"]["message"]
