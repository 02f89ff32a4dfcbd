"""POST /chat, and what the first version of this API had beside it."""

import base64
import json
from typing import Annotated, Any, Literal, Self, cast

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from backend.chains.models.base import Effort, Image
from backend.config.settings import OnDisconnect
from backend.errors import BadRequest, Invalid
from backend.events import clean_text
from backend.routers.problems import request_id_of, responses
from backend.routers.state import Owner, ServicesDep, owner_of, ready_services
from backend.routers.streams import (
    STREAM_PARAMETERS,
    STREAM_RESPONSES,
    format_of,
    header_parameter,
    marked_text,
    parse_cursor,
    run_response,
)
from backend.services.chat import ChatTurn, IfBusy
from backend.services.run_state import decode_parts

router = APIRouter(prefix="/chat", tags=["chat"])


def _each(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


class ImageInput(BaseModel):
    """A picture, as base64."""

    model_config = ConfigDict(extra="forbid")

    media_type: Literal["image/png", "image/jpeg", "image/webp", "image/gif"]
    data: str = Field(min_length=4, description="Base64, without line breaks.", examples=["iVBORw0KGgo…"])

    @field_validator("data")
    @classmethod
    def _base64(cls, value: str) -> str:
        try:
            base64.b64decode(value, validate=True)
        except ValueError:
            raise ValueError("must be base64 without line breaks") from None
        return value


class ChatRequest(BaseModel):
    """A message to answer. Unknown fields are refused: providers and keys are the server's settings."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"message": "What does the contract say about termination?"},
                {"message": "And how long is the notice?", "session_id": "ses_0193…", "documents": ["doc_0193…"]},
                {"message": "Who signed it?", "collections": ["col_0193…"]},
                {"message": "Hello", "model": "simulated/words", "documents": False},
            ]
        },
    )

    message: str = Field(description="What the user says. Not blank; at most MAX_MESSAGE_CHARS characters.")
    session_id: str | None = Field(None, description="The conversation to go on with; none begins a new one.")
    parent_id: str | None = Field(None, description="Branch from this message instead of the session's last.")
    expect_head: str | None = Field(None, description="409 unless this is the session's last message.")
    model: str | None = Field(None, description="`provider/model`, see GET /models; none is the default.")
    documents: bool | list[str] = Field(True, description="All of your documents, none, or the ids of some.")
    collections: list[str] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Search only in these; none is as the session says, or else all of yours.",
    )
    system_prompt: str | None = Field(None, max_length=20_000, description="Instead of the default system prompt.")
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000, description="Limit of the answer, in tokens.")
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    stop: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        None, min_length=1, max_length=4, description="The answer ends before any of these."
    )
    reasoning_effort: Effort | None = Field(None, description="How hard a model that reasons is to think.")
    response_schema: dict[str, Any] | None = Field(
        None, description="A JSON schema (an object's) that the answer must follow, for models that can."
    )
    images: list[ImageInput] | None = Field(
        None, min_length=1, max_length=8, description="Pictures that belong to the message, for models that see."
    )
    fallbacks: list[str] | None = Field(
        None,
        max_length=9,
        description="Models to try, in order, when the first fails before its first word; none is as the settings say, "
        "an empty list is no other model.",
    )
    fallback_after_output: bool = Field(
        False, description="Go on with the next model also when one breaks off in its answer; it begins anew."
    )
    if_busy: IfBusy = Field("reject", description="What to do while the session still answers another message.")
    on_disconnect: OnDisconnect | None = Field(
        None,
        description="Whether the answer goes on when nobody watches it any more; none is the setting ON_DISCONNECT.",
    )

    @field_validator("*")
    @classmethod
    def _text(cls, value: Any, info: Any) -> Any:
        texts = _each(value)
        for each in texts:
            if isinstance(each, str) and each != clean_text(each):
                raise ValueError("must not hold NUL characters or lone surrogates")
        if info.field_name == "message" and not str(texts[0]).strip():
            raise ValueError("must not be empty")
        return value

    @field_validator("documents")
    @classmethod
    def _some(cls, value: bool | list[str]) -> bool | list[str]:
        if isinstance(value, list) and not 1 <= len(value) <= 100:
            raise ValueError("must be true, false, or 1 to 100 document ids")
        return value

    @model_validator(mode="after")
    def _place(self) -> Self:
        if self.session_id is None and (self.parent_id is not None or self.expect_head is not None):
            raise ValueError("parent_id and expect_head need the session_id that they belong to")
        return self

    def turn(self, idempotency_key: str | None) -> ChatTurn:
        """The request as the service takes it."""
        documents = self.documents if isinstance(self.documents, bool) else tuple(self.documents)
        return ChatTurn(
            message=self.message,
            session_id=self.session_id,
            parent_id=self.parent_id,
            expect_head=self.expect_head,
            model=self.model,
            documents=documents,
            collections=None if self.collections is None else tuple(self.collections),
            system_prompt=self.system_prompt,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            top_p=self.top_p,
            seed=self.seed,
            stop=tuple(self.stop or ()),
            reasoning_effort=self.reasoning_effort,
            response_schema=None if self.response_schema is None else json.dumps(self.response_schema, sort_keys=True),
            images=tuple(Image(each.media_type, each.data) for each in self.images or ()),
            fallbacks=None if self.fallbacks is None else tuple(self.fallbacks),
            fallback_after_output=self.fallback_after_output,
            if_busy=self.if_busy,
            on_disconnect=self.on_disconnect,
            idempotency_key=idempotency_key,
        )


_KEY = "The same key and body again attaches to the first run, never a second. At most 200 characters."


def _key_of(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key and len(key) > 200:
        raise Invalid("Idempotency-Key: must have at most 200 characters. Use a UUID.")
    return key or None


@router.post(
    "",
    response_class=Response,
    responses={**STREAM_RESPONSES, **responses(400, 401, 402, 403, 404, 409, 413, 421, 422, 429, 503, 507)},
    summary="Ask; the answer streams",
    openapi_extra={"parameters": [*STREAM_PARAMETERS, header_parameter("Idempotency-Key", _KEY)]},
)
async def chat(
    body: ChatRequest,
    request: Request,
) -> Response:
    """Store the message, start a run, and stream its events (`docs/protocol.md`).

    Leaving doesn't stop the run: come back with `GET /runs/{id}/events` and `Last-Event-ID`, or send the same POST with
    it. `Accept: text/plain` gives the bare text, `Accept: application/json` one answer when it is done.
    """
    # Not FastAPI's dependencies and parameters: these five are a twentieth of the CPU of a short answer.
    format = format_of(request)
    services, owner = await ready_services(request), await owner_of(request)
    if last_event_id := request.headers.get("last-event-id"):
        run_id = last_event_id.rpartition(":")[0]
        if not run_id:
            raise BadRequest("Last-Event-ID must be <run_id>:<seq>.", code="bad_cursor")
        after = parse_cursor(run_id, last_event_id, None)
    else:
        run_id = await services.chat.start(owner, body.turn(_key_of(request)), request_id_of(request))
        after = 0
    return await run_response(services, owner, run_id, after, request, format)


class ChatHealth(BaseModel):
    """The chat service is there."""

    service: str = "chat"
    status: str = "healthy"
    streaming: str = "enabled"


@router.get("/health", summary="Is chat there")
async def chat_health() -> ChatHealth:
    """Answers as soon as the port is open."""
    return ChatHealth()


class HistoryMessage(BaseModel):
    """One message, its text with ` [n]` where a citation stands."""

    role: str
    content: str
    status: str


class History(BaseModel):
    """A conversation as plain text."""

    session_id: str
    messages: list[HistoryMessage]


@router.get("/history/{session_id}", responses=responses(401, 404), summary="A conversation as plain text")
async def history(session_id: str, services: ServicesDep, owner: Owner) -> History:
    """The active path of the session, oldest first. `GET /sessions/{id}/messages` has the parts and citations."""
    rows = await services.sessions.messages(owner, session_id, every_branch=False)
    messages = [
        HistoryMessage(role=row.role, content=marked_text(decode_parts(row.parts)), status=row.status) for row in rows
    ]
    return History(session_id=session_id, messages=messages)
