"""The schemas of messages, and the functions that make them from rows."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from pydantic import Field

from backend.routers.edge.times import Time, iso
from backend.routers.edge.view import View, schema_of
from backend.services.conversations.feedback import FeedbackRow, Rating
from backend.services.conversations.tree import PlacedMessage


class Feedback(View):
    """What a user thinks of an answer."""

    rating: Rating
    comment: str | None = None
    updated_at: Time


class Message(View):
    """A message. Text parts contain their citations; `[start:end]` are positions in Unicode code points."""

    id: str
    session_id: str
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
    feedback: Feedback | None = Field(None, description="What you said of the answer.")
    created_at: Time


class MessageList(View):
    """Messages, in the order that was asked for."""

    items: list[Message]
    total: int = Field(description="Number of messages on all pages.")
    next_cursor: str | None = None
    summarised_until: str | None = Field(
        None,
        description="Id of the last message that `summary` covers. The model gets the summary instead of "
        "these messages, if the conversation is too long.",
    )
    summary: str | None = None


def message_fields(placed: PlacedMessage, feedback: Mapping[str, FeedbackRow]) -> dict[str, Any]:
    """The fields of a `Message`. Its parts may be long, so their stored JSON is used as it is."""
    row = placed.row
    return {
        "id": row.id,
        "session_id": row.session_id,
        "parent_id": row.parent_id,
        "run_id": row.run_id,
        "siblings": placed.siblings,
        "active": placed.active,
        "role": row.role,
        "status": row.status,
        "model": row.model,
        "prompt": msgspec.Raw(row.prompt.encode()) if row.prompt is not None else None,
        "parts": msgspec.Raw(row.parts.encode()),
        "feedback": feedback_fields(feedback.get(row.id)),
        "created_at": iso(row.created_at),
    }


def feedback_fields(row: FeedbackRow | None) -> dict[str, Any] | None:
    """The fields of a `Feedback`; None if there is none."""
    if row is None:
        return None
    return {"rating": row.rating, "comment": row.comment, "updated_at": iso(row.updated_at)}
