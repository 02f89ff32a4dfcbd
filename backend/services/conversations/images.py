"""Images of a session: stored with the message that has them, and sent again with every later message."""

import base64
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from backend.chains.history.images import MAX_PROMPT_BYTES, read_image
from backend.chains.models.prompt import Image
from backend.kit.ids import new_id
from backend.messages import ImagePart, MessagePart, ReasoningPart, SourcesPart, TextPart
from backend.services.conversations.history import History
from backend.storage.conversations.images import ImageRow, Images


class FilePicture(msgspec.Struct, tag="image", kw_only=True):
    """An image in the file of a session, as base64."""

    media_type: str
    data: str


FilePart = TextPart | ReasoningPart | SourcesPart | FilePicture


class ImageService:
    """The images of sessions."""

    def __init__(self, images: Images) -> None:
        self._images = images

    async def get(self, owner: str, image_id: str) -> ImageRow:
        """One image. Raises NotFound, also for an image of another owner."""
        return await self._images.get(owner, image_id)

    async def count(self, session_id: str) -> int:
        """How many images a session has."""
        return await self._images.count(session_id)

    async def load(self, session_id: str, parts: Sequence[ImagePart]) -> tuple[Image, ...]:
        """The images that parts of a message of the session name. Images that were deleted are left out."""
        if not parts:
            return ()
        rows = await self._images.find(session_id, [part.image_id for part in parts])
        return tuple(_image(rows[part.image_id]) for part in parts if part.image_id in rows)

    async def with_images(self, session_id: str, history: History, limit: int, new_images: Sequence[Image]) -> History:
        """The history with its newest images: at most `limit`, and at most `MAX_PROMPT_BYTES` together with the new
        message's `new_images`. A note mentions the images that are left out; summarized messages have none."""
        chosen = _newest(history, limit, MAX_PROMPT_BYTES - sum(len(image.data) for image in new_images))
        if not chosen:
            return history
        rows = await self._images.find(session_id, [part.image_id for part in chosen])
        past = list(history.past)
        for n, past_message in enumerate(past[history.summarized :], history.summarized):
            images = tuple(_image(rows[part.image_id]) for part in past_message.images if part.image_id in rows)
            if images:
                hidden_images = past_message.message.hidden_images - len(images)
                message = replace(past_message.message, images=images, hidden_images=hidden_images)
                past[n] = replace(past_message, message=message)
        return replace(history, past=past)

    async def export_parts(self, session_id: str, parts: Sequence[MessagePart]) -> list[FilePart]:
        """The parts of a message for the file of a session, with the data of images."""
        rows = await self._images.find(session_id, [part.image_id for part in parts if isinstance(part, ImagePart)])
        exported = (_file_picture(rows.get(p.image_id)) if isinstance(p, ImagePart) else p for p in parts)
        return [part for part in exported if part is not None]


def import_parts(parts: Sequence[FilePart]) -> tuple[list[MessagePart], list[ImageRow]]:
    """The parts of a file's message as they are stored, and their images, which get new ids. Raises ValueError."""
    stored: list[MessagePart] = []
    rows: list[ImageRow] = []
    for part in parts:
        if isinstance(part, FilePicture):
            (row,) = new_images((read_image(part.media_type, part.data),))
            rows.append(row)
            part = part_of(row)
        stored.append(part)
    return stored, rows


def new_images(images: Sequence[Image]) -> tuple[ImageRow, ...]:
    """Images with ids, ready to be stored."""
    return tuple(ImageRow(new_id("img"), image.media_type, image.data) for image in images)


def part_of(row: ImageRow) -> ImagePart:
    """The part of a message that names the image."""
    return ImagePart(image_id=row.id, media_type=row.media_type, bytes=len(row.data))


def _file_picture(row: ImageRow | None) -> FilePicture | None:
    if row is None:
        return None
    return FilePicture(media_type=row.media_type, data=base64.b64encode(row.data).decode())


def _image(row: ImageRow) -> Image:
    return Image(row.media_type, row.data)


def _newest(history: History, limit: int, max_bytes: int) -> list[ImagePart]:
    """The newest images of the history, at most `limit` with at most `max_bytes` together."""
    chosen: list[ImagePart] = []
    for past_message in reversed(history.past[history.summarized :]):
        for part in past_message.images:
            max_bytes -= part.bytes
            if len(chosen) == limit or max_bytes < 0:
                return chosen
            chosen.append(part)
    return chosen
