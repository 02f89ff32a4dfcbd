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
    """Images of an owner; those of other owners raise NotFound."""

    def __init__(self, images: Images) -> None:
        self._images = images

    async def get(self, owner: str, image_id: str) -> ImageRow:
        """One image. Raises NotFound."""
        return await self._images.get(owner, image_id)

    async def count(self, session_id: str) -> int:
        """How many images a session has."""
        return await self._images.count(session_id)

    async def load(self, session_id: str, parts: Sequence[ImagePart]) -> tuple[Image, ...]:
        """The images of a message of that session."""
        if not parts:
            return ()
        rows = await self._images.find(session_id, [part.image_id for part in parts])
        return tuple(_image(rows[part.image_id]) for part in parts if part.image_id in rows)

    async def with_images(self, session_id: str, history: History, limit: int, own: Sequence[Image]) -> History:
        """The history with its newest images: at most `limit`, and at most `MAX_PROMPT_BYTES` together with the new
        message's `own`. The other images, and those that a summary covers, are mentioned in a note."""
        chosen = _newest(history, limit, MAX_PROMPT_BYTES - sum(len(image.data) for image in own))
        if not chosen:
            return history
        rows = await self._images.find(session_id, [part.image_id for part in chosen])
        past = list(history.past)
        for n, each in enumerate(past[history.covered :], history.covered):
            images = tuple(_image(rows[part.image_id]) for part in each.images if part.image_id in rows)
            if images:
                hidden_images = each.message.hidden_images - len(images)
                past[n] = replace(each, message=replace(each.message, images=images, hidden_images=hidden_images))
        return replace(history, past=past)

    async def export_parts(self, session_id: str, parts: Sequence[MessagePart]) -> list[FilePart]:
        """A message's parts as the file of a session has them."""
        rows = await self._images.find(session_id, [part.image_id for part in parts if isinstance(part, ImagePart)])
        exported = (_file_picture(rows.get(p.image_id)) if isinstance(p, ImagePart) else p for p in parts)
        return [part for part in exported if part is not None]


def import_parts(parts: Sequence[FilePart]) -> tuple[list[MessagePart], list[ImageRow]]:
    """A file's parts as they are stored, and their images, which get ids of their own. Raises ValueError."""
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
    for each in reversed(history.past[history.covered :]):
        for part in each.images:
            max_bytes -= part.bytes
            if len(chosen) == limit or max_bytes < 0:
                return chosen
            chosen.append(part)
    return chosen
