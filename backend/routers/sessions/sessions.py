"""Sessions: the conversations and their messages."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from backend.errors import BadRequest
from backend.kit.text import check_clean, clean_text, is_clean
from backend.kit.yielding import encode_items
from backend.routers.answers.message_views import MessageList, message_fields
from backend.routers.edge.bounds import IdText
from backend.routers.edge.examples import NO_SESSION
from backend.routers.edge.paging import Cursor, cursor_of, position_of
from backend.routers.edge.paths import SessionId
from backend.routers.edge.problems import ProblemExample, responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ServicesDep
from backend.routers.edge.times import Time, iso
from backend.routers.edge.view import View
from backend.services.conversations.sessions import SessionEdit, SessionRow, position
from backend.services.conversations.tree import PlacedMessage
from backend.services.prompts.prompts import PromptChoice

router = APIRouter(prefix="/sessions", tags=["sessions"], route_class=OwnRoute)
TAG = {"name": "sessions", "description": "Conversations and their messages."}

_OPTIONS = frozenset({"collections", "model", "system_prompt", "prompt"})
_NO_COLLECTION = ProblemExample(
    404, "not_found", "collections: no such collection: contracts. GET /collections lists yours."
)

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
    pinned: bool = Field(description="Pinned sessions come first in GET /sessions.")
    archived: bool = Field(description="GET /sessions leaves archived sessions out, unless it is asked for them.")
    created_at: Time
    updated_at: Time


class SessionList(View):
    """A page of sessions: pinned ones first, then the last changed one first."""

    items: list[Session]
    next_cursor: str | None = None


class SessionFields(BaseModel):
    """What a client can set of a session."""

    model_config = ConfigDict(extra="forbid")

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
    pinned: bool | None = Field(None, description="true: the session comes first in GET /sessions.")
    archived: bool | None = Field(None, description="true: GET /sessions leaves the session out by default.")

    @field_validator("title")
    @classmethod
    def _line(cls, value: str | None) -> str | None:
        if value is None:
            return None
        value = " ".join(clean_text(value).split())
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


class NewSession(SessionFields):
    """A session without messages. Its first message gives it a title, if you give none."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{}, {"title": "Contract questions", "collections": ["contracts"]}]},
    )


class SessionChange(SessionFields):
    """Changes of a session. Fields that are not sent stay unchanged."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"title": "Contract questions"},
                {"collections": ["contracts"]},
                {"pinned": True},
                {"model": "simulated/words", "prompt": {"name": "support"}},
            ]
        },
    )

    @field_validator("title", "pinned", "archived")
    @classmethod
    def _check_not_null(cls, value: str | bool | None) -> str | bool | None:
        if value is None:
            raise ValueError("can be changed, but not removed")
        return value

    @model_validator(mode="after")
    def _check_any_change(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"say what to change: {', '.join(SessionFields.model_fields)}")
        return self


_NO_FIELDS = NewSession.model_validate({})


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
    archived: Annotated[bool, Query(description="true: only archived sessions, instead of the others.")] = False,
    pinned: Annotated[
        bool | None, Query(description="Only sessions that are pinned, or only those that aren't.")
    ] = None,
) -> SessionList:
    """Returns a page of your sessions: pinned ones first, then the last changed one first. `GET /search/messages` finds
    text in messages.
    """
    page = await services.conversations.sessions.page(
        owner, limit, position_of(cursor), q, archived=archived, pinned=pinned
    )
    following = cursor_of(*position(page.items[-1])) if page.more else None
    return SessionList(items=[session_of(row) for row in page.items], next_cursor=following)


@router.post(
    "", status_code=201, responses=responses(400, 401, 403, _NO_COLLECTION, 413, 422), summary="Create a session"
)
async def create_session(services: ServicesDep, owner: Owner, body: NewSession = _NO_FIELDS) -> Session:
    """Creates a session without messages. You don't need it to ask: `POST /chat` without `session_id` creates one."""
    return session_of(await services.conversations.sessions.create(owner, await _edit(services, owner, body)))


@router.get("/{session_id}", responses=responses(401, NO_SESSION), summary="One session")
async def get_session(session_id: SessionId, services: ServicesDep, owner: Owner) -> Session:
    """Returns title, times and settings of a session."""
    return session_of(await services.conversations.sessions.get(owner, session_id))


@router.patch("/{session_id}", responses=responses(401, 403, NO_SESSION, 422), summary="Change a session")
async def update_session(session_id: SessionId, body: SessionChange, services: ServicesDep, owner: Owner) -> Session:
    """Changes the title, pins or archives the session, or changes the options for answers that a request doesn't set.
    null removes an option.
    """
    edit = await _edit(services, owner, body)
    return session_of(await services.conversations.sessions.change(owner, session_id, edit))


async def _edit(services: ServicesDep, owner: str, body: SessionFields) -> SessionEdit:
    """What the request sets, checked. Raises NotFound, Invalid."""
    settings = body.model_dump(include=body.model_fields_set & _OPTIONS)
    if body.collections is not None:
        settings["collections"] = await services.library.collections.resolve(owner, body.collections)
    if body.model is not None:
        services.models.catalog.check(body.model)
    if body.prompt is not None:
        await services.prompts.prepare(owner, body.prompt.name, body.prompt)
    return SessionEdit(body.title, settings, body.pinned, body.archived)


@router.delete("/{session_id}", status_code=204, responses=responses(401, 403, NO_SESSION), summary="Delete a session")
async def delete_session(session_id: SessionId, services: ServicesDep, owner: Owner) -> Response:
    """Cancels the session's live run and deletes its messages, runs and events."""
    await services.conversations.sessions.delete(owner, session_id)
    return Response(status_code=204)


@router.get(
    "/{session_id}/messages",
    response_model=MessageList,
    responses=responses(400, 401, NO_SESSION),
    summary="Messages of a session",
)
async def list_messages(
    session_id: SessionId,
    services: ServicesDep,
    owner: Owner,
    branches: Annotated[bool, Query(description="true: return every branch, not only the active path.")] = False,
    limit: Annotated[int | None, Query(ge=1, le=1000, description="Maximum number per page. Unset: all.")] = None,
    cursor: Cursor = None,
    order: Annotated[Literal["asc", "desc"], Query(description="`desc`: newest first.")] = "asc",
) -> Response:
    """Returns the messages of the active path, oldest first, with citations, sources and feedback. `total` counts them
    on all pages.
    """
    conversation = await services.conversations.sessions.conversation(owner, session_id, every_branch=branches)
    messages = conversation.messages if order == "asc" else conversation.messages[::-1]
    page, following = _page(messages, limit, position_of(cursor))
    summary = conversation.summary
    body = {
        "items": await encode_items(message_fields(message, conversation.feedback) for message in page),
        "total": len(messages),
        "next_cursor": following,
        "summarised_until": summary.message_id if summary is not None else None,
        "summary": summary.text if summary is not None else None,
    }
    return Response(msgspec.json.encode(body), media_type="application/json")


def _page(
    messages: Sequence[PlacedMessage], limit: int | None, after: tuple[int, str] | None
) -> tuple[Sequence[PlacedMessage], str | None]:
    """A page of messages after the one that the cursor names, and the cursor of the next page. Raises BadRequest."""
    if after is not None:
        places = [n for n, message in enumerate(messages, 1) if message.row.id == after[1]]
        if not places:
            raise BadRequest(
                "cursor: this message isn't in the list any more. Begin again without a cursor.", code="bad_cursor"
            )
        messages = messages[places[0] :]
    if limit is None or len(messages) <= limit:
        return messages, None
    last = messages[limit - 1].row
    return messages[:limit], cursor_of(last.created_at, last.id)


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
        **{name: row.settings.get(name) for name in sorted(_OPTIONS)},
        pinned=row.pinned,
        archived=row.archived,
        created_at=iso(row.created_at),
        updated_at=iso(row.updated_at),
    )
