"""Messages: answer one once more, or say something else in its place."""

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict

from backend.routers.answers.requests import ANSWER_PARAMETERS, AnswerOptions, NewMessage, answered
from backend.routers.answers.respond import STREAM_RESPONSES
from backend.routers.edge.problems import responses
from backend.routers.edge.services import Services

router = APIRouter(prefix="/messages", tags=["sessions"])

_RESPONSES = {**STREAM_RESPONSES, **responses(400, 401, 402, 403, 404, 409, 413, 421, 422, 429, 503, 507)}


class RegenerateRequest(AnswerOptions):
    """How to answer once more; what isn't said is as for `POST /chat`."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{}, {"model": "simulated/words", "documents": False}]}
    )


_ANYHOW = RegenerateRequest.model_validate({})


class EditRequest(NewMessage):
    """What to say instead, and how to answer it. Without `images`, the pictures of the message before stay."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"message": "And how long is the notice for tenants?"}]}
    )


@router.post(
    "/{message_id}/regenerate",
    response_class=Response,
    responses=_RESPONSES,
    summary="Answer once more",
    openapi_extra={"parameters": ANSWER_PARAMETERS},
)
async def regenerate(message_id: str, request: Request, body: RegenerateRequest = _ANYHOW) -> Response:
    """Another answer beside the one that is there, to the same message; it streams as `POST /chat` does.

    The id is the answer's, or that of the message that it answers. The new answer is the active one; the others stay,
    see `siblings` in `GET /sessions/{id}/messages`. The model sees the message's pictures again.
    """

    async def start(services: Services, owner: str, key: str | None, request_id: str | None) -> str:
        return await services.chat.regenerate(owner, message_id, body.options("", key), request_id)

    return await answered(request, start)


@router.post(
    "/{message_id}/edit",
    response_class=Response,
    responses=_RESPONSES,
    summary="Say it otherwise",
    openapi_extra={"parameters": ANSWER_PARAMETERS},
)
async def edit(message_id: str, body: EditRequest, request: Request) -> Response:
    """A message beside an earlier one of yours, with an answer of its own; it streams as `POST /chat` does.

    What was said before stays, and is another branch from there on. The pictures are those of the message before,
    unless `images` says which: `[]` is none.
    """

    async def start(services: Services, owner: str, key: str | None, request_id: str | None) -> str:
        return await services.chat.edit(owner, message_id, body.turn(key), request_id)

    return await answered(request, start)
