"""Messages: answer a message again, or edit it."""

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict

from backend.routers.answers.documentation import STREAM_RESPONSES
from backend.routers.answers.requests import ANSWER_PARAMETERS, AnswerOptions, NewMessage, start_and_stream
from backend.routers.edge.body_limits import TEXT_BODY
from backend.routers.edge.examples import NO_MESSAGE, SESSION_BUSY
from backend.routers.edge.paths import MessageId
from backend.routers.edge.problems import responses
from backend.routers.edge.routes import OwnRoute

router = APIRouter(prefix="/messages", tags=["sessions"], route_class=OwnRoute)
MAX_BODY = TEXT_BODY

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
