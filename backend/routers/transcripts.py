"""Sessions out and in: export, import."""

import re
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response

from backend.errors import Invalid
from backend.routers.problems import responses
from backend.routers.sessions import Session, session_of
from backend.routers.state import Owner, ServicesDep
from backend.routers.times import iso
from backend.services.pieces import encoded
from backend.services.session_file import read_file
from backend.services.transcripts import Transcript
from backend.storage.sessions import MessageRow

router = APIRouter(prefix="/sessions", tags=["sessions"])

_FILE = {"$ref": "#/components/schemas/SessionFile"}
_JSON = re.compile(r"application/([\w.-]+\+)?json\s*(;|$)", re.I)
"""Other pages can't send it unasked: FastAPI is as strict with the bodies that it reads."""


@router.get(
    "/{session_id}/export",
    response_class=Response,
    responses={
        200: {
            "description": "The session.",
            "content": {
                "application/json": {"schema": _FILE},
                "text/markdown": {"schema": {"type": "string"}},
            },
        },
        **responses(401, 404, 422),
    },
    summary="A session as a file",
)
async def export(
    session_id: str,
    services: ServicesDep,
    owner: Owner,
    format: Annotated[Literal["json", "markdown"], Query(description="What to make of it.")] = "json",
) -> Response:
    """JSON has every branch, with citations, models and usage; Markdown the active path, citations as footnotes."""
    if format == "markdown":
        text = await services.transcripts.markdown(owner, session_id)
        return _file(text, "text/markdown; charset=utf-8", f"{session_id}.md")
    found = await services.transcripts.export(owner, session_id)
    return _file(msgspec.json.encode(await _told(found)), "application/json", f"{session_id}.json")


@router.post(
    "/import",
    status_code=201,
    responses=responses(400, 401, 403, 413, 422),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _FILE}}}},
    summary="A session from a file",
)
async def bring_in(request: Request, services: ServicesDep, owner: Owner) -> Session:
    """A new session with new ids; nothing of the file is run, and its usage isn't counted again."""
    if not _JSON.match(request.headers.get("content-type", "")):
        raise Invalid("The body must be a JSON object; send Content-Type: application/json.")
    return session_of(await services.transcripts.bring_in(owner, await read_file(await request.body())))


def _file(content: str | bytes, media_type: str, name: str) -> Response:
    return Response(content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})


async def _told(found: Transcript) -> dict[str, Any]:
    return {
        "format": "streamforge.session",
        "version": 1,
        "title": found.session.title,
        "created_at": iso(found.session.created_at),
        "head_message_id": found.session.head_message_id,
        "messages": await encoded(_message(row, found) for row in found.messages),
    }


def _message(row: MessageRow, found: Transcript) -> dict[str, Any]:
    said = {
        "id": row.id,
        "parent_id": row.parent_id,
        "role": row.role,
        "status": row.status,
        "parts": msgspec.Raw(row.parts.encode()),
        "model": row.model,
        "prompt": msgspec.Raw(row.prompt.encode()) if row.prompt is not None else None,
        "usage": found.usage.get(row.run_id or "") if row.role == "assistant" else None,
        "created_at": iso(row.created_at),
    }
    return {name: value for name, value in said.items() if value is not None}
