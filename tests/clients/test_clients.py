"""Clients that others wrote read the native stream, with heartbeats between its events."""

import json

import pytest

from backend.routers.answers import respond
from tests.clients.conftest import ANSWER
from tests.clients.readers import Reader, eventsource, fetch_event_source, httpx_sse, openai_decoder
from tests.scenarios.support import ask, ordered
from tests.support.harness import Running, text_of

READERS = [httpx_sse, openai_decoder, eventsource, fetch_event_source]
CARELESS = [httpx_sse, openai_decoder, fetch_event_source]
"""Those that make an event of an empty line after a comment, which the standard tells them not to."""


async def test_heartbeats_fall_between_the_events(beating: Running) -> None:
    """Else the tests below would prove nothing."""
    async with beating.client.stream("POST", "/chat", json=ask()) as response:
        wire = b"".join([piece async for piece in response.aiter_raw()])
    frames = wire.split(b"\n\n")
    assert sum(frame.count(b": hb\n") >= 3 for frame in frames) >= len(ANSWER.split()) - 1
    assert all(b"data: {" in frame for frame in frames[:-1])
    assert frames[-1] == b""


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
async def test_it_reads_every_event_and_no_other(beating: Running, read: Reader) -> None:
    messages = await read(beating.base)
    events = [json.loads(message.data) for message in messages]
    ordered(events)
    assert (events[-1]["type"], text_of(events)) == ("run.completed", ANSWER)
    run_id = events[0]["run_id"]
    assert [message.id for message in messages] == [f"{run_id}:{event['seq']}" for event in events]


@pytest.mark.parametrize("read", CARELESS, ids=lambda read: read.__name__)
async def test_an_empty_line_after_a_heartbeat_would_be_an_empty_event(
    beating: Running, read: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(respond, "HEARTBEAT", b": hb\n\n")
    messages = await read(beating.base)
    assert sum(message.data == "" for message in messages) >= 3
