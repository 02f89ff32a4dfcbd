"""The fields that all requests for an answer share, and the function that answers them with a stream."""

from typing import Any, Literal, Self

from fastapi import Request, Response
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from typing_extensions import override

from backend.chains.history.images import read_image
from backend.chains.models.parameters import Writing
from backend.chains.models.prompt import Image
from backend.config.groups.runs import OnDisconnect
from backend.errors import BadRequest, Invalid
from backend.kit.text import check_clean
from backend.routers.answers.cursor import parse_cursor
from backend.routers.answers.documentation import STREAM_PARAMETERS, header_parameter
from backend.routers.answers.respond import run_response
from backend.routers.dialects import dialect_of
from backend.routers.edge.body_limits import TEXT_BODY
from backend.routers.edge.bounds import MAX_ID, IdText
from backend.routers.edge.services import owner_of, ready_services, request_id_of
from backend.services.answers.request import AnswerRequest, IfBusy
from backend.services.prompts.prompts import PromptChoice

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgAB5Sfe/AAAAABJRU5ErkJggg=="
"""A PNG of one pixel, for examples."""


class ImageInput(BaseModel):
    """An image as base64. It must have the type `media_type`."""

    model_config = ConfigDict(extra="forbid")

    media_type: Literal["image/png", "image/jpeg", "image/webp", "image/gif"]
    data: str = Field(min_length=4, max_length=TEXT_BODY, description="Base64, without line breaks.", examples=[PIXEL])

    _image: Image = PrivateAttr()

    @model_validator(mode="after")
    def _read(self) -> Self:
        self._image = read_image(self.media_type, self.data)
        return self

    @property
    def image(self) -> Image:
        """The image."""
        return self._image


class AnswerOptions(Writing):
    """Options for an answer. Unknown fields are refused: providers and keys are set only in the server's settings."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None,
        max_length=MAX_ID,
        description="`provider/model` or an alias, see GET /models. Unset: the session's, else the "
        "prompt's, else the default.",
    )
    documents: bool | list[IdText] = Field(
        True,
        description="true: search all of your documents; false: search none; or the ids of the documents to search.",
    )
    collections: list[IdText] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Search only in these collections, by id or name. Unset: the session's, else all of yours.",
    )
    system_prompt: str | None = Field(None, max_length=20_000, description="Replaces the default system prompt.")
    prompt: PromptChoice | None = Field(None, description="One of your prompts, see GET /prompts.")
    fallbacks: list[IdText] | None = Field(
        None,
        max_length=9,
        description="Models to try, in this order, if the first model fails before its first token. "
        "Unset: those of the settings. Empty list: none.",
    )
    fallback_after_output: bool = Field(
        False,
        strict=True,
        description="The next model also takes over if a model fails within its answer; it starts again.",
    )
    if_busy: IfBusy = Field("reject", description="What to do if the session is still answering another message.")
    on_disconnect: OnDisconnect | None = Field(
        None,
        description="Whether the answer continues if no client watches it. Unset: the setting ON_DISCONNECT.",
    )

    @field_validator("*")
    @classmethod
    def _check_text(cls, value: Any) -> Any:
        check_clean(value)
        return value

    @field_validator("documents", mode="wrap")
    @classmethod
    def _check_documents(cls, value: Any, read: ValidatorFunctionWrapHandler) -> bool | list[str]:
        # One message if the value is neither a boolean nor a list; Pydantic would report two errors.
        try:
            documents: bool | list[str] = read(value)
        except ValidationError:
            documents = []
        if isinstance(documents, list) and not 1 <= len(documents) <= 100:
            raise ValueError("must be true, false, or 1 to 100 document ids")
        return documents

    def answer_request(self, idempotency_key: str | None, **place: Any) -> AnswerRequest:
        """The request for the service. `place` has the fields that say where in the session the message belongs."""
        return AnswerRequest(
            **place,
            idempotency_key=idempotency_key,
            model=self.model,
            options=self.options(),
            documents=self.documents if isinstance(self.documents, bool) else tuple(self.documents),
            collections=None if self.collections is None else tuple(self.collections),
            system_prompt=self.system_prompt,
            prompt=self.prompt,
            fallbacks=None if self.fallbacks is None else tuple(self.fallbacks),
            fallback_after_output=self.fallback_after_output,
            if_busy=self.if_busy,
            on_disconnect=self.on_disconnect,
        )


class NewMessage(AnswerOptions):
    """A message and the options for its answer."""

    message: str = Field(description="The user's message. Not blank; at most MAX_MESSAGE_CHARS characters.")
    images: list[ImageInput] | None = Field(
        None, max_length=8, description="Images of the message, for models that support images."
    )

    @field_validator("message")
    @classmethod
    def _check_not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value

    @override
    def answer_request(self, idempotency_key: str | None, **place: Any) -> AnswerRequest:
        images = None if self.images is None else tuple(item.image for item in self.images)
        return super().answer_request(idempotency_key, message=self.message, images=images, **place)


_KEY = (
    "If you send the same key and body again, you get the first run's stream; no second "
    "run is started. At most 200 characters."
)


ANSWER_PARAMETERS = [*STREAM_PARAMETERS, header_parameter("Idempotency-Key", _KEY)]


async def start_and_stream(request: Request, body: AnswerOptions, **place: Any) -> Response:
    """The stream of a new run that answers the request. With `Last-Event-ID`, the rest of that run's stream.

    `place` has the fields of `AnswerRequest` that say where in the session the message belongs.
    """
    # Without FastAPI's dependencies and parameters: five of them cost a twentieth of the CPU of a short answer.
    dialect = dialect_of(request)
    services, owner = await ready_services(request), await owner_of(request)
    headers = request.headers
    if last_event_id := headers.get("last-event-id"):
        run_id = last_event_id.rpartition(":")[0]
        if not run_id or len(last_event_id) > MAX_ID:
            raise BadRequest("Last-Event-ID must be <run_id>:<seq>.", code="bad_cursor")
        after = parse_cursor(run_id, last_event_id, None)
    else:
        key = headers.get("idempotency-key") or None
        if key is not None and len(key) > MAX_ID:
            raise Invalid(f"Idempotency-Key: must have at most {MAX_ID} characters. Use a UUID.")
        request_id = request_id_of(request)
        run_id, after = await services.answers.start(owner, body.answer_request(key, **place), request_id), 0
    return await run_response(services, owner, run_id, after, request, dialect)
