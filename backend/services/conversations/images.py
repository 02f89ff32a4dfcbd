"""Pictures of a conversation: stored with the message that brings them, and shown again with every later one."""

import base64
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from backend.chains.history.images import MOST_BYTES, read_image
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


class Pictures:
    """Pictures of an owner. Somebody else's raise NotFound."""

    def __init__(self, images: Images) -> None:
        self._images = images

    async def get(self, owner: str, image_id: str) -> ImageRow:
        """One picture. Raises NotFound."""
        return await self._images.get(owner, image_id)

    async def count(self, session_id: str) -> int:
        """How many a session has."""
        return await self._images.count(session_id)

    async def load(self, session_id: str, parts: Sequence[ImagePart]) -> tuple[Image, ...]:
        """The pictures of a message of that session."""
        if not parts:
            return ()
        found = await self._images.of(session_id, [part.image_id for part in parts])
        return tuple(_image(found[part.image_id]) for part in parts if part.image_id in found)

    async def shown(self, session_id: str, told: History, most: int, own: Sequence[Image]) -> History:
        """The conversation with its newest pictures, `most` of them, and `MOST_BYTES` with the new message's `own`. Of
        the others, and of those that a summary covers, there stays a note."""
        chosen = _newest(told, most, MOST_BYTES - sum(len(image.data) for image in own))
        if not chosen:
            return told
        found = await self._images.of(session_id, [part.image_id for part in chosen])
        said = list(told.said)
        for n, each in enumerate(said[told.covered :], told.covered):
            images = tuple(_image(found[part.image_id]) for part in each.pictures if part.image_id in found)
            if images:
                hidden_images = each.message.hidden_images - len(images)
                said[n] = replace(each, message=replace(each.message, images=images, hidden_images=hidden_images))
        return replace(told, said=said)

    async def written(self, session_id: str, parts: Sequence[MessagePart]) -> list[FilePart]:
        """A message's parts as a file has them."""
        found = await self._images.of(session_id, [part.image_id for part in parts if isinstance(part, ImagePart)])
        told = (_in_file(found.get(p.image_id)) if isinstance(p, ImagePart) else p for p in parts)
        return [part for part in told if part is not None]


def taken_in(parts: Sequence[FilePart]) -> tuple[list[MessagePart], list[ImageRow]]:
    """A file's parts as they are stored, and their pictures, which get ids of their own. Raises ValueError."""
    kept: list[MessagePart] = []
    rows: list[ImageRow] = []
    for part in parts:
        if isinstance(part, FilePicture):
            (row,) = new_images((read_image(part.media_type, part.data),))
            rows.append(row)
            part = part_of(row)
        kept.append(part)
    return kept, rows


def new_images(images: Sequence[Image]) -> tuple[ImageRow, ...]:
    """Pictures with ids, ready to be stored."""
    return tuple(ImageRow(new_id("img"), image.media_type, image.data) for image in images)


def part_of(row: ImageRow) -> ImagePart:
    """What a message says of a picture."""
    return ImagePart(image_id=row.id, media_type=row.media_type, bytes=len(row.data))


def _in_file(row: ImageRow | None) -> FilePicture | None:
    if row is None:
        return None
    return FilePicture(media_type=row.media_type, data=base64.b64encode(row.data).decode())


def _image(row: ImageRow) -> Image:
    return Image(row.media_type, row.data)


def _newest(told: History, most: int, room: int) -> list[ImagePart]:
    """The newest pictures of the conversation, `most` of them with `room` bytes."""
    chosen: list[ImagePart] = []
    for each in reversed(told.said[told.covered :]):
        for part in each.pictures:
            room -= part.bytes
            if len(chosen) == most or room < 0:
                return chosen
            chosen.append(part)
    return chosen
