"""Faults of the provider: it cuts, falls silent, refuses, sends nonsense. Never is such an answer called complete."""

import asyncio
from collections.abc import Sequence
from typing import cast

from tests.faults import checks
from tests.faults.client import Event, joined, text_of
from tests.faults.lane import Lane
from tests.faults.provider import answer, pieces
from tests.support.provider_protocol import (
    Cut,
    Raw,
    Script,
    Send,
    Sleep,
    Stall,
    chunk,
    context_overflow,
    error,
    error_in_stream,
    json_response,
    malformed,
    model_not_found,
    rate_limited,
)
from tests.support.provider_server import wire

SILENCE = 0.25
"""FIRST_TOKEN_TIMEOUT and IDLE_TIMEOUT of the runs that stall, in seconds."""
_SECRET = "acct-77-internal-host"
"""Stands in what the provider says about its errors; no client may read it."""
_TEXTS = ["Grüße ", "from ", "a ", "provider ", "that ", "gives up 🌍"]
_SENDS = cast("list[Send]", answer(_TEXTS))
_WIRE = wire(_SENDS)
_FINISHED = len(wire(_SENDS[:-2])) - len(b"0\r\n\r\n")
"""Bytes until the finish reason has been sent."""
BYTES = len(_WIRE)
CUTS = 16
"""Of one schedule."""


async def provider_cut(lane: Lane) -> None:
    """The connection ends after byte b of the response, head included: each schedule takes the next bytes."""
    offsets = [(lane.index * CUTS + i) % BYTES for i in range(CUTS)]
    await asyncio.gather(*(_cut_at(lane, at) for at in offsets))


async def _cut_at(lane: Lane, at: int) -> None:
    rng = lane.rng
    message = lane.message(f"byte {at}")
    split = rng.randint(0, at)
    script: Script = [Raw(_WIRE[:split]), Sleep(rng.choice([0, 0.003])), Raw(_WIRE[split:at]), Cut(rng.random() < 0.5)]
    events = await _failed(lane, message, [script], may_complete=at >= _FINISHED)
    told = text_of(events)
    checks.expect("partial", "".join(_TEXTS).startswith(told), f"{told!r} is no beginning of {_TEXTS}")


async def provider_stall(lane: Lane) -> None:
    """Nothing comes after piece k, and the connection stays open. After its finish reason an answer is complete."""
    await asyncio.gather(*(_stall_at(lane, k) for k in range(12)))


async def _stall_at(lane: Lane, k: int) -> None:
    message = lane.message(f"silence {k}")
    whole = answer(pieces(lane.rng, 12), lane.rng.choice([0, 0.002]))
    sent = whole[: 1 + k * (1 + 1)]
    is_finished = len(sent) > len(whole) - 3
    events = await _failed(lane, message, [[*sent, Stall()]], may_complete=is_finished)
    if is_finished:
        checks.expect("status", events[-1].type == "run.completed", f"{events[-1].data} after the finish reason")
        return
    code = events[-1].data["error"]["code"]
    expected = "upstream_stalled" if text_of(events) else "provider_timeout"
    checks.expect("status", code == expected, f"{code} after {text_of(events)!r}")


async def provider_error(lane: Lane) -> None:
    """Refusals, errors inside a 200 and answers that are none; for good, or only at the first call."""
    rng = lane.rng
    text = answer(pieces(rng, rng.randint(1, 6)))[:-3]
    refusals: list[Script] = [
        rate_limited(0),
        context_overflow(),
        model_not_found(),
        [error(500, _SECRET, "server_error", None)],
        [error(503, _SECRET, "server_error", None)],
        [error(401, f"Incorrect API key: {_SECRET}", "invalid_request_error", "invalid_api_key")],
        [error_in_stream(_SECRET)],
        [*text, error_in_stream(_SECRET)],
        [*text, malformed()],
        [malformed()],
        [*text, chunk({}, "content_filter"), Send(b"data: [DONE]\n\n")],
        [*text, Send(b"data: [DONE]\n\n")],
        text,
        [json_response(200, {"answer": "not of this API"})],
        [Send(b"<html>" + _SECRET.encode() + b"</html>")],
    ]
    await asyncio.gather(*(_refused(lane, n, refusal) for n, refusal in enumerate(refusals)))


async def _refused(lane: Lane, number: int, refusal: Script) -> None:
    message = lane.message(f"refusal {number}")
    once = lane.rng.random() < 0.3
    events = await _failed(lane, message, [refusal, answer(["after all"])] if once else [refusal], may_complete=once)
    if events[-1].type == "run.completed":
        checks.expect("partial", text_of(events) == "after all", f"completed with {text_of(events)!r}")


async def _failed(lane: Lane, message: str, scripts: Sequence[Script], *, may_complete: bool = False) -> list[Event]:
    """The events of a run that such a provider answers: it fails, with a code of ours and nothing of theirs."""
    lane.provider.scripts[message] = list(scripts)
    stream = await lane.client.ask(message)
    events = await stream.rest()
    end = checks.whole(events, stream.run_id)
    if end.type == "run.completed":
        checks.expect("false_completion", may_complete, f"{message}: completed with {text_of(events)!r}")
    else:
        code = end.data.get("error", {}).get("code")
        checks.expect("status", end.type == "run.failed" and code != "internal", f"{message}: {end.data}")
    checks.expect(
        "leaked_text", _SECRET.encode() not in joined(events), f"{message}: the provider's words in {end.data}"
    )
    lane.faults += 1
    await checks.kept(lane.client, events, message)
    return events
