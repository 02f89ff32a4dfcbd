"""The history of a session: the earlier messages that a model is given, and the summary of the oldest ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backend.chains.models.prompt import Message
from backend.chains.models.tokenizers import Count
from backend.messages import ImagePart, SourcesPart, decode_parts, images_of, text_of
from backend.storage.conversations.messages import StoredMessage


@dataclass(frozen=True, slots=True)
class PastMessage:
    """A message of the active path. `summary` covers all messages up to this one, if one was made here. `images` are
    the user's; `has_sources`: the model that wrote the message was given passages."""

    id: str
    message: Message
    summary: str | None = None
    images: tuple[ImagePart, ...] = ()
    has_sources: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """The messages before the one that is answered, oldest first. If there is a summary, a model is given it instead of
    the first `covered` messages."""

    past: Sequence[PastMessage]
    covered: int = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages, the covered ones too."""
        return tuple(past.message for past in self.past)

    @property
    def has_sources(self) -> bool:
        """Whether the model was given passages for one of the answers."""
        return any(past.has_sources for past in self.past)

    @property
    def summary(self) -> str | None:
        """The summary of the covered messages."""
        return self.past[self.covered - 1].summary if self.covered else None


def past_messages(rows: Sequence[StoredMessage], count: Count | None = None) -> list[PastMessage]:
    """Stored messages as a model is given them, with a note about their images; empty ones are left out."""
    past: list[PastMessage] = []
    for row in rows:
        parts = decode_parts(row.parts)
        text, images = text_of(parts), images_of(parts) if row.role == "user" else ()
        if text or images:
            role = "user" if row.role == "user" else "assistant"
            message = Message(role, text, hidden_images=len(images), count=count)
            has_sources = any(isinstance(part, SourcesPart) for part in parts)
            past.append(PastMessage(row.id, message, row.summary, images, has_sources))
        elif row.summary is not None and past:
            past[-1] = replace(past[-1], summary=row.summary)
    return past


def covered_by_summary(past: Sequence[PastMessage]) -> int:
    """How many messages the last summary covers; 0 if there is none."""
    return next((n for n in range(len(past), 0, -1) if past[n - 1].summary is not None), 0)
