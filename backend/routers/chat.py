"""POST /chat, and the other endpoints of the first version of this API: health and history."""

from typing import Self

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field, model_validator

from backend.kit.yielding import in_pieces
from backend.messages import decode_parts, marked_text
from backend.routers.answers.documentation import STREAM_RESPONSES
from backend.routers.answers.requests import ANSWER_PARAMETERS, PIXEL, NewMessage, start_and_stream
from backend.routers.dialects.json import Answer
from backend.routers.edge.body_limits import TEXT_BODY
from backend.routers.edge.bounds import IdText
from backend.routers.edge.examples import NO_SESSION, SESSION_BUSY
from backend.routers.edge.paths import SessionId
from backend.routers.edge.problems import responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ServicesDep
from backend.routers.edge.view import DEPRECATED, View

router = APIRouter(prefix="/chat", tags=["chat"], route_class=OwnRoute)
TAG = {"name": "chat", "description": "Ask a question and watch the answer stream."}
MAX_BODY = TEXT_BODY
SCHEMAS = (Answer,)


class ChatRequest(NewMessage):
    """A message to answer. Unknown fields are refused: providers and keys are set only in the server's settings."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"message": "What does the contract say about termination?"},
                {"message": "And how long is the notice?", "session_id": "ses_0193…", "documents": ["doc_0193…"]},
                {"message": "Who signed it?", "collections": ["col_0193…"]},
                {"message": "Hello", "model": "simulated/words", "documents": False},
                {"message": "What is this?", "images": [{"media_type": "image/png", "data": PIXEL}]},
            ]
        },
    )

    session_id: IdText | None = Field(
        None, description="The session that the message belongs to. Unset: a new session."
    )
    parent_id: IdText | None = Field(
        None, description="The message that this one follows. Unset: the session's last message."
    )
    expect_head: IdText | None = Field(
        None, description="The request fails with 409 unless this is the session's last message."
    )

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if self.session_id is None and (self.parent_id is not None or self.expect_head is not None):
            raise ValueError("parent_id and expect_head need the session_id that they belong to")
        return self


@router.post(
    "",
    response_class=Response,
    responses={
        **STREAM_RESPONSES,
        **responses(400, 401, 402, 403, NO_SESSION, SESSION_BUSY, 413, 421, 422, 429, 503, 507),
    },
    summary="Ask a question; the answer streams",
    openapi_extra={"parameters": ANSWER_PARAMETERS},
)
async def chat(
    body: ChatRequest,
    request: Request,
) -> Response:
    """Stores the message, starts a run, and streams its events (`docs/protocol.md`).

    Disconnecting doesn't stop the run. To reconnect, call `GET /runs/{id}/events` with `Last-Event-ID`, or send the
    same POST with that header. With `Accept: text/plain` you get only the text; with `Accept: application/json` one
    JSON answer when the run has ended.
    """

    return await start_and_stream(
        request, body, session_id=body.session_id, parent_id=body.parent_id, expect_head=body.expect_head
    )


class ChatHealth(View):
    """Chat is available."""

    service: str = "chat"
    status: str = "healthy"
    streaming: str = "enabled"


@router.get("/health", summary="Check that chat is available")
async def chat_health() -> ChatHealth:
    """Returns 200 as soon as the port is open."""
    return ChatHealth()


class HistoryMessage(View):
    """One message; its text has ` [n]` after each cited sentence."""

    role: str
    content: str
    status: str


class History(View):
    """A conversation as plain text."""

    session_id: str
    items: list[HistoryMessage]
    messages: list[HistoryMessage] = Field(description="The same as `items`.", json_schema_extra=DEPRECATED)


@router.get("/history/{session_id}", responses=responses(401, NO_SESSION), summary="A conversation as plain text")
async def chat_history(session_id: SessionId, services: ServicesDep, owner: Owner) -> History:
    """Returns the messages of the session's active path, oldest first. `GET /sessions/{id}/messages` also returns
    parts and citations.
    """
    _, rows = await services.conversations.sessions.path(owner, session_id)
    messages = [
        HistoryMessage(role=row.role, content=marked_text(decode_parts(row.parts)), status=row.status)
        async for row in in_pieces(rows)
    ]
    return History(session_id=session_id, items=messages, messages=messages)
