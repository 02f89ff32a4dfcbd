"""Sessions: the conversations and their messages."""

from typing import Annotated, Any, Self

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from backend.kit.text import check_clean, clean_text, is_clean
from backend.kit.yielding import encode_items
from backend.routers.edge.bounds import IdText
from backend.routers.edge.examples import NO_SESSION
from backend.routers.edge.paging import Cursor, cursor_of, position_of
from backend.routers.edge.paths import SessionId
from backend.routers.edge.problems import responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ServicesDep
from backend.routers.edge.times import Time, iso
from backend.routers.edge.view import View, schema_of
from backend.services.conversations.sessions import SessionRow
from backend.services.conversations.tree import PlacedMessage
from backend.services.prompts.prompts import PromptChoice

router = APIRouter(prefix="/sessions", tags=["sessions"], route_class=OwnRoute)
TAG = {"name": "sessions", "description": "Conversations and their messages."}

Limit = Annotated[int, Query(ge=1, le=200, description="Maximum number per page.")]


class Session(View):
    """A session: a conversation with its messages."""

    id: str
    title: str
    head_message_id: str | None = Field(None, description="Id of the last message of the active path.")
    collections: list[str] | None = Field(
        None, description="Collections in which its answers search. Unset: all of yours."
    )
    model: str | None = Field(None, description="The model if the request names none.")
    system_prompt: str | None = None
    prompt: PromptChoice | None = None
    created_at: Time
    updated_at: Time


class SessionList(View):
    """A page of sessions, last changed first."""

    items: list[Session]
    next_cursor: str | None = None


class SessionChange(BaseModel):
    """Changes of a session. Fields that are not sent stay unchanged."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"title": "Contract questions"},
                {"collections": ["col_0193…"]},
                {"model": "simulated/words", "prompt": {"name": "support"}},
            ]
        },
    )

    title: str | None = Field(None, min_length=1, max_length=200)
    collections: list[IdText] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Search only in these collections, by id or name; null means all of yours.",
    )
    model: str | None = Field(None, min_length=1, max_length=200, description="The model if a request names none.")
    system_prompt: str | None = Field(None, max_length=20_000, description="Replaces the default system prompt.")
    prompt: PromptChoice | None = Field(None, description="One of your prompts, see GET /prompts.")

    @field_validator("title")
    @classmethod
    def _line(cls, value: str | None) -> str | None:
        value = " ".join(clean_text(value or "").split())
        if not value:
            raise ValueError("must not be blank")
        return value

    @field_validator("model", "system_prompt")
    @classmethod
    def _clean(cls, value: str | None) -> str | None:
        check_clean(value)
        return value

    @field_validator("collections")
    @classmethod
    def _ids(cls, value: list[str] | None) -> list[str] | None:
        if not is_clean(value):
            raise ValueError("must be ids or names of collections")
        return value

    @model_validator(mode="after")
    def _check_any_change(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("say what to change: title, collections, model, system_prompt, prompt")
        return self


class Message(View):
    """A message. Text parts contain their citations; `[start:end]` are positions in Unicode code points."""

    id: str
    parent_id: str | None = None
    run_id: str | None = None
    siblings: list[str] = Field(
        description="Ids of all messages that follow the same message, including this one, oldest first: "
        "other answers, or edited messages."
    )
    active: bool = Field(description="Whether the message is on the active path.")
    role: str = Field(examples=["assistant"])
    status: str = Field(description="complete, partial, failed or cancelled", examples=["complete"])
    model: str | None = Field(None, description="The model that answered.")
    prompt: Annotated[dict[str, Any], schema_of("UsedPrompt")] | None = Field(
        None, description="The prompt of the answer: `name`, `version`, `variables`. Unset: no prompt."
    )
    parts: list[Annotated[dict[str, Any], schema_of("MessagePart")]] = Field(
        description="`{type: text, text, citations}`, `{type: reasoning, text}`, `{type: sources, "
        "items}`, `{type: image, image_id, media_type, bytes}`. `GET /images/{image_id}` "
        "returns the image."
    )
    created_at: Time


class MessageList(View):
    """Messages, oldest first."""

    items: list[Message]
    summarised_until: str | None = Field(
        None,
        description="Id of the last message that `summary` covers. The model gets the summary instead of "
        "these messages, if the conversation is too long.",
    )
    summary: str | None = None


class HeadChange(BaseModel):
    """The new end of the active path."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"message_id": "msg_0193…"}]})

    message_id: str = Field(min_length=1, max_length=100, description="Id of a message of the session, in any branch.")
    leaf: bool = Field(
        False, description="true: the active path continues from this message to the end of its newest branch."
    )


class ActiveRun(View):
    """The live run of a session, if there is one. Its events are at /runs/{run_id}/events."""

    run_id: str | None = None


@router.get("", responses=responses(400, 401, 422), summary="Your sessions")
async def list_sessions(
    services: ServicesDep,
    owner: Owner,
    limit: Limit = 50,
    cursor: Cursor = None,
    q: Annotated[str | None, Query(max_length=200, description="Only sessions with this text in the title.")] = None,
) -> SessionList:
    """Returns a page of your sessions, last changed first."""
    page = await services.conversations.sessions.page(owner, limit, position_of(cursor), q)
    last = page.items[-1] if page.more else None
    following = cursor_of(last.updated_at, last.id) if last else None
    return SessionList(items=[session_of(row) for row in page.items], next_cursor=following)


@router.get("/{session_id}", responses=responses(401, NO_SESSION), summary="One session")
async def get_session(session_id: SessionId, services: ServicesDep, owner: Owner) -> Session:
    """Returns title, times and settings of a session."""
    return session_of(await services.conversations.sessions.get(owner, session_id))


@router.patch("/{session_id}", responses=responses(401, 403, NO_SESSION, 422), summary="Change a session")
async def update_session(session_id: SessionId, body: SessionChange, services: ServicesDep, owner: Owner) -> Session:
    """Changes the title, or the options for answers that a request doesn't set. null removes a value."""
    settings = body.model_dump(include=body.model_fields_set - {"title"}, exclude_defaults=False)
    if body.collections is not None:
        settings["collections"] = await services.library.collections.resolve(owner, body.collections)
    if body.model is not None:
        services.models.catalog.check(body.model)
    if body.prompt is not None:
        await services.prompts.prepare(owner, body.prompt.name, body.prompt)
    return session_of(await services.conversations.sessions.change(owner, session_id, body.title, settings))


@router.delete("/{session_id}", status_code=204, responses=responses(401, 403, NO_SESSION), summary="Delete a session")
async def delete_session(session_id: SessionId, services: ServicesDep, owner: Owner) -> Response:
    """Cancels the session's live run and deletes its messages, runs and events."""
    await services.conversations.sessions.delete(owner, session_id)
    return Response(status_code=204)


@router.get(
    "/{session_id}/messages",
    response_model=MessageList,
    responses=responses(401, NO_SESSION),
    summary="Messages of a session",
)
async def list_messages(
    session_id: SessionId,
    services: ServicesDep,
    owner: Owner,
    branches: Annotated[bool, Query(description="true: return every branch, not only the active path.")] = False,
) -> Response:
    """Returns the messages of the active path, oldest first, with citations and sources."""
    conversation = await services.conversations.sessions.conversation(owner, session_id, every_branch=branches)
    summary = conversation.summary
    body = {
        "items": await encode_items(map(_message, conversation.messages)),
        "summarised_until": summary.message_id if summary is not None else None,
        "summary": summary.text if summary is not None else None,
    }
    return Response(msgspec.json.encode(body), media_type="application/json")


@router.put(
    "/{session_id}/head", responses=responses(400, 401, 403, NO_SESSION, 422), summary="Switch to another branch"
)
async def switch_branch(session_id: SessionId, body: HeadChange, services: ServicesDep, owner: Owner) -> Session:
    """Makes the active path end at a message of any branch. The next message follows that one."""
    return session_of(await services.conversations.sessions.switch(owner, session_id, body.message_id, leaf=body.leaf))


@router.get("/{session_id}/active", responses=responses(401, NO_SESSION), summary="Live run of a session")
async def get_active_run(session_id: SessionId, services: ServicesDep, owner: Owner) -> ActiveRun:
    """Returns the run that is answering now. A page can call this after a refresh, to continue watching."""
    return ActiveRun(run_id=await services.conversations.sessions.active_run(owner, session_id))


def session_of(row: SessionRow) -> Session:
    """A session as the API returns it."""
    return Session(
        id=row.id,
        title=row.title,
        head_message_id=row.head_message_id,
        **{name: row.settings.get(name) for name in ("collections", "model", "system_prompt", "prompt")},
        created_at=iso(row.created_at),
        updated_at=iso(row.updated_at),
    )


def _message(placed: PlacedMessage) -> dict[str, Any]:
    """The fields of a `Message`. Its parts may be long, so their stored JSON is used as it is."""
    row = placed.row
    return {
        "id": row.id,
        "parent_id": row.parent_id,
        "run_id": row.run_id,
        "siblings": placed.siblings,
        "active": placed.active,
        "role": row.role,
        "status": row.status,
        "model": row.model,
        "prompt": msgspec.Raw(row.prompt.encode()) if row.prompt is not None else None,
        "parts": msgspec.Raw(row.parts.encode()),
        "created_at": iso(row.created_at),
    }
