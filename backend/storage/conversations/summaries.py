"""Summaries of conversations, each up to and including a message."""

from dataclasses import dataclass

from backend.kit.times import now_ms
from backend.storage.engine.database import Database


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """The summary of a conversation up to and including `message_id`."""

    message_id: str
    model: str
    text: str


class Summaries:
    """Summaries in the database. `Turns.history` returns the summaries that a turn needs."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def by_session(self, session_id: str) -> dict[str, SummaryRow]:
        """The summaries of a session, by message id."""
        sql = "SELECT message_id, model, text FROM summaries WHERE session_id = :session_id"
        rows = await self._db.read(lambda tx: tx.rows(sql, session_id=session_id))
        return {row[0]: SummaryRow(*row) for row in rows}

    async def put(self, summary: SummaryRow) -> None:
        """Store a summary; it replaces an earlier one. If its message was deleted meanwhile, nothing is stored."""
        sql = (
            "INSERT INTO summaries (message_id, owner, session_id, model, text, created_at) "
            "SELECT id, owner, session_id, :model, :text, :now FROM messages WHERE id = :message_id "
            "ON CONFLICT (message_id) DO UPDATE SET model = excluded.model, text = excluded.text"
        )
        await self._db.write(
            lambda tx: tx.execute(
                sql, model=summary.model, text=summary.text, now=now_ms(), message_id=summary.message_id
            )
        )
