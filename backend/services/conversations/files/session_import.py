"""Imports a session from a file, as a new session with new ids."""

from collections.abc import Sequence
from dataclasses import replace

from backend.errors import Invalid
from backend.kit.ids import new_id
from backend.kit.text import clean_text
from backend.kit.times import now_ms
from backend.kit.yielding import in_pieces
from backend.services.conversations.files.session_file import ReadSession
from backend.storage.conversations.messages import MessageRow
from backend.storage.conversations.sessions import SessionRow, Sessions
from backend.storage.runs.turns import MAX_BRANCHES


class SessionImport:
    """Stores sessions that were read from files."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def import_session(self, owner: str, file: ReadSession) -> SessionRow:
        """Store the file's messages as a new session. Returns that session. Raises Invalid."""
        check_tree(file.messages)
        ids = {row.id: new_id("msg") for row in file.messages}
        if file.head is not None and file.head not in ids:
            raise Invalid("head_message_id: is no message of this file.")
        last = file.head or (file.messages[-1].id if file.messages else None)
        session = SessionRow(
            id=new_id("ses"),
            title=" ".join(clean_text(file.title).split())[:200] or "Imported",
            head_message_id=ids[last] if last is not None else None,
            settings={},
            created_at=min(file.created_at, now_ms()),
            updated_at=now_ms(),
        )
        fresh = [
            replace(
                row,
                id=ids[row.id],
                session_id=session.id,
                parent_id=ids[row.parent_id] if row.parent_id is not None else None,
                created_at=min(row.created_at, now_ms()),
            )
            async for row in in_pieces(file.messages)
        ]
        feedback = {ids[id_]: (row.rating, row.comment) for id_, row in file.feedback.items()}
        await self._sessions.insert(owner, session, fresh, file.images, feedback)
        return await self._sessions.get(owner, session.id)


def check_tree(rows: Sequence[MessageRow]) -> None:
    """Raises Invalid unless the messages are a tree, with each answer after a message of the user."""
    roles = {row.id: row.role for row in rows}
    if len(roles) != len(rows):
        raise Invalid("messages: an id occurs twice.")
    children: dict[str | None, list[str]] = {}
    for row in rows:
        if row.parent_id is not None and row.parent_id not in roles:
            raise Invalid(f"messages: {row.id} follows a message that isn't there.")
        if row.role == "assistant" and (row.parent_id is None or roles[row.parent_id] != "user"):
            raise Invalid(f"messages: {row.id} is an answer and follows no message of the user's.")
        children.setdefault(row.parent_id, []).append(row.id)
    if max(map(len, children.values()), default=0) > MAX_BRANCHES:
        raise Invalid(f"messages: more than {MAX_BRANCHES} follow the same one, or begin the session.")
    reached, ahead = 0, list(children.get(None, ()))
    while ahead:
        reached += 1
        ahead += children.get(ahead.pop(), ())
    if reached != len(rows):
        raise Invalid("messages: follow each other in a circle.")
