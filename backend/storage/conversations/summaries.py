"""Summaries: what was said up to and with a message, in short."""

from dataclasses import dataclass

from backend.kit.ids import now_ms
from backend.storage.engine.database import Database


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """The summary of a conversation up to and with `message_id`."""

    message_id: str
    model: str
    text: str


class Summaries:
    """Summaries in the database. What a turn needs of them, `Turns.history` has."""

    def __init__(self, database: Database) -> None:
        self._writer = database.writer
        self._reader = database.reader

    async def of(self, session_id: str) -> dict[str, SummaryRow]:
        """Those of a session, by message."""
        sql = "SELECT message_id, model, text FROM summaries WHERE session_id = ?"
        rows = await self._reader.run(lambda conn: conn.execute(sql, (session_id,)).fetchall())
        return {row[0]: SummaryRow(*row) for row in rows}

    async def put(self, summary: SummaryRow) -> None:
        """Store it in the place of an earlier one; not if its message was deleted meanwhile."""
        sql = (
            "INSERT INTO summaries (message_id, owner, session_id, model, text, created_at) "
            "SELECT id, owner, session_id, ?, ?, ? FROM messages WHERE id = ? "
            "ON CONFLICT (message_id) DO UPDATE SET model = excluded.model, text = excluded.text"
        )
        values = (summary.model, summary.text, now_ms(), summary.message_id)
        await self._writer.run(lambda conn: conn.execute(sql, values) and None)
