"""Deletes messages with all that follows them: later messages, and the runs, images and texts of all of these."""

from backend.errors import Conflict, NotFound
from backend.kit.times import now_ms
from backend.storage.conversations import messages, sessions
from backend.storage.conversations.images import delete_unused
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx
from backend.storage.runs.turns import LIVE, delete_runs


class MessageDeletion:
    """Deletes messages of an owner."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def delete(self, owner: str, message_id: str) -> int:
        """Delete a message and all messages after it, in every branch. Returns how many were deleted.

        The active path then ends with the newest branch beside the message, or else before it. Raises NotFound,
        Conflict (`session_busy`).
        """
        return await self._db.write(lambda tx: _delete(tx, owner, message_id))


def _delete(tx: Tx, owner: str, message_id: str) -> int:
    message = messages.by_id(tx, owner, message_id)
    if message is None:
        raise NotFound("No such message.")
    session_id = message.session_id
    sql = f"SELECT id FROM runs WHERE session_id = :session_id AND status IN {LIVE}"
    if (live := tx.value(sql, session_id=session_id)) is not None:
        raise Conflict(
            "The session is still answering. Wait for that run, or cancel it (POST /runs/{id}/cancel).",
            code="session_busy",
            run_id=live,
        )
    ids = messages.branch_from(tx, session_id, message_id)
    head = tx.value("SELECT head_message_id FROM sessions WHERE id = :id", id=session_id)
    delete_runs(tx, session_id, ids)
    messages.delete(tx, ids)
    delete_unused(tx, session_id)
    if head in ids:
        sessions.set_head(tx, session_id, messages.last_leaf(tx, session_id, message.parent_id), now_ms())
    return len(ids)
