"""Runs: watch, look up, cancel."""

from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import Field

from backend.routers.problems import responses
from backend.routers.state import Owner, ServicesDep
from backend.routers.streams import (
    STREAM_PARAMETERS,
    STREAM_RESPONSES,
    AfterQuery,
    format_of,
    parse_cursor,
    run_response,
)
from backend.routers.times import Time, iso
from backend.routers.view import View

router = APIRouter(prefix="/runs", tags=["runs"])


class RunInfo(View):
    """One attempt to answer one message."""

    id: str
    session_id: str
    user_message_id: str
    message_id: str = Field(description="The answer's message.")
    model: str
    status: str = Field(description="running, completed, failed, cancelled or interrupted", examples=["completed"])
    error: dict[str, Any] | None = Field(None, description="`run.failed.error`")
    usage: dict[str, Any] | None = None
    started_at: Time
    finished_at: Time | None = None


@router.get("/{run_id}", responses=responses(401, 404), summary="A run's state")
async def run(run_id: str, services: ServicesDep, owner: Owner) -> RunInfo:
    """Status, error and usage of a run."""
    row = await services.hub.stored(owner, run_id)
    return RunInfo(
        id=row.id,
        session_id=row.session_id,
        user_message_id=row.user_message_id,
        message_id=row.message_id,
        model=row.model,
        status=row.status,
        error=msgspec.json.decode(row.error) if row.error else None,
        usage=msgspec.json.decode(row.usage) if row.usage else None,
        started_at=iso(row.started_at),
        finished_at=iso(row.finished_at) if row.finished_at else None,
    )


@router.get(
    "/{run_id}/events",
    response_class=Response,
    responses={
        **STREAM_RESPONSES,
        204: {"description": "You have the terminal event already."},
        **responses(400, 401, 404, 409),
    },
    summary="Watch a run, or come back to it",
    openapi_extra={"parameters": STREAM_PARAMETERS},
)
async def events(
    run_id: str,
    request: Request,
    services: ServicesDep,
    owner: Owner,
    after: AfterQuery = None,
) -> Response:
    """Replays what came after your cursor, then goes on live; the joined stream is the uninterrupted one."""
    cursor = parse_cursor(run_id, request.headers.get("last-event-id") or None, after)
    return await run_response(services, owner, run_id, cursor, request, format_of(request))


class Cancelled(View):
    """`status` is the run's: cancelled, or how it had ended before."""

    id: str
    status: str


@router.post("/{run_id}/cancel", responses=responses(401, 403, 404), summary="Stop a run")
async def cancel(run_id: str, services: ServicesDep, owner: Owner) -> Cancelled:
    """Ends the run and closes the provider's connection; what was generated is kept. Again: does nothing."""
    live = services.hub.live(owner, run_id)
    if live is not None:
        services.hub.cancel(live, "user")
        await live.log.finished()
    return Cancelled(id=run_id, status=(await services.hub.stored(owner, run_id)).status)
