"""Pictures of messages: of a session, so that every branch that shows one has the same."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from backend.errors import NotFound
from backend.storage.engine.database import Database


@dataclass(frozen=True, slots=True)
class ImageRow:
    """A picture and its bytes."""

    id: str
    media_type: str
    data: bytes = field(repr=False)


class Images:
    """Pictures in the database. They are stored with the message that brings them, and go with its session."""

    def __init__(self, database: Database) -> None:
        self._reader = database.reader

    async def get(self, owner: str, image_id: str) -> ImageRow:
        """One picture. Raises NotFound."""
        sql = "SELECT id, media_type, data FROM images WHERE id = ? AND owner = ?"
        row = await self._reader.run(lambda conn: conn.execute(sql, (image_id, owner)).fetchone())
        if row is None:
            raise NotFound("No such picture.")
        return ImageRow(*row)

    async def of(self, session_id: str, image_ids: Sequence[str]) -> dict[str, ImageRow]:
        """Those of these pictures that the session has, by id."""
        marks = ", ".join("?" * len(image_ids))
        sql = f"SELECT id, media_type, data FROM images WHERE session_id = ? AND id IN ({marks})"
        rows = await self._reader.run(lambda conn: conn.execute(sql, (session_id, *image_ids)).fetchall())
        return {row[0]: ImageRow(*row) for row in rows}

    async def count(self, session_id: str) -> int:
        """How many a session has."""
        sql = "SELECT count(*) FROM images WHERE session_id = ?"
        return await self._reader.run(lambda conn: conn.execute(sql, (session_id,)).fetchone()[0])


def store_images(conn: sqlite3.Connection, owner: str, session_id: str, images: Sequence[ImageRow], now: int) -> None:
    """Store the pictures of a session; a part of the caller's commit."""
    conn.executemany(
        "INSERT INTO images (id, owner, session_id, media_type, data, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        [(image.id, owner, session_id, image.media_type, image.data, now) for image in images],
    )
