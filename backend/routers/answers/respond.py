"""A run's log as an HTTP response, in the dialect that the client asked for."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse

from backend import events as ev
from backend.config.groups.runs import RunSettings
from backend.errors import (
    BadRequest,
    BudgetExceeded,
    EmbeddingFailed,
    EmbeddingMismatch,
    Invalid,
    PriceUnknown,
    RunError,
    StorageFull,
    Unavailable,
)
from backend.messages import CitationRef, MessagePart, TextPart
from backend.routers.dialects.events import HEARTBEAT, event_frame
from backend.routers.dialects.text import data_frame, plain_frame
from backend.routers.edge.event_stream import EventStream, gone
from backend.routers.edge.problems import problem, request_id_of, responses
from backend.routers.edge.services import Services
from backend.services.runs.log import FrameEncoder

T = TypeVar("T")

_UNCHANGED = {"Cache-Control": "no-cache, no-transform"}
_CLIENT_LEFT = 499
"""For the log; the client doesn't see it."""

Format = Literal["events", "text"]
AfterQuery = Annotated[
    str | None,
    Query(description="The `seq` of the last event that you received. `Last-Event-ID` wins.", examples=["17"]),
]
_ENDS = (*RunError.__subclasses__(), BudgetExceeded, PriceUnknown, EmbeddingFailed, EmbeddingMismatch, StorageFull)
_STATUS = {**{cls.code: cls.status for cls in _ENDS}, "storage_busy": Unavailable.status}
"""Of a run that failed, where one JSON answer was asked for."""


def header_parameter(name: str, description: str) -> dict[str, Any]:
    """A header for OpenAPI, of an endpoint that reads it itself."""
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}


# Read by hand: as FastAPI's parameters each costs 40 µs a request.
STREAM_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "format",
        "in": "query",
        "required": False,
        "schema": {"type": "string", "enum": ["events", "text"], "default": "events"},
        "description": "`text`: only the text, as frames `data: word`.",
    },
    header_parameter(
        "Last-Event-ID", "Id of the last event that you received, `<run_id>:<seq>`; the stream continues after it."
    ),
]


def format_of(request: Request) -> Format:
    """What `?format=` asks for. Raises Invalid."""
    match request.query_params.get("format", "events"):
        case "events":
            return "events"
        case "text":
            return "text"
        case _:
            raise Invalid("format: must be events or text")


_EXAMPLE = (
    'id: run_0193…:1\ndata: {"type":"run.started","seq":1,"run_id":"run_0193…","session_id":"ses_0193…",'
    '"user_message_id":"msg_0193…","message_id":"msg_0194…","model":"extractive/quotes","v":1}\n\n'
    'id: run_0193…:5\ndata: {"type":"text.delta","seq":5,"part_id":"p1","text":"The notice period is 30 days."}\n\n'
    'id: run_0193…:9\ndata: {"type":"run.completed","seq":9,"finish_reason":"stop",'
    '"usage":{"input_tokens":0,"output_tokens":0}}\n\n'
)

STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The run's events. Each `data:` line is one `Event`. To reconnect, send its `id:` as "
        "`Last-Event-ID`.",
        "content": {
            "text/event-stream": {"schema": {"$ref": "#/components/schemas/Event"}, "example": _EXAMPLE},
            "text/plain": {"schema": {"type": "string"}, "example": "The notice period is 30 days. [1]\n"},
            "application/json": {"schema": {"$ref": "#/components/schemas/Answer"}},
        },
        "headers": {
            "Location": {"description": "URL of this run's events.", "schema": {"type": "string"}},
            "Content-Location": {"description": "URL of the run.", "schema": {"type": "string"}},
            "X-StreamForge-Protocol": {
                "description": "Version of the stream's protocol.",
                "schema": {"type": "string"},
            },
        },
    },
    **responses(*sorted(set(_STATUS.values()))),
}


async def run_response(
    services: Services, owner: str, run_id: str, after: int, request: Request, format: Format
) -> Response:
    """The run's events after seq `after`: as SSE, bare text, text frames, or folded into one JSON answer."""
    accept = request.headers.get("accept", "")
    headers = _headers(run_id)
    if format == "events" and _wants(accept, "application/json"):
        return await _folded(services, owner, run_id, headers, request)
    plain = format == "events" and _wants(accept, "text/plain")
    frame: FrameEncoder = plain_frame if plain else data_frame if format == "text" else event_frame
    stream = await services.hub.follow(owner, run_id, after, frame)
    if stream is None:
        if request.method == "GET":
            # Tells an EventSource to stop; clients that stream from a POST take a 204 for a failure.
            return Response(status_code=204, headers=headers)
        stream = _nothing()
    media_type = "text/plain" if plain else "text/event-stream"
    return stream_response(stream, services.settings.runs, headers, media_type)


def stream_response(
    stream: AsyncGenerator[bytes],
    settings: RunSettings,
    headers: dict[str, str] | None = None,
    media_type: str = "text/event-stream",
) -> EventStream:
    """Bytes that are encoded already. A reader that takes nothing for too long is dropped; SSE gets heartbeats."""
    return EventStream(
        stream,
        media_type=media_type,
        headers={**_UNCHANGED, **(headers or {})},
        send_timeout=settings.send_timeout,
        heartbeat=(HEARTBEAT, settings.heartbeat_seconds) if media_type == "text/event-stream" else None,
    )


def _wants(accept: str, media_type: str) -> bool:
    """Whether the client names this type and not an event stream."""
    return media_type in accept and "text/event-stream" not in accept


def _headers(run_id: str) -> dict[str, str]:
    return {
        **_UNCHANGED,
        "X-StreamForge-Protocol": str(ev.PROTOCOL_VERSION),
        "Location": f"/runs/{run_id}/events",
        "Content-Location": f"/runs/{run_id}",
    }


async def _nothing() -> AsyncGenerator[bytes]:
    return
    yield b""


async def _unless_left(request: Request, outcome: Coroutine[Any, Any, T]) -> T | None:
    """The outcome; None when the client has gone before: then nobody waits for it here any more."""
    asked, leaving = asyncio.create_task(outcome), asyncio.create_task(gone(request.receive))
    try:
        await asyncio.wait((asked, leaving), return_when=asyncio.FIRST_COMPLETED)
        return asked.result() if asked.done() else None
    finally:
        asked.cancel()
        leaving.cancel()


async def _folded(services: Services, owner: str, run_id: str, headers: dict[str, str], request: Request) -> Response:
    state = await _unless_left(request, services.hub.outcome(owner, run_id))
    if state is None:
        return Response(status_code=_CLIENT_LEFT)
    stored = await services.hub.stored(owner, run_id)
    terminal = state.terminal
    if isinstance(terminal, ev.RunFailed):
        error = terminal.error
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        return problem(
            _STATUS.get(error.code, 502),
            error.code,
            error.message,
            retryable=error.retryable,
            request_id=request_id_of(request),
            headers=headers,
            run_id=run_id,
            session_id=stored.session_id,
            text=state.text(),
        )
    parts = state.message_parts()
    body = {
        "run_id": run_id,
        "session_id": stored.session_id,
        "message_id": stored.message_id,
        "user_message_id": stored.user_message_id,
        "model": state.model or stored.model,
        "status": "cancelled" if isinstance(terminal, ev.RunCancelled) else "completed",
        "finish_reason": terminal.finish_reason if isinstance(terminal, ev.RunCompleted) else None,
        "text": marked_text(parts),
        "citations": msgspec.to_builtins([c for p in parts if isinstance(p, TextPart) for c in p.citations]),
        "sources": msgspec.to_builtins(state.sources),
        "usage": msgspec.to_builtins(state.total()),
    }
    if (counts := state.citation_counts()) is not None:
        body["citation_counts"] = msgspec.to_builtins(counts)
    if unlinked := state.unlinked():
        body["unlinked"] = unlinked
    return JSONResponse(body, headers=headers)


def marked_text(parts: list[MessagePart]) -> str:
    """The text of a message with ` [n]` after each sentence that has a citation."""
    return "\n\n".join(_with_marks(p.text, p.citations) for p in parts if isinstance(p, TextPart))


def _with_marks(text: str, citations: list[CitationRef]) -> str:
    pieces: list[str] = []
    at = 0
    for citation in sorted(citations, key=lambda c: c.end):
        pieces += [text[at : citation.end], f" [{citation.n}]"]
        at = citation.end
    return "".join([*pieces, text[at:]])


def parse_cursor(run_id: str, last_event_id: str | None, after: str | None) -> int:
    """The seq to go on after: `Last-Event-ID` (`<run_id>:<seq>`) wins over `?after=` (a bare seq); else 0.

    Raises BadRequest (`bad_cursor`).
    """
    if last_event_id is not None:
        owner, _, seq = last_event_id.rpartition(":")
        if owner != run_id:
            raise BadRequest(
                f"Last-Event-ID must be {run_id}:<seq>, the id of an event of this run.", code="bad_cursor"
            )
    elif after is not None:
        seq = after
    else:
        return 0
    if not (seq.isascii() and seq.isdigit() and len(seq) <= 15):
        raise BadRequest("The cursor must be the seq of an event, a whole number.", code="bad_cursor")
    return int(seq)
