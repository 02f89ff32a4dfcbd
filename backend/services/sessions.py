"""Sessions: list, read, change, delete."""

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec

from backend.services.runs import RunHub
from backend.storage.sessions import MessageRow, SessionRow, Sessions


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Sessions, last changed first; `more` tells whether others follow."""

    items: list[SessionRow]
    more: bool


class SessionService:
    """Sessions of an owner; somebody else's raise NotFound."""

    def __init__(self, sessions: Sessions, hub: RunHub) -> None:
        self._sessions = sessions
        self._hub = hub

    async def page(self, owner: str, limit: int, before: tuple[int, str] | None, search: str | None) -> SessionPage:
        """At most `limit` sessions after `before` (updated_at, id), with `search` in the title."""
        rows = await self._sessions.page(owner, limit + 1, before, search)
        return SessionPage(rows[:limit], len(rows) > limit)

    async def get(self, owner: str, session_id: str) -> SessionRow:
        """One session. Raises NotFound."""
        return await self._sessions.get(owner, session_id)

    async def change(self, owner: str, session_id: str, title: str | None, settings: dict[str, Any]) -> SessionRow:
        """Another title, other settings (null unsets one). Raises NotFound."""
        await self._sessions.change(owner, session_id, title, settings)
        return await self._sessions.get(owner, session_id)

    async def delete(self, owner: str, session_id: str) -> None:
        """Cancel its live runs, then delete everything of it. Raises NotFound."""
        await self._sessions.get(owner, session_id)
        runs = self._hub.all_in_session(session_id)
        for run in runs:
            self._hub.cancel(run, "session_deleted")
        await asyncio.gather(*(run.log.finished() for run in runs))
        await self._sessions.delete(owner, session_id)

    async def messages(self, owner: str, session_id: str, *, every_branch: bool) -> list[MessageRow]:
        """The messages of the active path, oldest first, or of every branch. Raises NotFound."""
        session = await self._sessions.get(owner, session_id)
        rows = await self._sessions.messages(session_id)
        if every_branch:
            return rows
        by_id = {row.id: row for row in rows}
        # A queued message follows an answer that is still being written: the path goes on at what that one answers.
        unwritten = {r.started.message_id: r.started.user_message_id for r in self._hub.all_in_session(session_id)}
        path: list[MessageRow] = []
        at = session.head_message_id
        while at is not None:
            row = by_id.pop(at, None)
            if row is not None:
                path.append(row)
            at = row.parent_id if row is not None else unwritten.pop(at, None)
        return path[::-1]

    async def retrieval(self, owner: str, message_id: str) -> dict[str, Any] | None:
        """How an answer's passages were found; None when nothing was looked for. Raises NotFound."""
        stored = await self._sessions.retrieval(owner, message_id)
        return msgspec.json.decode(stored) if stored is not None else None

    async def active_run(self, owner: str, session_id: str) -> str | None:
        """The id of the live run of the session. Raises NotFound."""
        await self._sessions.get(owner, session_id)
        run = self._hub.live_in_session(session_id)
        return run.id if run is not None else None
