"""What users think of answers. Only this module writes the table feedback."""

from dataclasses import dataclass

from backend.errors import NotFound
from backend.kit.times import now_ms
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """The feedback on an answer: `rating` is up or down. The time in ms."""

    message_id: str
    rating: str
    comment: str | None
    updated_at: int


_COLUMNS = "message_id, rating, comment, updated_at"


class Feedbacks:
    """Feedback in the database. It is deleted with its message."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def by_session(self, session_id: str) -> dict[str, FeedbackRow]:
        """The feedback on the answers of a session, by message id."""
        sql = f"SELECT {_COLUMNS} FROM feedback WHERE session_id = :session_id"
        rows = await self._db.read(lambda tx: tx.rows(sql, session_id=session_id))
        return {row[0]: FeedbackRow(*row) for row in rows}

    async def put(self, owner: str, message_id: str, rating: str, comment: str | None) -> FeedbackRow:
        """Store the feedback on a message; it replaces an earlier one. Raises NotFound."""
        now = now_ms()
        if await self._db.write(lambda tx: put(tx, owner, message_id, rating, comment, now)) == 0:
            raise NotFound("No such message.")
        return FeedbackRow(message_id, rating, comment, now)

    async def delete(self, owner: str, message_id: str) -> None:
        """Delete the feedback on a message, if there is any."""
        sql = "DELETE FROM feedback WHERE message_id = :message_id AND owner = :owner"
        await self._db.write(lambda tx: tx.execute(sql, message_id=message_id, owner=owner))


def put(tx: Tx, owner: str, message_id: str, rating: str, comment: str | None, now: int) -> int:
    """Store the feedback on a message, as a part of the caller's commit. Returns 0 if there is no such message."""
    sql = (
        "INSERT INTO feedback (message_id, owner, session_id, rating, comment, updated_at) "
        "SELECT id, owner, session_id, :rating, :comment, :now FROM messages WHERE id = :message_id AND owner = :owner "
        "ON CONFLICT (message_id) DO UPDATE SET rating = excluded.rating, comment = excluded.comment, "
        "updated_at = excluded.updated_at"
    )
    return tx.count_changes(sql, message_id=message_id, owner=owner, rating=rating, comment=comment, now=now)
