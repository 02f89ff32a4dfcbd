"""The parts of a stored message, and their JSON in the database."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from backend import events as ev


class CitationRef(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A citation inside a stored text part: `[start:end]` of the part's text, and the quote in the document."""

    source_id: str
    n: int
    start: int
    end: int
    quote: str
    document: ev.Place
    matched: bool = False


class TextPart(msgspec.Struct, tag="text", omit_defaults=True, kw_only=True):
    """Text of a message with its citations; `dropped` marks were removed, and `unlinked` links and images were
    replaced by plain text.
    """

    text: str
    part_id: str | None = None
    citations: list[CitationRef] = []
    dropped: int = 0
    unlinked: int = 0


class ReasoningPart(msgspec.Struct, tag="reasoning", omit_defaults=True, kw_only=True):
    """The model's reasoning."""

    text: str
    part_id: str | None = None
    unlinked: int = 0


class SourcesPart(msgspec.Struct, tag="sources", kw_only=True):
    """The passages that the model was given for the answer."""

    items: list[ev.Source]


class ImagePart(msgspec.Struct, tag="image", kw_only=True):
    """An image that the user sent. `GET /images/{image_id}` returns it."""

    image_id: str
    media_type: str
    bytes: int


_MAX_FIRST_TITLE = 80
BETWEEN_PARTS = "\n\n"
"""What separates two text parts where they are joined."""

MessagePart = TextPart | ReasoningPart | SourcesPart | ImagePart


MessageStatus = Literal["complete", "partial", "failed", "cancelled"]


_parts_decoder: msgspec.json.Decoder[list[MessagePart]] = msgspec.json.Decoder(list[MessagePart])


def encode_parts(parts: list[MessagePart]) -> str:
    """The parts as JSON text for the database."""
    return msgspec.json.encode(parts).decode()


def decode_parts(text: str) -> list[MessagePart]:
    """The parts that the database holds as this JSON text."""
    return _parts_decoder.decode(text)


def text_of(parts: Sequence[MessagePart]) -> str:
    """The text parts of a message, joined, without citation marks."""
    return BETWEEN_PARTS.join(p.text for p in parts if isinstance(p, TextPart))


def images_of(parts: list[MessagePart]) -> tuple[ImagePart, ...]:
    """The images of a message."""
    return tuple(p for p in parts if isinstance(p, ImagePart))


def first_title(message: str) -> str:
    """A session's first title: the beginning of its first message, on one line."""
    line = " ".join(message.split())
    return line if len(line) <= _MAX_FIRST_TITLE else line[: _MAX_FIRST_TITLE - 1].rstrip() + "…"


def marked_text(parts: Sequence[MessagePart]) -> str:
    """The text of a message with ` [n]` after each sentence that has a citation. JSON stays JSON, without marks."""
    return BETWEEN_PARTS.join(_with_marks(p.text, p.citations) for p in parts if isinstance(p, TextPart))


def begins_json(text: str) -> bool:
    """Whether a part with this text, or this beginning of its text, is a JSON object: marks would break it."""
    return text.lstrip()[:1] == "{"


def _with_marks(text: str, citations: list[CitationRef]) -> str:
    if begins_json(text):
        return text
    pieces: list[str] = []
    at = 0
    for citation in sorted(citations, key=lambda c: c.end):
        pieces += [text[at : citation.end], f" [{citation.n}]"]
        at = citation.end
    return "".join([*pieces, text[at:]])
