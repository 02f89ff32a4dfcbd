"""Messages: read, delete and rate them; answer a message again, or edit it."""

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from backend.kit.text import check_clean
from backend.routers.answers.documentation import STREAM_RESPONSES
from backend.routers.answers.message_views import Feedback, Message, message_fields
from backend.routers.answers.requests import ANSWER_PARAMETERS, AnswerOptions, NewMessage, start_and_stream
from backend.routers.edge.body_limits import TEXT_BODY
from backend.routers.edge.examples import NO_MESSAGE, SESSION_BUSY
from backend.routers.edge.paths import MessageId
from backend.routers.edge.problems import ProblemExample, responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ServicesDep
from backend.routers.edge.times import iso
from backend.routers.edge.view import View
from backend.services.conversations.feedback import Rating

router = APIRouter(prefix="/messages", tags=["sessions"], route_class=OwnRoute)
MAX_BODY = TEXT_BODY

_BUSY = ProblemExample(
    409, "session_busy", "The session is still answering. Wait for that run, or cancel it (POST /runs/{id}/cancel)."
)
_ERRORS = responses(400, 401, 402, 403, NO_MESSAGE, SESSION_BUSY, 413, 421, 422, 429, 503, 507)
_RESPONSES = {**STREAM_RESPONSES, **_ERRORS}


class RegenerateRequest(AnswerOptions):
    """Options for another answer. Unset fields have the defaults of `POST /chat`."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{}, {"model": "simulated/words", "documents": False}]}
    )


_DEFAULT_REGENERATE = RegenerateRequest.model_validate({})


class EditRequest(NewMessage):
    """The changed message and the options for its answer. Without `images`, the images of the earlier message are
    kept.
    """

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"message": "And how long is the notice for tenants?"}]}
    )


class MessageReceipt(View):
    """What was deleted."""

    message_id: str
    messages: int = Field(description="Number of deleted messages: this one, and all after it.")


class FeedbackRequest(BaseModel):
    """Whether you find an answer good, and why."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"rating": "up"}, {"rating": "down", "comment": "The notice is 45 days."}]},
    )

    rating: Rating
    comment: str | None = Field(None, max_length=4000)

    @field_validator("comment")
    @classmethod
    def _clean(cls, value: str | None) -> str | None:
        check_clean(value)
        return (value or "").strip() or None


@router.get("/{message_id}", response_model=Message, responses=responses(401, NO_MESSAGE), summary="One message")
async def get_message(message_id: MessageId, services: ServicesDep, owner: Owner) -> Response:
    """Returns a message of any branch, with citations, sources and feedback. An answer is stored when its run ends."""
    found = await services.conversations.sessions.message(owner, message_id)
    body = msgspec.json.encode(message_fields(found.messages[0], found.feedback))
    return Response(body, media_type="application/json")


@router.delete("/{message_id}", responses=responses(401, 403, NO_MESSAGE, _BUSY), summary="Delete a message")
async def delete_message(message_id: MessageId, services: ServicesDep, owner: Owner) -> MessageReceipt:
    """Deletes a message and everything after it: its answers, and what follows them, in every branch, with their runs
    and images. If that was the active path, the newest branch beside it becomes active, or else the path ends before
    it. What the answers cost stays in `GET /usage`.
    """
    count = await services.conversations.sessions.delete_message(owner, message_id)
    return MessageReceipt(message_id=message_id, messages=count)


@router.put("/{message_id}/feedback", responses=responses(400, 401, 403, NO_MESSAGE, 422), summary="Rate an answer")
async def rate_answer(message_id: MessageId, body: FeedbackRequest, services: ServicesDep, owner: Owner) -> Feedback:
    """Stores what you think of an answer; it replaces what you said before. Exports contain it."""
    row = await services.conversations.feedback.put(owner, message_id, body.rating, body.comment)
    return Feedback(rating=body.rating, comment=row.comment, updated_at=iso(row.updated_at))


@router.delete(
    "/{message_id}/feedback",
    status_code=204,
    responses=responses(401, 403, NO_MESSAGE),
    summary="Take a rating back",
)
async def remove_rating(message_id: MessageId, services: ServicesDep, owner: Owner) -> Response:
    """Deletes your feedback on an answer. If there is none, this does nothing."""
    await services.conversations.feedback.delete(owner, message_id)
    return Response(status_code=204)


@router.post(
    "/{message_id}/regenerate",
    response_class=Response,
    responses=_RESPONSES,
    summary="Answer a message again",
    openapi_extra={"parameters": ANSWER_PARAMETERS},
)
async def regenerate_message(
    message_id: MessageId, request: Request, body: RegenerateRequest = _DEFAULT_REGENERATE
) -> Response:
    """Creates another answer to the same message; it streams like `POST /chat`.

    The id is that of the answer, or of the message that it answers. The new answer becomes the active one; the others
    are kept: see `siblings` in `GET /sessions/{id}/messages`. The model sees the message's images again.
    """

    return await start_and_stream(request, body, sibling_of=message_id, regenerate=True)


@router.post(
    "/{message_id}/edit",
    response_class=Response,
    responses=_RESPONSES,
    summary="Edit a message",
    openapi_extra={"parameters": ANSWER_PARAMETERS},
)
async def edit_message(message_id: MessageId, body: EditRequest, request: Request) -> Response:
    """Sends a changed version of one of your earlier messages, and answers it; the answer streams like `POST /chat`.

    The earlier message and its answers are kept as another branch. The new message keeps the earlier message's images,
    unless the request has `images`; `[]` means none.
    """

    return await start_and_stream(request, body, sibling_of=message_id)
