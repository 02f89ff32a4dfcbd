"""Sessions, with their messages and images. Only this module writes the table sessions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backend.errors import NotFound
from backend.kit.times import now_ms
from backend.storage.conversations import feedback, messages
from backend.storage.conversations.images import ImageRow, store_images
from backend.storage.conversations.messages import MessageRow
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Row, Tx


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session. `settings` has only the settings that a client set. Times in ms."""

    id: str
    title: str
    head_message_id: str | None
    settings: dict[str, Any]
    created_at: int
    updated_at: int
    pinned: bool = False
    archived: bool = False


_COLUMNS = "id, title, head_message_id, settings, created_at, updated_at, pinned, archived"
_IDLE = (
    "updated_at < :before AND NOT pinned AND NOT EXISTS "
    "(SELECT 1 FROM runs r WHERE r.session_id = sessions.id AND r.status IN ('queued', 'running'))"
)
_NAMED = "named"
"""The key in `settings` which says that a client gave the session its title."""


class Sessions:
    """Sessions of an owner. Those of another owner raise NotFound."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def page(
        self,
        owner: str,
        limit: int,
        before: tuple[int, str] | None,
        search: str | None,
        *,
        archived: bool = False,
        pinned: bool | None = None,
    ) -> list[SessionRow]:
        """At most `limit` sessions with `search` in the title: the pinned ones first, then the last changed one first,
        after the one at `before` (see `position`). `pinned` None: pinned or not.
        """
        conditions = ["owner = :owner", "archived = :archived"]
        if search:
            conditions.append("instr(lower(title), lower(:search)) > 0")
        if pinned is not None:
            conditions.append("pinned = :pinned")
        if before is not None:
            conditions.append("(pinned, updated_at, id) < (:last_pinned, :updated_at, :id)")
        sql = (
            f"SELECT {_COLUMNS} FROM sessions WHERE {' AND '.join(conditions)} "
            "ORDER BY pinned DESC, updated_at DESC, id DESC LIMIT :limit"
        )
        moment, id_ = before or (0, None)
        rows = await self._db.read(
            lambda tx: tx.rows(
                sql,
                owner=owner,
                search=search,
                archived=int(archived),
                pinned=int(pinned or False),
                last_pinned=moment // _PINNED,
                updated_at=moment % _PINNED,
                id=id_,
                limit=limit,
            )
        )
        return [_session(row) for row in rows]

    async def create(self, owner: str, session_id: str, title: str, settings: dict[str, Any], *, named: bool) -> None:
        """Store an empty session. `named`: a client gave it the title."""
        now = now_ms()

        def store(tx: Tx) -> None:
            insert(
                tx,
                id=session_id,
                owner=owner,
                title=title,
                head_message_id=None,
                created_at=now,
                updated_at=now,
            )
            _change(tx, owner, session_id, title if named else None, settings)

        await self._db.write(store)

    async def mark(self, owner: str, session_id: str, *, pinned: bool | None, archived: bool | None) -> None:
        """Pin or archive a session, or undo it; None leaves it. Its place in the list doesn't change. Raises
        NotFound.
        """
        sql = (
            "UPDATE sessions SET pinned = coalesce(:pinned, pinned), archived = coalesce(:archived, archived) "
            "WHERE id = :id AND owner = :owner"
        )
        marks = {"pinned": pinned, "archived": archived}
        if await self._db.write(lambda tx: tx.count_changes(sql, id=session_id, owner=owner, **marks)) == 0:
            raise NotFound("No such session.")

    async def get(self, owner: str, session_id: str) -> SessionRow:
        """One session. Raises NotFound."""
        sql = f"SELECT {_COLUMNS} FROM sessions WHERE id = :id AND owner = :owner"
        row = await self._db.read(lambda tx: tx.one(sql, id=session_id, owner=owner))
        if row is None:
            raise NotFound("No such session.")
        return _session(row)

    async def change(self, owner: str, session_id: str, title: str | None, settings: dict[str, Any]) -> None:
        """Change the title and the given settings. None as a setting's value removes it. Raises NotFound."""
        await self._db.write(lambda tx: _change(tx, owner, session_id, title, settings))

    async def retitle(self, owner: str, session_id: str, before: str, title: str) -> None:
        """Replace the title `before`, unless a client has given the session a title meanwhile."""
        sql = (
            "UPDATE sessions SET title = :title WHERE id = :id AND owner = :owner AND title = :before "
            f"AND json_extract(settings, '$.{_NAMED}') IS NULL"
        )
        await self._db.write(lambda tx: tx.execute(sql, title=title, id=session_id, owner=owner, before=before))

    async def move_head(self, owner: str, session_id: str, message_id: str) -> None:
        """Make a message the last one of the active path. Raises NotFound."""
        sql = (
            "UPDATE sessions SET head_message_id = :head, updated_at = :now WHERE id = :id AND owner = :owner "
            "AND EXISTS (SELECT 1 FROM messages m WHERE m.id = :head AND m.session_id = sessions.id)"
        )
        changed = await self._db.write(
            lambda tx: tx.count_changes(sql, head=message_id, now=now_ms(), id=session_id, owner=owner)
        )
        if changed == 0:
            raise NotFound("message_id: no such message in this session.")

    async def settings(self, owner: str, session_id: str) -> dict[str, Any]:
        """The settings of a session; empty if there is no such session."""
        sql = "SELECT settings FROM sessions WHERE id = :id AND owner = :owner"
        stored = await self._db.read(lambda tx: tx.value(sql, id=session_id, owner=owner))
        return json.loads(stored) if stored is not None else {}

    async def delete(self, owner: str, session_id: str) -> None:
        """Delete a session with its messages, runs and events. Raises NotFound."""
        sql = "DELETE FROM sessions WHERE id = :id AND owner = :owner"
        if await self._db.write(lambda tx: tx.count_changes(sql, id=session_id, owner=owner)) == 0:
            raise NotFound("No such session.")

    async def idle(self, before: int, limit: int = 20) -> list[tuple[str, str]]:
        """Owner and id of sessions that were last changed before a time (ms) and have no live run."""
        sql = f"SELECT owner, id FROM sessions WHERE {_IDLE} LIMIT :limit"
        return [(owner, id_) for owner, id_ in await self._db.read(lambda tx: tx.rows(sql, before=before, limit=limit))]

    async def delete_idle(self, session_ids: Sequence[str], before: int) -> int:
        """Delete those of these sessions that are still idle, as in `idle`. Returns their number."""
        sql = f"DELETE FROM sessions WHERE id IN :ids AND {_IDLE}"
        return await self._db.write(lambda tx: tx.count_changes(sql, ids=session_ids, before=before))

    async def retrieval(self, owner: str, message_id: str) -> str | None:
        """The stored explanation of an answer's search, as JSON text. Raises NotFound."""
        sql = "SELECT retrieval FROM messages WHERE id = :id AND owner = :owner"
        row = await self._db.read(lambda tx: tx.one(sql, id=message_id, owner=owner))
        if row is None:
            raise NotFound("No such message.")
        return row[0]

    async def messages(self, session_id: str) -> list[MessageRow]:
        """All messages of a session, every branch, in order of creation."""
        return await self._db.read(lambda tx: messages.of_session(tx, session_id))

    async def message(self, owner: str, message_id: str) -> MessageRow:
        """One message. Raises NotFound."""
        row = await self._db.read(lambda tx: messages.by_id(tx, owner, message_id))
        if row is None:
            raise NotFound("No such message.")
        return row

    async def usage(self, session_id: str) -> dict[str, str]:
        """The usage of each ended run of a session, as JSON text by run id."""
        sql = "SELECT id, usage FROM runs WHERE session_id = :session_id AND usage IS NOT NULL"
        rows = await self._db.read(lambda tx: tx.rows(sql, session_id=session_id))
        return dict(rows)

    async def insert(
        self,
        owner: str,
        session: SessionRow,
        rows: Sequence[MessageRow],
        images: Sequence[ImageRow],
        ratings: Mapping[str, tuple[str, str | None]],
    ) -> None:
        """Store a session with its messages, their images and their feedback (rating and comment by message id) in one
        commit.
        """

        def store(tx: Tx) -> None:
            insert(
                tx,
                id=session.id,
                owner=owner,
                title=session.title,
                head_message_id=session.head_message_id,
                created_at=session.created_at,
                updated_at=session.updated_at,
            )
            for row in rows:
                messages.insert(tx, owner=owner, **asdict(row))
            store_images(tx, owner, session.id, images, now_ms())
            for message_id, (rating, comment) in ratings.items():
                feedback.put(tx, owner, message_id, rating, comment, now_ms())

        await self._db.write(store)


def _session(row: Row) -> SessionRow:
    id_, title, head_message_id, settings, created_at, updated_at, pinned, archived = row
    return SessionRow(
        id_, title, head_message_id, json.loads(settings), created_at, updated_at, bool(pinned), bool(archived)
    )


_PINNED = 2**50
"""Added to the time of a pinned session in a position, which is later than any time."""


def position(session: SessionRow) -> tuple[int, str]:
    """The session's place in the list, for the page after it."""
    return session.updated_at + _PINNED * session.pinned, session.id


def _change(tx: Tx, owner: str, session_id: str, title: str | None, settings: dict[str, Any]) -> None:
    row = tx.one("SELECT title, settings FROM sessions WHERE id = :id AND owner = :owner", id=session_id, owner=owner)
    if row is None:
        raise NotFound("No such session.")
    merged = {name: value for name, value in {**json.loads(row[1]), **settings}.items() if value is not None}
    if title is not None:
        merged[_NAMED] = True
    tx.execute(
        "UPDATE sessions SET title = :title, settings = :settings, updated_at = :now WHERE id = :id",
        title=title or row[0],
        settings=json.dumps(merged),
        now=now_ms(),
        id=session_id,
    )


# Parts of a caller's commit.


def name_if_empty(tx: Tx, session_id: str, title: str) -> None:
    """Give the title to a session that has no messages, unless a client has named it."""
    sql = (
        "UPDATE sessions SET title = :title WHERE id = :id AND head_message_id IS NULL "
        f"AND json_extract(settings, '$.{_NAMED}') IS NULL"
    )
    tx.execute(sql, title=title, id=session_id)


def insert(
    tx: Tx, *, id: str, owner: str, title: str, head_message_id: str | None, created_at: int, updated_at: int
) -> None:
    """Store a session without settings."""
    tx.execute(
        "INSERT INTO sessions (id, owner, title, head_message_id, settings, created_at, updated_at) "
        "VALUES (:id, :owner, :title, :head, '{}', :created_at, :updated_at)",
        id=id,
        owner=owner,
        title=title,
        head=head_message_id,
        created_at=created_at,
        updated_at=updated_at,
    )


def set_head(tx: Tx, session_id: str, message_id: str | None, now: int) -> None:
    """Make a message the last one of the active path; None: the session has no messages."""
    sql = "UPDATE sessions SET head_message_id = :head, updated_at = :now WHERE id = :id"
    tx.execute(sql, head=message_id, now=now, id=session_id)


def advance_head(tx: Tx, session_id: str, before: str, message_id: str, now: int) -> None:
    """Make a message the last one of the active path, if `before` still is the last one."""
    tx.execute(
        "UPDATE sessions SET updated_at = :now, "
        "head_message_id = CASE WHEN head_message_id = :before THEN :head ELSE head_message_id END WHERE id = :id",
        now=now,
        before=before,
        head=message_id,
        id=session_id,
    )
