"""Sessions: the conversations and their messages."""

from typing import Annotated, Any, Self

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from backend.events import clean_text
from backend.routers.paging import Cursor, cursor_of, position_of
from backend.routers.problems import responses
from backend.routers.state import Owner, ServicesDep
from backend.routers.times import Time, iso
from backend.routers.view import View
from backend.services.pieces import encoded
from backend.services.prompts import PromptChoice
from backend.services.tree import Placed
from backend.storage.sessions import SessionRow

router = APIRouter(prefix="/sessions", tags=["sessions"])

Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]


class Session(View):
    """A conversation."""

    id: str
    title: str
    head_message_id: str | None = Field(None, description="The last message of the active path.")
    collections: list[str] | None = Field(None, description="Where its answers search; none is all of yours.")
    model: str | None = Field(None, description="Answers where the request names none.")
    system_prompt: str | None = None
    prompt: PromptChoice | None = None
    created_at: Time
    updated_at: Time


class SessionList(View):
    """A page of sessions, last changed first."""

    items: list[Session]
    next_cursor: str | None = None


class SessionChange(BaseModel):
    """What of a session can be changed; what isn't named stays as it is."""

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
    collections: list[str] | None = Field(
        None, min_length=1, max_length=100, description="Search only in these collections; null is all of yours."
    )
    model: str | None = Field(None, min_length=1, max_length=200, description="Answers where a request names none.")
    system_prompt: str | None = Field(None, max_length=20_000, description="Instead of the default system prompt.")
    prompt: PromptChoice | None = Field(None, description="A prompt of yours, see GET /prompts.")

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
        if value is not None and value != clean_text(value):
            raise ValueError("must not hold NUL characters or lone surrogates")
        return value

    @field_validator("collections")
    @classmethod
    def _ids(cls, value: list[str] | None) -> list[str] | None:
        if any(each != clean_text(each) for each in value or ()):
            raise ValueError("must be collection ids")
        return value

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("say what to change: title, collections, model, system_prompt, prompt")
        return self


class Message(View):
    """A message; text parts hold their citations, `[start:end]` in Unicode code points."""

    id: str
    parent_id: str | None = None
    run_id: str | None = None
    siblings: list[str] = Field(
        description="All messages that follow the same one, itself too, oldest first: other answers, other wordings."
    )
    active: bool = Field(description="Whether it is on the active path.")
    role: str = Field(examples=["assistant"])
    status: str = Field(description="complete, partial, failed or cancelled", examples=["complete"])
    model: str | None = Field(None, description="Which model answered.")
    prompt: dict[str, Any] | None = Field(
        None, description="Which prompt it was given: `name`, `version`, `variables`; none is none."
    )
    parts: list[dict[str, Any]] = Field(
        description="`{type: text, text, citations}`, `{type: reasoning, text}`, `{type: sources, items}`, "
        "`{type: image, image_id, media_type, bytes}`: `GET /images/{image_id}` has the picture."
    )
    created_at: Time


class MessageList(View):
    """Messages, oldest first."""

    items: list[Message]
    summarised_until: str | None = Field(
        None, description="Up to and with this message the model is told `summary` once the conversation is too long."
    )
    summary: str | None = None


class HeadChange(BaseModel):
    """Where the active path is to end."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"message_id": "msg_0193…"}]})

    message_id: str = Field(min_length=1, max_length=100, description="A message of the session, of any branch.")
    leaf: bool = Field(False, description="Go on from it to the end of its newest branch.")


class ActiveRun(View):
    """The live run of a session, if there is one: watch it at /runs/{run_id}/events."""

    run_id: str | None = None


@router.get("", responses=responses(400, 401, 422), summary="Your sessions")
async def sessions(
    services: ServicesDep,
    owner: Owner,
    limit: Limit = 50,
    cursor: Cursor = None,
    q: Annotated[str | None, Query(max_length=200, description="Text that the title holds.")] = None,
) -> SessionList:
    """Last changed first, a page at a time."""
    page = await services.sessions.page(owner, limit, position_of(cursor), q)
    last = page.items[-1] if page.more else None
    following = cursor_of(last.updated_at, last.id) if last else None
    return SessionList(items=[session_of(row) for row in page.items], next_cursor=following)


@router.get("/{session_id}", responses=responses(401, 404), summary="One session")
async def session(session_id: str, services: ServicesDep, owner: Owner) -> Session:
    """Title and times of a session."""
    return session_of(await services.sessions.get(owner, session_id))


@router.patch("/{session_id}", responses=responses(401, 403, 404, 422), summary="Change a session")
async def change(session_id: str, body: SessionChange, services: ServicesDep, owner: Owner) -> Session:
    """Another title; how its messages are answered where a request doesn't say. What is null is unset."""
    settings = body.model_dump(include=body.model_fields_set - {"title"}, exclude_defaults=False)
    if body.collections is not None:
        await services.collections.check_exist(owner, body.collections)
    if body.model is not None:
        services.models.check(body.model)
    if body.prompt is not None:
        await services.prompts.prepare(owner, body.prompt.name, body.prompt)
    return session_of(await services.sessions.change(owner, session_id, body.title, settings))


@router.delete("/{session_id}", status_code=204, responses=responses(401, 403, 404), summary="Delete a session")
async def delete(session_id: str, services: ServicesDep, owner: Owner) -> Response:
    """Cancels its live run and deletes its messages, runs and events."""
    await services.sessions.delete(owner, session_id)
    return Response(status_code=204)


@router.get("/{session_id}/messages", response_model=MessageList, responses=responses(401, 404), summary="Its messages")
async def messages(
    session_id: str,
    services: ServicesDep,
    owner: Owner,
    branches: Annotated[bool, Query(description="Every branch, not only the active path.")] = False,
) -> Response:
    """The active path, oldest first, with citations and sources."""
    found = await services.sessions.conversation(owner, session_id, every_branch=branches)
    summary = found.summary
    told = {
        "items": await encoded(map(_message, found.messages)),
        "summarised_until": summary.message_id if summary is not None else None,
        "summary": summary.text if summary is not None else None,
    }
    return Response(msgspec.json.encode(told), media_type="application/json")


@router.put("/{session_id}/head", responses=responses(400, 401, 403, 404, 422), summary="Switch the branch")
async def switch(session_id: str, body: HeadChange, services: ServicesDep, owner: Owner) -> Session:
    """Let the active path end with another message, of any branch; the next message follows it."""
    return session_of(await services.sessions.switch(owner, session_id, body.message_id, leaf=body.leaf))


@router.get("/{session_id}/active", responses=responses(401, 404), summary="Its live run")
async def active(session_id: str, services: ServicesDep, owner: Owner) -> ActiveRun:
    """What a page asks after a refresh, to go on watching."""
    return ActiveRun(run_id=await services.sessions.active_run(owner, session_id))


def session_of(row: SessionRow) -> Session:
    """A session as the API shows it."""
    return Session(
        id=row.id,
        title=row.title,
        head_message_id=row.head_message_id,
        **{name: row.settings.get(name) for name in ("collections", "model", "system_prompt", "prompt")},
        created_at=iso(row.created_at),
        updated_at=iso(row.updated_at),
    )


def _message(placed: Placed) -> dict[str, Any]:
    """A `Message`. What it says is JSON already, and may be much."""
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
