"""A session as JSON: the format that an export writes and an import reads.

A file may be large and may have any content. It is split into messages without parsing them; then the messages are
parsed one by one, so that other streams go on in between.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from backend.chains.history.images import MAX_PROMPT_IMAGES
from backend.errors import BadRequest, Invalid
from backend.kit.yielding import in_pieces
from backend.messages import MessageStatus, SourcesPart, TextPart, encode_parts
from backend.services.conversations.images import FilePart, import_parts
from backend.storage.conversations.images import ImageRow
from backend.storage.conversations.messages import MessageRow

MAX_MESSAGES, _MAX_PICTURES = 5_000, 1_000
_MAX_BRACES, _MAX_CITED, _MAX_QUOTE, _MAX_VALUES = 20_000, 2_000, 20_000, 50_000
"""Limits of one message: the number of `{` in its JSON, since it is parsed in one step; of citations, and also of
sources; the characters of a quote; the characters of its prompt's variables."""
_LARGEST = 10**18

Id = Annotated[str, Meta(min_length=1, max_length=100)]
Moment = Annotated[datetime, Meta(tz=True)]
Number = Annotated[int, Meta(ge=-_LARGEST, le=_LARGEST)] | Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]


_Usage = Annotated[
    msgspec.Raw,
    Meta(
        extra_json_schema={
            "anyOf": [{"$ref": "#/components/schemas/TokenUsage"}, {"description": "Imported files may hold anything."}]
        }
    ),
]


class UsedPrompt(msgspec.Struct, forbid_unknown_fields=True):
    """The prompt of an answer."""

    name: Annotated[str, Meta(max_length=64)]
    version: Annotated[int, Meta(ge=1, le=1_000_000)]
    variables: Annotated[dict[Annotated[str, Meta(max_length=50)], bool | Number | str], Meta(max_length=50)] = {}


class FileFeedback(msgspec.Struct, forbid_unknown_fields=True):
    """What the user thinks of an answer."""

    rating: Literal["up", "down"]
    comment: Annotated[str, Meta(max_length=4000)] | None = None


class TranscriptMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A message. `usage` is exported, but not imported."""

    id: Id
    role: Literal["user", "assistant"]
    parts: Annotated[
        list[FilePart],
        Meta(max_length=1_000, description="As in `GET /sessions/{id}/messages`, but images have their `data`."),
    ]
    created_at: Moment
    parent_id: Id | None = None
    status: MessageStatus = "complete"
    model: Annotated[str, Meta(max_length=200)] | None = None
    prompt: UsedPrompt | None = None
    usage: _Usage | msgspec.UnsetType = msgspec.UNSET
    feedback: FileFeedback | None = None


class _Head(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    title: Annotated[str, Meta(min_length=1, max_length=200)]
    created_at: Moment
    format: Literal["streamforge.session"] = "streamforge.session"
    version: Literal[1] = 1
    head_message_id: Annotated[Id | None, Meta(description="Id of the last message of the active path.")] = None


class SessionFile(_Head, kw_only=True):
    """A session with every branch: the export of `GET /sessions/{id}/export` and the body of `POST
    /sessions/import`.
    """

    messages: Annotated[list[TranscriptMessage], Meta(max_length=MAX_MESSAGES)]


class _Split(_Head, kw_only=True):
    messages: Annotated[list[msgspec.Raw], Meta(max_length=MAX_MESSAGES)]


class ReadSession(msgspec.Struct):
    """The content of a file: valid messages with the ids of the file, and their images. Times are in ms since 1970.

    Whether the messages are a tree is not checked yet.
    """

    title: str
    head: str | None
    created_at: int
    messages: list[MessageRow]
    images: list[ImageRow]
    feedback: dict[str, FileFeedback]


EXAMPLE: dict[str, Any] = {
    "format": "streamforge.session",
    "version": 1,
    "title": "Contract questions",
    "created_at": "2026-11-25T12:00:00.000Z",
    "head_message_id": "msg_2",
    "messages": [
        {
            "id": "msg_1",
            "role": "user",
            "parts": [{"type": "text", "text": "How long is the notice?"}],
            "created_at": "2026-11-25T12:00:00.000Z",
        },
        {
            "id": "msg_2",
            "parent_id": "msg_1",
            "role": "assistant",
            "parts": [{"type": "text", "text": "45 days."}],
            "model": "openai/gpt-4.1-mini",
            "created_at": "2026-11-25T12:00:02.000Z",
        },
    ],
}

_split = msgspec.json.Decoder(_Split)
_message = msgspec.json.Decoder(TranscriptMessage)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_LOCATION = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
"""The place of an error in msgspec's message: of a value, or of a name in an object."""
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_FIELD_ERRORS = {"created_at": "must be a moment like 2026-01-01T00:00:00Z", "role": "must be user or assistant"}
"""Messages for fields whose msgspec error is unclear."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def read_file(body: bytes) -> ReadSession:
    """The content of a file. Raises BadRequest (`bad_json`, `bad_request`), Invalid."""
    try:
        file = _split.decode(body)
    except msgspec.ValidationError as error:
        raise Invalid(_describe_error(error, "")) from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"The body can't be read, {error}. Send what an export gave.", code="bad_json") from None
    except (UnicodeDecodeError, RecursionError):
        raise BadRequest("The body can't be read: send UTF-8 JSON of sane depth.") from None
    read = ReadSession(file.title, file.head_message_id, _ms(file.created_at), [], [], {})
    async for n, raw in in_pieces(enumerate(file.messages)):
        read.messages.append(_row(raw, f"messages[{n}]", read))
    return read


def _row(raw: msgspec.Raw, path: str, read: ReadSession) -> MessageRow:
    """One message, whose JSON is at `path` in the file. Its images and feedback are added to `read`. Raises Invalid."""
    text = bytes(raw)
    if text.count(b"{") > _MAX_BRACES:
        raise Invalid(f"{path}: has more than {_MAX_BRACES} braces. So many parts, citations and sources aren't taken.")
    try:
        message = _message.decode(text)
        stored_parts, images_of_message = import_parts(message.parts)
        parts = encode_parts(stored_parts)
    except msgspec.ValidationError as error:
        raise Invalid(_describe_error(error, path)) from None
    except (ValueError, OverflowError, RecursionError) as error:
        # The error says what is wrong with the JSON: a lone surrogate, a huge number, bytes that aren't UTF-8.
        raise Invalid(f"{path}: can't be read: {str(error)[:200]}") from None
    if b"\\u0000" in text and _NUL.search(text):
        raise Invalid(f"{path}: must not hold NUL characters.")
    _check_parts(message.parts, path)
    read.images += images_of_message
    if message.feedback is not None:
        if message.role != "assistant":
            raise Invalid(f"{path}.feedback: only answers can be rated.")
        read.feedback[message.id] = message.feedback
    if images_of_message and message.role != "user":
        raise Invalid(f"{path}: is an answer: pictures belong to messages of the user's.")
    if len(images_of_message) > MAX_PROMPT_IMAGES:
        raise Invalid(f"{path}: has more than {MAX_PROMPT_IMAGES} pictures, the most that a model is shown at once.")
    if len(read.images) > _MAX_PICTURES:
        raise Invalid(f"{path}: more than {_MAX_PICTURES} pictures can't be imported.")
    return MessageRow(
        id=message.id,
        session_id="",
        parent_id=message.parent_id,
        run_id=None,
        role=message.role,
        status=message.status,
        parts=parts,
        model=message.model,
        prompt=_prompt(message.prompt, path),
        created_at=_ms(message.created_at),
    )


def _check_parts(parts: Sequence[FilePart], path: str) -> None:
    """Check the citations and sources of a message. Raises Invalid."""
    citations = [(part.text, citation) for part in parts if isinstance(part, TextPart) for citation in part.citations]
    sources = sum(len(part.items) for part in parts if isinstance(part, SourcesPart))
    if max(len(citations), sources) > _MAX_CITED:
        raise Invalid(f"{path}: has more than {_MAX_CITED} citations or sources.")
    for text, citation in citations:
        if not 0 <= citation.start <= citation.end <= len(text):
            raise Invalid(f"{path}: a citation lies outside its text.")
        if len(citation.quote) > _MAX_QUOTE:
            raise Invalid(f"{path}: a quote has more than {_MAX_QUOTE} characters.")


def _prompt(prompt: UsedPrompt | None, path: str) -> str | None:
    """The record of the prompt as JSON text. Raises Invalid."""
    if prompt is None:
        return None
    if sum(len(value) for value in prompt.variables.values() if isinstance(value, str)) > _MAX_VALUES:
        raise Invalid(f"{path}.prompt.variables: have more than {_MAX_VALUES} characters together.")
    return msgspec.json.encode(prompt).decode()


def _describe_error(error: Exception, path: str) -> str:
    """The message of msgspec's error, after the place in the file. It may quote the file."""
    location = _LOCATION.search(str(error))
    problem = str(error)[: location.start()] if location else str(error)
    place = f"{path}{location[1] if location else ''}".lstrip(".")
    if missing := _MISSING.match(problem):
        place, problem = f"{place}.{missing[1]}".lstrip("."), "is required"
    else:
        problem = _FIELD_ERRORS.get(place.rpartition(".")[2], problem)
    return f"{place[-100:]}: {problem[:200]}" if place else problem[:200]


def _ms(moment: datetime) -> int:
    return max(0, (moment - _EPOCH) // timedelta(milliseconds=1))
