"""Runs: status, stream of events, cancel."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from backend.routers.answers.cursor import AfterQuery, parse_cursor
from backend.routers.answers.documentation import STREAM_PARAMETERS, STREAM_RESPONSES
from backend.routers.answers.respond import run_response
from backend.routers.dialects import dialect_of
from backend.routers.edge.examples import NO_RUN
from backend.routers.edge.paging import Cursor, cursor_of, position_of
from backend.routers.edge.problems import ProblemExample, responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ServicesDep
from backend.routers.edge.times import Time, iso
from backend.routers.edge.view import View, schema_of
from backend.services.runs.hub import StoredRun

router = APIRouter(prefix="/runs", tags=["runs"], route_class=OwnRoute)
_CURSOR_AHEAD = ProblemExample(409, "cursor_ahead", "The cursor 90 is ahead of the run, which is at 12.")
TAG = {"name": "runs", "description": "Attempts to answer a message: watch, reconnect, cancel."}
RunStatus = Literal["running", "completed", "failed", "cancelled", "interrupted"]
RunId = Annotated[str, Path(description="A run's id: `run_id` in its first event or in the answer.")]


class RunInfo(View):
    """A run: one attempt to answer one message."""

    id: str
    session_id: str
    user_message_id: str
    message_id: str = Field(description="Id of the answer's message.")
    model: str
    status: str = Field(description="running, completed, failed, cancelled or interrupted", examples=["completed"])
    error: Annotated[dict[str, Any], schema_of("RunFault")] | None = Field(None, description="`run.failed.error`")
    usage: Annotated[dict[str, Any], schema_of("TokenUsage")] | None = None
    started_at: Time
    finished_at: Time | None = None


class RunList(View):
    """A page of runs, the last started one first."""

    items: list[RunInfo]
    next_cursor: str | None = None


@router.get("", responses=responses(400, 401, 422), summary="Your runs")
async def list_runs(
    services: ServicesDep,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=200, description="Maximum number per page.")] = 50,
    cursor: Cursor = None,
    session_id: Annotated[str | None, Query(max_length=200, description="Only runs of this session.")] = None,
    status: Annotated[RunStatus | None, Query(description="Only runs with this status.")] = None,
) -> RunList:
    """Returns a page of your runs, the last started one first: live ones and those that have ended."""
    rows = await services.runs.hub.page(owner, limit + 1, position_of(cursor), session_id, status)
    last = rows[limit - 1] if len(rows) > limit else None
    following = cursor_of(last.started_at, last.id) if last is not None else None
    return RunList(items=[_run_info(row) for row in rows[:limit]], next_cursor=following)


@router.get("/{run_id}", responses=responses(401, NO_RUN), summary="One run")
async def get_run(run_id: RunId, services: ServicesDep, owner: Owner) -> RunInfo:
    """Returns status, error and usage of a run."""
    return _run_info(await services.runs.hub.stored(owner, run_id))


def _run_info(row: StoredRun) -> RunInfo:
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
        204: {"description": "You already have the terminal event."},
        **responses(400, 401, NO_RUN, _CURSOR_AHEAD),
    },
    summary="Watch a run, or reconnect to it",
    openapi_extra={"parameters": STREAM_PARAMETERS},
)
async def watch_run(
    run_id: RunId,
    request: Request,
    services: ServicesDep,
    owner: Owner,
    after: AfterQuery = None,
) -> Response:
    """Sends all events after your cursor, then live events. Together, your streams equal an uninterrupted one."""
    cursor = parse_cursor(run_id, request.headers.get("last-event-id") or None, after)
    return await run_response(services, owner, run_id, cursor, request, dialect_of(request))


class Cancelled(View):
    """`status` is the run's status: cancelled, or how the run had ended before."""

    id: str
    status: str


@router.post("/{run_id}/cancel", responses=responses(401, 403, NO_RUN), summary="Stop a run")
async def cancel_run(run_id: RunId, services: ServicesDep, owner: Owner) -> Cancelled:
    """Ends the run and closes the connection to the provider. The text so far is kept. If the run has ended, this
    does nothing.
    """
    live = services.runs.hub.live(owner, run_id)
    if live is not None:
        live.cancel("user")
        await live.log.wait_for_end()
    return Cancelled(id=run_id, status=(await services.runs.hub.stored(owner, run_id)).status)
