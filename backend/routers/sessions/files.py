"""Export and import of sessions."""

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
from backend.routers.edge.examples import NO_SESSION
from backend.routers.edge.paths import SessionId
from backend.routers.edge.problems import responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ServicesDep
from backend.routers.edge.times import iso
from backend.routers.sessions.sessions import Session, session_of
from backend.services.conversations.feedback import FeedbackRow
from backend.services.conversations.files.session_export import Transcript
from backend.services.conversations.files.session_file import read_file
from backend.services.conversations.images import ImageService
from backend.services.conversations.sessions import MessageRow

router = APIRouter(prefix="/sessions", tags=["sessions"], route_class=OwnRoute)
MAX_BODY = TEXT_BODY

_PIECE = 64_000
"""Bytes of an export that are sent together."""
_FILE = {"$ref": "#/components/schemas/SessionFile"}
_JSON = re.compile(r"application/([\w.-]+\+)?json\s*(;|$)", re.I)
"""JSON content types. Pages of other origins can't send them without CORS; FastAPI checks other bodies the same way."""


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
        **responses(401, NO_SESSION, 422),
    },
    summary="Export a session",
)
async def export_session(
    session_id: SessionId,
    services: ServicesDep,
    owner: Owner,
    format: Annotated[Literal["json", "markdown"], Query(description="Format of the file.")] = "json",
    images: Annotated[bool, Query(description="Whether JSON contains the images, as base64.")] = True,
    pictures: Annotated[bool, Query(description="The same as `images`.", deprecated=True)] = True,
) -> Response:
    """JSON contains every branch with citations, images, models and usage. Markdown contains the active path, with
    citations as footnotes and images as links to this server.
    """
    if format == "markdown":
        text = await services.conversations.session_export.markdown(owner, session_id)
        return Response(text, media_type="text/markdown; charset=utf-8", headers=_download_headers(f"{session_id}.md"))
    transcript = await services.conversations.session_export.export(owner, session_id)
    pieces = _file_pieces(transcript, services.conversations.images if images and pictures else None)
    return StreamingResponse(pieces, media_type="application/json", headers=_download_headers(f"{session_id}.json"))


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


def _download_headers(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


async def _file_pieces(transcript: Transcript, images: ImageService | None) -> AsyncGenerator[bytes]:
    """The file in pieces, because all of its images together may need too much memory."""
    head = {
        "format": "streamforge.session",
        "version": 1,
        "title": transcript.session.title,
        "created_at": iso(transcript.session.created_at),
        "head_message_id": transcript.session.head_message_id,
    }
    piece, comma = bytearray(msgspec.json.encode(head)[:-1] + b',"messages":['), b""
    async for row in in_pieces(transcript.messages):
        message = _message(row, transcript)
        if row.role == "user" and images_of(parts := decode_parts(row.parts)):
            if images is not None:
                message["parts"] = await images.export_parts(row.session_id, parts)
            else:
                message["parts"] = [part for part in parts if not isinstance(part, ImagePart)]
        piece += comma + msgspec.json.encode(message)
        comma = b","
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece + b"]}")


def _message(row: MessageRow, transcript: Transcript) -> dict[str, Any]:
    fields = {
        "id": row.id,
        "parent_id": row.parent_id,
        "role": row.role,
        "status": row.status,
        "parts": msgspec.Raw(row.parts.encode()),
        "model": row.model,
        "prompt": msgspec.Raw(row.prompt.encode()) if row.prompt is not None else None,
        "usage": transcript.usage.get(row.run_id or "") if row.role == "assistant" else None,
        "feedback": _feedback(transcript.feedback.get(row.id)),
        "created_at": iso(row.created_at),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _feedback(row: FeedbackRow | None) -> dict[str, str | None] | None:
    return {"rating": row.rating, "comment": row.comment} if row is not None else None
