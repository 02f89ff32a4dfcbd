"""Sessions and their messages: ordinary queries."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Text, and_, delete, or_, select, type_coerce, update

from backend.errors import NotFound
from backend.kit.ids import now_ms
from backend.storage.conversations.images import ImageRow, store_images
from backend.storage.engine.database import Database
from backend.storage.tables import messages, sessions


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session; `settings` as they were set. Times in ms."""

    id: str
    title: str
    head_message_id: str | None
    settings: dict[str, Any]
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message; `parts` and `prompt` are JSON text. `model` answered it, `prompt` is what it was told."""

    id: str
    session_id: str
    parent_id: str | None
    run_id: str | None
    role: str
    status: str
    parts: str
    model: str | None
    prompt: str | None
    created_at: int


_SESSION = (
    sessions.c.id,
    sessions.c.title,
    sessions.c.head_message_id,
    sessions.c.settings,
    sessions.c.created_at,
    sessions.c.updated_at,
)
_MESSAGE = (
    messages.c.id,
    messages.c.session_id,
    messages.c.parent_id,
    messages.c.run_id,
    messages.c.role,
    messages.c.status,
    type_coerce(messages.c.parts, Text),
    messages.c.model,
    type_coerce(messages.c.prompt, Text),
    messages.c.created_at,
)


_NAMED = "named"
"""Among the settings: somebody gave the session its title."""


class Sessions:
    """Sessions of an owner. Somebody else's raise NotFound."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def page(
        self, owner: str, limit: int, before: tuple[int, str] | None, search: str | None
    ) -> list[SessionRow]:
        """At most `limit` sessions, the last changed first, after the one at `before` (updated_at, id)."""
        query = select(*_SESSION).where(sessions.c.owner == owner)
        if search:
            query = query.where(sessions.c.title.icontains(search, autoescape=True))
        if before is not None:
            updated_at, id_ = before
            older = sessions.c.updated_at < updated_at
            query = query.where(or_(older, and_(sessions.c.updated_at == updated_at, sessions.c.id < id_)))
        query = query.order_by(sessions.c.updated_at.desc(), sessions.c.id.desc()).limit(limit)
        async with self._db.read() as conn:
            return [SessionRow(*row) for row in await conn.execute(query)]

    async def get(self, owner: str, session_id: str) -> SessionRow:
        """One session. Raises NotFound."""
        query = select(*_SESSION).where(sessions.c.id == session_id, sessions.c.owner == owner)
        async with self._db.read() as conn:
            row = (await conn.execute(query)).first()
        if row is None:
            raise NotFound("No such session.")
        return SessionRow(*row)

    async def change(self, owner: str, session_id: str, title: str | None, settings: dict[str, Any]) -> None:
        """Another title; settings that are named take the place of the old, null unsets them. Raises NotFound."""
        mine = (sessions.c.id == session_id, sessions.c.owner == owner)
        async with self._db.write() as conn:
            found = (await conn.execute(select(sessions.c.title, sessions.c.settings).where(*mine))).first()
            if found is None:
                raise NotFound("No such session.")
            kept = {name: value for name, value in {**found.settings, **settings}.items() if value is not None}
            if title is not None:
                kept[_NAMED] = True
            values = {"title": title or found.title, "settings": kept, "updated_at": now_ms()}
            await conn.execute(update(sessions).where(*mine).values(**values))

    async def retitle(self, owner: str, session_id: str, before: str, title: str) -> None:
        """Another title in the place of `before`, unless somebody named the session meanwhile."""
        sql = (
            "UPDATE sessions SET title = ? WHERE id = ? AND owner = ? AND title = ? "
            f"AND json_extract(settings, '$.{_NAMED}') IS NULL"
        )
        await self._db.writer.run(lambda conn: conn.execute(sql, (title, session_id, owner, before)) and None)

    async def move_head(self, owner: str, session_id: str, message_id: str) -> None:
        """Another last message of the active path. Raises NotFound."""
        sql = (
            "UPDATE sessions SET head_message_id = ?, updated_at = ? WHERE id = ? AND owner = ? "
            "AND EXISTS (SELECT 1 FROM messages m WHERE m.id = ? AND m.session_id = sessions.id)"
        )
        values = (message_id, now_ms(), session_id, owner, message_id)
        if await self._db.writer.run(lambda conn: conn.execute(sql, values).rowcount) == 0:
            raise NotFound("message_id: no such message in this session.")

    async def settings(self, owner: str, session_id: str) -> dict[str, Any]:
        """The settings of a session; none when there is no such session."""
        sql = "SELECT settings FROM sessions WHERE id = ? AND owner = ?"
        found = await self._db.reader.run(lambda conn: conn.execute(sql, (session_id, owner)).fetchone())
        return json.loads(found[0]) if found else {}

    async def delete(self, owner: str, session_id: str) -> None:
        """Delete it with its messages, runs and events. Raises NotFound."""
        remove = delete(sessions).where(sessions.c.id == session_id, sessions.c.owner == owner)
        async with self._db.write() as conn:
            if (await conn.execute(remove)).rowcount == 0:
                raise NotFound("No such session.")

    async def retrieval(self, owner: str, message_id: str) -> str | None:
        """The stored trace of an answer's retrieval, JSON text. Raises NotFound."""
        query = select(type_coerce(messages.c.retrieval, Text)).where(
            messages.c.id == message_id, messages.c.owner == owner
        )
        async with self._db.read() as conn:
            row = (await conn.execute(query)).first()
        if row is None:
            raise NotFound("No such message.")
        return row[0]

    async def messages(self, session_id: str) -> list[MessageRow]:
        """All messages of a session, every branch, in order of creation."""
        query = select(*_MESSAGE).where(messages.c.session_id == session_id)
        query = query.order_by(messages.c.created_at, messages.c.id)
        async with self._db.read() as conn:
            return [MessageRow(*row) for row in await conn.execute(query)]

    async def message(self, owner: str, message_id: str) -> MessageRow:
        """One message. Raises NotFound."""
        query = select(*_MESSAGE).where(messages.c.id == message_id, messages.c.owner == owner)
        async with self._db.read() as conn:
            row = (await conn.execute(query)).first()
        if row is None:
            raise NotFound("No such message.")
        return MessageRow(*row)

    async def usage(self, session_id: str) -> dict[str, str]:
        """What each ended run of a session used, JSON text."""
        sql = "SELECT id, usage FROM runs WHERE session_id = ? AND usage IS NOT NULL"
        return dict(await self._db.reader.run(lambda conn: conn.execute(sql, (session_id,)).fetchall()))

    async def insert(
        self, owner: str, session: SessionRow, rows: Sequence[MessageRow], images: Sequence[ImageRow]
    ) -> None:
        """Store a session with its messages and their pictures, all or nothing."""
        head = (session.id, owner, session.title, session.head_message_id, session.created_at, session.updated_at)
        values = [
            (m.id, owner, m.session_id, m.parent_id, m.role, m.status, m.parts, m.model, m.prompt, m.created_at)
            for m in rows
        ]

        def store(conn: sqlite3.Connection) -> None:
            conn.execute(
                "INSERT INTO sessions (id, owner, title, head_message_id, settings, created_at, updated_at) "
                "VALUES (?, ?, ?, ?, '{}', ?, ?)",
                head,
            )
            conn.executemany(
                "INSERT INTO messages (id, owner, session_id, parent_id, role, status, parts, model, prompt, "
                "created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            store_images(conn, owner, session.id, images, now_ms())

        await self._db.writer.run(store)
