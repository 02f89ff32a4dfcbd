"""Sessions out and in: export, import."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, field_validator

from backend.chains.templates import Value
from backend.errors import Invalid
from backend.events import is_clean
from backend.routers.problems import responses
from backend.routers.sessions import Session, session_of
from backend.routers.state import Owner, ServicesDep
from backend.routers.times import iso
from backend.services.run_state import MessageStatus
from backend.services.transcripts import MAX_MESSAGES, Transcript
from backend.storage.sessions import MessageRow

router = APIRouter(prefix="/sessions", tags=["sessions"])

Id = Annotated[str, StringConstraints(min_length=1, max_length=100)]
_EXAMPLE: dict[str, Any] = {
    "format": "streamforge.session",
    "version": 1,
    "title": "Contract questions",
    "created_at": "2026-11-25T12:00:00.000Z",
    "head_message_id": "msg_2",
    "messages": [
        {
            "id": "msg_1",
            "role": "user",
            "parts": [{"type": "text", "text": "How long is the notice?"}],
            "created_at": "2026-11-25T12:00:00.000Z",
        },
        {
            "id": "msg_2",
            "parent_id": "msg_1",
            "role": "assistant",
            "parts": [{"type": "text", "text": "45 days."}],
            "model": "openai/gpt-4.1-mini",
            "created_at": "2026-11-25T12:00:02.000Z",
        },
    ],
}


class UsedPrompt(BaseModel):
    """Which prompt an answer was given."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=64)
    version: int = Field(ge=1, le=1_000_000)
    variables: dict[str, Value] = Field({}, max_length=50)


class TranscriptMessage(BaseModel):
    """A message. `usage` is told, not imported."""

    model_config = ConfigDict(extra="forbid")

    id: Id
    parent_id: Id | None = None
    role: Literal["user", "assistant"]
    status: MessageStatus = "complete"
    parts: list[dict[str, Any]] = Field(max_length=1_000, description="As in `GET /sessions/{id}/messages`.")
    model: str | None = Field(None, max_length=200)
    prompt: UsedPrompt | None = None
    usage: dict[str, Any] | None = None
    created_at: AwareDatetime


class SessionFile(BaseModel):
    """A session with every branch; what `GET /sessions/{id}/export` gives, `POST /sessions/import` takes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    format: Literal["streamforge.session"] = "streamforge.session"
    version: Literal[1] = 1
    title: str = Field(min_length=1, max_length=200)
    created_at: AwareDatetime
    head_message_id: Id | None = Field(None, description="Where the active path ends.")
    messages: list[TranscriptMessage] = Field(max_length=MAX_MESSAGES)

    @field_validator("messages")
    @classmethod
    def _clean(cls, value: list[TranscriptMessage]) -> list[TranscriptMessage]:
        for message in value:
            if not is_clean(message.model_dump(exclude={"created_at"})):
                raise ValueError("must not hold NUL characters or lone surrogates")
        return value


@router.get(
    "/{session_id}/export",
    response_class=Response,
    responses={
        200: {
            "description": "The session.",
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/SessionFile"}},
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
    return _file(msgspec.json.encode(_told(found)), "application/json", f"{session_id}.json")


@router.post("/import", status_code=201, responses=responses(400, 401, 403, 413, 422), summary="A session from a file")
async def bring_in(body: SessionFile, services: ServicesDep, owner: Owner) -> Session:
    """A new session with new ids; nothing of the file is run, and its usage isn't counted again."""
    rows = [_row(message) for message in body.messages]
    session = await services.transcripts.bring_in(owner, body.title, body.head_message_id, _ms(body.created_at), rows)
    return session_of(session)


def _file(content: str | bytes, media_type: str, name: str) -> Response:
    return Response(content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _told(found: Transcript) -> dict[str, Any]:
    return {
        "format": "streamforge.session",
        "version": 1,
        "title": found.session.title,
        "created_at": iso(found.session.created_at),
        "head_message_id": found.session.head_message_id,
        "messages": [_message(row, found) for row in found.messages],
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


def _row(message: TranscriptMessage) -> MessageRow:
    try:
        parts = msgspec.json.encode(message.parts).decode()
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise Invalid(f"messages: the parts of {message.id} can't be read: {error}") from None
    return MessageRow(
        id=message.id,
        session_id="",
        parent_id=message.parent_id,
        run_id=None,
        role=message.role,
        status=message.status,
        parts=parts,
        model=message.model,
        prompt=message.prompt.model_dump_json() if message.prompt is not None else None,
        created_at=_ms(message.created_at),
    )


def _ms(moment: datetime) -> int:
    return max(0, int(moment.timestamp() * 1000))
