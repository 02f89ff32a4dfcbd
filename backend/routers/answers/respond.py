"""A run's log as an HTTP response, in the dialect that the client asked for."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response

from backend import events as ev
from backend.config.groups.runs import RunSettings
from backend.routers.dialects.events import HEARTBEAT
from backend.routers.dialects.json import JsonAnswer
from backend.routers.edge.event_stream import EventStream, wait_for_disconnect
from backend.routers.edge.problems import request_id_of
from backend.routers.edge.services import Services
from backend.services.runs.dialect import Dialect

T = TypeVar("T")

_UNCHANGED = {"Cache-Control": "no-cache, no-transform"}
_CLIENT_LEFT = 499
"""The status in the log if the client disconnected before the answer. The client doesn't see it."""


async def run_response(
    services: Services, owner: str, run_id: str, after: int, request: Request, dialect: Dialect | JsonAnswer
) -> Response:
    """The run's events after seq `after` as a stream, or the whole answer once the run has ended."""
    headers = _headers(run_id)
    if isinstance(dialect, JsonAnswer):
        fold = await _unless_disconnected(request, services.runs.hub.outcome(owner, run_id))
        if fold is None:
            return Response(status_code=_CLIENT_LEFT)
        return dialect.render(run_id, fold, headers, request_id_of(request))
    stream = await services.runs.hub.follow(owner, run_id, after, dialect)
    if stream is None:
        if request.method == "GET":
            # 204 makes an EventSource stop. Clients that stream from a POST would treat a 204 as a failure.
            return Response(status_code=204, headers=headers)
        stream = _empty_stream()
    return stream_response(stream, services.settings.runs, headers, dialect.media_type)


def stream_response(
    stream: AsyncGenerator[bytes],
    settings: RunSettings,
    headers: dict[str, str] | None = None,
    media_type: str = "text/event-stream",
) -> EventStream:
    """A response that sends the encoded bytes of `stream`; SSE gets heartbeats.

    A client that reads nothing for SEND_TIMEOUT seconds is dropped.
    """
    return EventStream(
        stream,
        media_type=media_type,
        headers={**_UNCHANGED, **(headers or {})},
        send_timeout=settings.send_timeout,
        heartbeat=(HEARTBEAT, settings.heartbeat_seconds) if media_type == "text/event-stream" else None,
    )


def _headers(run_id: str) -> dict[str, str]:
    return {
        **_UNCHANGED,
        "X-StreamForge-Protocol": str(ev.PROTOCOL_VERSION),
        "Location": f"/runs/{run_id}/events",
        "Content-Location": f"/runs/{run_id}",
    }


async def _empty_stream() -> AsyncGenerator[bytes]:
    return
    yield b""


async def _unless_disconnected(request: Request, outcome: Coroutine[Any, Any, T]) -> T | None:
    """The outcome; None if the client disconnects first. Then `outcome` is cancelled."""
    answer = asyncio.create_task(outcome)
    disconnect = asyncio.create_task(wait_for_disconnect(request.receive))
    try:
        await asyncio.wait((answer, disconnect), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None
    finally:
        answer.cancel()
        disconnect.cancel()
