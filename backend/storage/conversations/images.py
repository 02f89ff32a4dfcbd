"""Images of messages. An image belongs to a session, so that all branches of the session can share it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from backend.errors import NotFound
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image and its bytes."""

    id: str
    media_type: str
    data: bytes = field(repr=False)


class Images:
    """Images in the database. They are stored with their message and deleted with its session."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def get(self, owner: str, image_id: str) -> ImageRow:
        """One image. Raises NotFound."""
        sql = "SELECT id, media_type, data FROM images WHERE id = :id AND owner = :owner"
        row = await self._db.read(lambda tx: tx.one(sql, id=image_id, owner=owner))
        if row is None:
            raise NotFound("No such image.")
        return ImageRow(*row)

    async def find(self, session_id: str, image_ids: Sequence[str]) -> dict[str, ImageRow]:
        """The images with these ids, by id. Ids that the session doesn't have are left out."""
        sql = "SELECT id, media_type, data FROM images WHERE session_id = :session_id AND id IN :ids"
        rows = await self._db.read(lambda tx: tx.rows(sql, session_id=session_id, ids=image_ids))
        return {row[0]: ImageRow(*row) for row in rows}

    async def count(self, session_id: str) -> int:
        """The number of images of a session."""
        sql = "SELECT count(*) FROM images WHERE session_id = :session_id"
        return await self._db.read(lambda tx: tx.value(sql, session_id=session_id))


def store_images(tx: Tx, owner: str, session_id: str, images: Sequence[ImageRow], now: int) -> None:
    """Store images of a session."""
    tx.execute_many(
        "INSERT INTO images (id, owner, session_id, media_type, data, created_at) "
        "VALUES (:id, :owner, :session_id, :media_type, :data, :now)",
        [
            {
                "id": image.id,
                "owner": owner,
                "session_id": session_id,
                "media_type": image.media_type,
                "data": image.data,
                "now": now,
            }
            for image in images
        ],
    )


def delete_unused(tx: Tx, session_id: str) -> None:
    """Delete the images of a session that none of its messages has any more."""
    tx.execute(
        "DELETE FROM images WHERE session_id = :session_id AND id NOT IN "
        "(SELECT json_extract(part.value, '$.image_id') FROM messages m, json_each(m.parts) part "
        "WHERE m.session_id = :session_id AND json_extract(part.value, '$.type') = 'image')",
        session_id=session_id,
    )
