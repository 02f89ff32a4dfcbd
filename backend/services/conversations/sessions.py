"""Sessions: list, read, change, delete."""

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec

from backend.errors import NotFound
from backend.kit.ids import new_id
from backend.services.conversations.tree import PlacedMessage, Tree
from backend.services.runs.hub import RunHub
from backend.storage.conversations.feedback import FeedbackRow, Feedbacks
from backend.storage.conversations.messages import MessageRow as MessageRow
from backend.storage.conversations.sessions import SessionRow as SessionRow
from backend.storage.conversations.sessions import Sessions
from backend.storage.conversations.sessions import position as position
from backend.storage.conversations.summaries import Summaries, SummaryRow
from backend.storage.runs.deletion import MessageDeletion


@dataclass(frozen=True, slots=True)
class SessionPage:
    """A page of sessions, the last changed one first. `more` says whether there are more after them."""

    items: list[SessionRow]
    more: bool


UNTITLED = "New session"
"""The title of a session that has no messages yet, if the client gives it none."""


@dataclass(frozen=True, slots=True)
class SessionEdit:
    """What a client sets of a session. None leaves the title and the marks as they are."""

    title: str | None
    settings: dict[str, Any]
    pinned: bool | None = None
    archived: bool | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages of a session with the feedback on them, and the last summary on its active path."""

    messages: list[PlacedMessage]
    summary: SummaryRow | None
    feedback: dict[str, FeedbackRow]


class SessionService:
    """The sessions of all owners. A session of another owner raises NotFound."""

    def __init__(
        self, sessions: Sessions, summaries: Summaries, feedback: Feedbacks, deletion: MessageDeletion, hub: RunHub
    ) -> None:
        self._sessions = sessions
        self._summaries = summaries
        self._feedback = feedback
        self._deletion = deletion
        self._hub = hub

    async def page(
        self,
        owner: str,
        limit: int,
        before: tuple[int, str] | None,
        search: str | None,
        *,
        archived: bool = False,
        pinned: bool | None = None,
    ) -> SessionPage:
        """At most `limit` sessions after the place `before` (see `position`), with `search` in the title."""
        rows = await self._sessions.page(owner, limit + 1, before, search, archived=archived, pinned=pinned)
        return SessionPage(rows[:limit], len(rows) > limit)

    async def create(self, owner: str, change: SessionEdit) -> SessionRow:
        """Create a session without messages. Its first message gives it a title, if `change` has none."""
        session_id = new_id("ses")
        settings = {name: value for name, value in change.settings.items() if value is not None}
        named = change.title is not None
        await self._sessions.create(owner, session_id, change.title or UNTITLED, settings, named=named)
        if change.pinned or change.archived:
            await self._sessions.mark(owner, session_id, pinned=change.pinned, archived=change.archived)
        return await self._sessions.get(owner, session_id)

    async def get(self, owner: str, session_id: str) -> SessionRow:
        """One session. Raises NotFound."""
        return await self._sessions.get(owner, session_id)

    async def change(self, owner: str, session_id: str, change: SessionEdit) -> SessionRow:
        """Change a session; a setting of None is removed. Returns the session. Raises NotFound."""
        if change.title is not None or change.settings:
            await self._sessions.change(owner, session_id, change.title, change.settings)
        if change.pinned is not None or change.archived is not None:
            await self._sessions.mark(owner, session_id, pinned=change.pinned, archived=change.archived)
        return await self._sessions.get(owner, session_id)

    async def delete(self, owner: str, session_id: str) -> None:
        """Cancel the live runs of a session, then delete the session with its messages and images. Raises NotFound."""
        await self._sessions.get(owner, session_id)
        runs = self._hub.all_in_session(session_id)
        for run in runs:
            run.cancel("session_deleted")
        await asyncio.gather(*(run.log.wait_for_end() for run in runs))
        await self._sessions.delete(owner, session_id)

    async def conversation(self, owner: str, session_id: str, *, every_branch: bool) -> Conversation:
        """The messages of the active path, oldest first, or of every branch. Raises NotFound."""
        session, tree = await self._get_with_tree(owner, session_id)
        summaries = await self._summaries.by_session(session_id)
        summaries_on_path = [summaries[row.id] for row in tree.path(session.head_message_id) if row.id in summaries]
        placed_messages = tree.placed_messages(session.head_message_id, every_branch=every_branch)
        summary = summaries_on_path[-1] if summaries_on_path else None
        return Conversation(placed_messages, summary, await self._feedback.by_session(session_id))

    async def message(self, owner: str, message_id: str) -> Conversation:
        """One message, as a conversation of its own. Raises NotFound."""
        row = await self._sessions.message(owner, message_id)
        session, tree = await self._get_with_tree(owner, row.session_id)
        placed = [p for p in tree.placed_messages(session.head_message_id, every_branch=True) if p.row.id == row.id]
        if not placed:
            raise NotFound("No such message.")
        return Conversation(placed, None, await self._feedback.by_session(row.session_id))

    async def delete_message(self, owner: str, message_id: str) -> int:
        """Delete a message and all after it. Returns how many. Raises NotFound, Conflict (`session_busy`)."""
        return await self._deletion.delete(owner, message_id)

    async def path(self, owner: str, session_id: str) -> tuple[SessionRow, list[MessageRow]]:
        """A session and its active path, oldest first. Raises NotFound."""
        session, tree = await self._get_with_tree(owner, session_id)
        return session, tree.path(session.head_message_id)

    async def switch(self, owner: str, session_id: str, message_id: str, *, leaf: bool) -> SessionRow:
        """Let the active path end with this message, or with `leaf` the newest branch from it. Raises NotFound."""
        await self._sessions.get(owner, session_id)
        head = (await self._tree(session_id)).leaf(message_id) if leaf else message_id
        await self._sessions.move_head(owner, session_id, head)
        return await self._sessions.get(owner, session_id)

    async def _get_with_tree(self, owner: str, session_id: str) -> tuple[SessionRow, Tree]:
        return await self._sessions.get(owner, session_id), await self._tree(session_id)

    async def _tree(self, session_id: str) -> Tree:
        unwritten = {r.started.message_id: r.started.user_message_id for r in self._hub.all_in_session(session_id)}
        return Tree(await self._sessions.messages(session_id), unwritten)

    async def retrieval(self, owner: str, message_id: str) -> dict[str, Any] | None:
        """The search explanation of an answer; None if no documents were searched. Raises NotFound."""
        stored = await self._sessions.retrieval(owner, message_id)
        return msgspec.json.decode(stored) if stored is not None else None

    async def active_run(self, owner: str, session_id: str) -> str | None:
        """The id of the live run of the session. Raises NotFound."""
        await self._sessions.get(owner, session_id)
        run = self._hub.live_in_session(session_id)
        return run.id if run is not None else None
