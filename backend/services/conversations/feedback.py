"""Feedback on answers: whether a user finds an answer good, and why."""

from typing import Literal

from backend.errors import Invalid
from backend.services.telemetry.telemetry import Telemetry
from backend.storage.conversations.feedback import FeedbackRow as FeedbackRow
from backend.storage.conversations.feedback import Feedbacks
from backend.storage.conversations.sessions import Sessions

Rating = Literal["up", "down"]


class FeedbackService:
    """The feedback of all owners. A message of another owner raises NotFound."""

    def __init__(self, rows: Feedbacks, sessions: Sessions, telemetry: Telemetry) -> None:
        self._rows = rows
        self._sessions = sessions
        self._telemetry = telemetry

    async def put(self, owner: str, message_id: str, rating: Rating, comment: str | None) -> FeedbackRow:
        """Store the feedback on an answer; it replaces an earlier one. Raises NotFound, Invalid."""
        message = await self._sessions.message(owner, message_id)
        if message.role != "assistant":
            raise Invalid("Only answers can be rated. This message is the user's.")
        row = await self._rows.put(owner, message_id, rating, comment)
        self._telemetry.feedback(rating)
        return row

    async def delete(self, owner: str, message_id: str) -> None:
        """Delete the feedback on a message, if there is any. Raises NotFound if there is no such message."""
        await self._sessions.message(owner, message_id)
        await self._rows.delete(owner, message_id)
