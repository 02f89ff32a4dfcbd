"""The history of a session: the earlier messages that a model is given, and the summary of the oldest ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backend.chains.models.prompt import Message
from backend.chains.models.tokenizers import Count
from backend.chains.text.thought_tags import without_first_thoughts
from backend.messages import ImagePart, SourcesPart, decode_parts, images_of, text_of
from backend.storage.conversations.messages import StoredMessage


@dataclass(frozen=True, slots=True)
class PastMessage:
    """A message of the active path."""

    id: str
    message: Message
    summary: str | None = None
    """A summary of all messages up to this one, if there is one."""
    images: tuple[ImagePart, ...] = ()
    """The images that the user sent with the message."""
    has_sources: bool = False
    """Whether the model that wrote the message was given passages."""


@dataclass(frozen=True, slots=True)
class History:
    """The messages before the one that is answered, oldest first. If there is a summary, a model is given it instead of
    the first `summarized` messages."""

    past: Sequence[PastMessage]
    summarized: int = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages, also the summarized ones."""
        return tuple(past.message for past in self.past)

    @property
    def has_sources(self) -> bool:
        """Whether a model was given passages for one of the answers."""
        return any(past.has_sources for past in self.past)

    @property
    def summary(self) -> str | None:
        """The summary of the first `summarized` messages; None if there is none."""
        return self.past[self.summarized - 1].summary if self.summarized else None


_REFUSED = frozenset({"content_filter", "context_overflow"})
"""Codes of answers whose question would be refused again, in every later turn."""


def past_messages(rows: Sequence[StoredMessage], count: Count | None = None) -> list[PastMessage]:
    """Stored messages as a model is given them, with a note about their images. Blank messages are left out, and
    questions that the provider refused."""
    past: list[PastMessage] = []
    for n, row in enumerate(rows):
        parts = decode_parts(row.parts)
        text, images = text_of(parts), images_of(parts) if row.role == "user" else ()
        role = "user" if row.role == "user" else "assistant"
        if role == "assistant":
            # Imported answers may hold thoughts, and so may those of an older version.
            text = without_first_thoughts(text)
        is_refused = role == "user" and n + 1 < len(rows) and rows[n + 1].error in _REFUSED
        if (text.strip() or images) and not is_refused:
            message = Message(role, text, hidden_images=len(images), count=count)
            has_sources = any(isinstance(part, SourcesPart) for part in parts)
            past.append(PastMessage(row.id, message, row.summary, images, has_sources))
        elif row.summary is not None and past:
            past[-1] = replace(past[-1], summary=row.summary)
    return past


def count_summarized(past: Sequence[PastMessage]) -> int:
    """How many messages the newest summary replaces; 0 if there is none."""
    return next((n for n in range(len(past), 0, -1) if past[n - 1].summary is not None), 0)
