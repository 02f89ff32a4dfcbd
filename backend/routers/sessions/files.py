"""Sessions out and in: export, import."""

import re
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from backend.errors import Invalid
from backend.kit.yielding import in_pieces
from backend.messages import ImagePart, decode_parts, images_of
from backend.routers.edge.body_limits import TEXT_BODY
from backend.routers.edge.paths import SessionId
from backend.routers.edge.problems import responses
from backend.routers.edge.services import Owner, ServicesDep
from backend.routers.edge.times import iso
from backend.routers.sessions.sessions import Session, session_of
from backend.services.conversations.files.session_export import Transcript
from backend.services.conversations.files.session_file import read_file
from backend.services.conversations.images import ImageService
from backend.services.conversations.sessions import MessageRow

router = APIRouter(prefix="/sessions", tags=["sessions"])
MAX_BODY = TEXT_BODY

_PIECE = 64_000
"""Bytes of an export that are sent at once."""
_FILE = {"$ref": "#/components/schemas/SessionFile"}
_JSON = re.compile(r"application/([\w.-]+\+)?json\s*(;|$)", re.I)
"""Other pages can't send it unasked: FastAPI is as strict with the bodies that it reads."""


@router.get(
    "/{session_id}/export",
    response_class=Response,
    responses={
        200: {
            "description": "The exported session.",
            "content": {
                "application/json": {"schema": _FILE},
                "text/markdown": {"schema": {"type": "string"}},
            },
        },
        **responses(401, 404, 422),
    },
    summary="Export a session",
)
async def export(
    session_id: SessionId,
    services: ServicesDep,
    owner: Owner,
    format: Annotated[Literal["json", "markdown"], Query(description="Format of the file.")] = "json",
    pictures: Annotated[bool, Query(description="Whether JSON contains the images, as base64.")] = True,
) -> Response:
    """JSON contains every branch with citations, images, models and usage. Markdown contains the active path, with
    citations as footnotes and images as links to this server.
    """
    if format == "markdown":
        text = await services.conversations.session_export.markdown(owner, session_id)
        return Response(text, media_type="text/markdown; charset=utf-8", headers=_named(f"{session_id}.md"))
    found = await services.conversations.session_export.export(owner, session_id)
    pieces = _written(found, services.conversations.images if pictures else None)
    return StreamingResponse(pieces, media_type="application/json", headers=_named(f"{session_id}.json"))


@router.post(
    "/import",
    status_code=201,
    responses=responses(400, 401, 403, 413, 422),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _FILE}}}},
    summary="Import a session",
)
async def import_session(request: Request, services: ServicesDep, owner: Owner) -> Session:
    """Creates a new session with new ids. Nothing in the file is executed, and its usage isn't counted again."""
    if not _JSON.match(request.headers.get("content-type", "")):
        raise Invalid("The body must be a JSON object; send Content-Type: application/json.")
    return session_of(
        await services.conversations.session_import.import_session(owner, await read_file(await request.body()))
    )


def _named(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


async def _written(found: Transcript, images: ImageService | None) -> AsyncGenerator[bytes]:
    """The file in pieces: all of its pictures may be more than there is memory."""
    head = {
        "format": "streamforge.session",
        "version": 1,
        "title": found.session.title,
        "created_at": iso(found.session.created_at),
        "head_message_id": found.session.head_message_id,
    }
    piece, comma = bytearray(msgspec.json.encode(head)[:-1] + b',"messages":['), b""
    async for row in in_pieces(found.messages):
        told = _message(row, found)
        if row.role == "user" and images_of(parts := decode_parts(row.parts)):
            bare = [part for part in parts if not isinstance(part, ImagePart)]
            told["parts"] = await images.export_parts(row.session_id, parts) if images is not None else bare
        piece += comma + msgspec.json.encode(told)
        comma = b","
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece + b"]}")


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
