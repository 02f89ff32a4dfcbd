"""POST /chat, and what the first version of this API had beside it."""

from typing import Self

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field, model_validator

from backend.routers.asking import ANSWER_PARAMETERS, PIXEL, NewMessage, answered
from backend.routers.problems import responses
from backend.routers.state import Owner, Services, ServicesDep
from backend.routers.streams import STREAM_RESPONSES, marked_text
from backend.routers.view import View
from backend.services.pieces import in_pieces
from backend.services.run_state import decode_parts

router = APIRouter(prefix="/chat", tags=["chat"])


class ChatRequest(NewMessage):
    """A message to answer. Unknown fields are refused: providers and keys are the server's settings."""

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

    session_id: str | None = Field(None, description="The conversation to go on with; none begins a new one.")
    parent_id: str | None = Field(None, description="Branch from this message instead of the session's last.")
    expect_head: str | None = Field(None, description="409 unless this is the session's last message.")

    @model_validator(mode="after")
    def _place(self) -> Self:
        if self.session_id is None and (self.parent_id is not None or self.expect_head is not None):
            raise ValueError("parent_id and expect_head need the session_id that they belong to")
        return self


@router.post(
    "",
    response_class=Response,
    responses={**STREAM_RESPONSES, **responses(400, 401, 402, 403, 404, 409, 413, 421, 422, 429, 503, 507)},
    summary="Ask; the answer streams",
    openapi_extra={"parameters": ANSWER_PARAMETERS},
)
async def chat(
    body: ChatRequest,
    request: Request,
) -> Response:
    """Store the message, start a run, and stream its events (`docs/protocol.md`).

    Leaving doesn't stop the run: come back with `GET /runs/{id}/events` and `Last-Event-ID`, or send the same POST with
    it. `Accept: text/plain` gives the bare text, `Accept: application/json` one answer when it is done.
    """

    async def start(services: Services, owner: str, key: str | None, request_id: str | None) -> str:
        place = {"session_id": body.session_id, "parent_id": body.parent_id, "expect_head": body.expect_head}
        return await services.chat.start(owner, body.turn(key, **place), request_id)

    return await answered(request, start)


class ChatHealth(View):
    """The chat service is there."""

    service: str = "chat"
    status: str = "healthy"
    streaming: str = "enabled"


@router.get("/health", summary="Is chat there")
async def chat_health() -> ChatHealth:
    """Answers as soon as the port is open."""
    return ChatHealth()


class HistoryMessage(View):
    """One message, its text with ` [n]` where a citation stands."""

    role: str
    content: str
    status: str


class History(View):
    """A conversation as plain text."""

    session_id: str
    messages: list[HistoryMessage]


@router.get("/history/{session_id}", responses=responses(401, 404), summary="A conversation as plain text")
async def history(session_id: str, services: ServicesDep, owner: Owner) -> History:
    """The active path of the session, oldest first. `GET /sessions/{id}/messages` has the parts and citations."""
    _, rows = await services.sessions.path(owner, session_id)
    messages = [
        HistoryMessage(role=row.role, content=marked_text(decode_parts(row.parts)), status=row.status)
        async for row in in_pieces(rows)
    ]
    return History(session_id=session_id, messages=messages)
