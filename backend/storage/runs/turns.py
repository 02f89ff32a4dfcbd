"""The quick lane: opening, checkpointing and closing a turn, as plain SQL on the writer's thread.

These run at every message and every second of a stream; everything else goes through SQLAlchemy. JSON columns come
and go as text that the services encoded.
"""

import sqlite3
from dataclasses import dataclass, field
from typing import Any

from backend.errors import Conflict, NotFound
from backend.kit.times import now_ms
from backend.storage.conversations.images import ImageRow, store_images
from backend.storage.engine.database import Database
from backend.storage.usage import ledger

LIVE = ("queued", "running")
_HISTORY_LIMIT = 400
MAX_BRANCHES = 200
"""Messages that follow the same one, or begin a session: each of them names them all."""


@dataclass(slots=True, frozen=True)
class NewTurn:
    """A user's message and the run that will answer it. `session_id` is new where `title` is given.

    `beside` is an earlier message of the user's that this one stands beside; the same id means that it is answered once
    more. `images` are new pictures that the message shows. `prompt` is JSON text. `reservation`: what the run may cost,
    where the owner has a budget. For `lease_ms`, only the instance `instance_id` may work on the run.
    """

    owner: str
    session_id: str
    title: str | None
    user_message_id: str
    message_id: str
    run_id: str
    parts: str
    model: str
    instance_id: str
    lease_ms: int
    images: tuple[ImageRow, ...] = ()
    prompt: str | None = None
    parent_id: str | None = None
    beside: str | None = None
    expect_head: str | None = None
    after_live: str | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    reservation: ledger.Reservation | None = None


@dataclass(slots=True, frozen=True)
class StoredMessage:
    """A message of the active path: role, status and its parts as JSON text. `summary`: of all up to and with it."""

    id: str
    role: str
    status: str
    parts: str
    summary: str | None = None


@dataclass(slots=True, frozen=True)
class OpenedTurn:
    """`history`: the path up to the new message, oldest first, ending with `parent_id`. `repeats`: the run that has the
    key already."""

    history: list[StoredMessage] = field(default_factory=list[StoredMessage])
    parent_id: str | None = None
    repeats: str | None = None
    repeats_hash: str | None = None


@dataclass(slots=True, frozen=True)
class EventLines:
    """Events first_seq..last_seq of a run, one JSON line each, joined by newlines."""

    run_id: str
    first_seq: int
    last_seq: int
    lines: bytes


@dataclass(slots=True, frozen=True)
class ClosedTurn:
    """How a run ended: its last events, the answer's message, and the calls of models that it took. JSON columns are
    text; `model` is the one that answered in the end, None the one that was asked."""

    run_id: str
    owner: str
    session_id: str
    model: str | None
    status: str
    error: str | None
    usage: str
    message_status: str
    parts: str
    retrieval: str | None
    events: list[EventLines]
    calls: list[ledger.NewCall]


@dataclass(slots=True, frozen=True)
class StoredRun:
    """A row of runs, JSON columns as text."""

    id: str
    owner: str
    session_id: str
    user_message_id: str
    message_id: str
    model: str
    status: str
    error: str | None
    usage: str | None
    started_at: int
    finished_at: int | None


_RUN_COLUMNS = (
    "id, owner, session_id, user_message_id, message_id, model, status, error, usage, started_at, finished_at"
)
_PATH = """
WITH RECURSIVE path(id, parent_id, role, status, parts, depth) AS (
    SELECT id, parent_id, role, status, parts, 0 FROM messages WHERE id = ? AND session_id = ?
    UNION ALL
    SELECT m.id, m.parent_id, m.role, m.status, m.parts, path.depth + 1
    FROM messages m JOIN path ON m.id = path.parent_id WHERE path.depth < ?
) SELECT path.id, role, status, parts, s.text
FROM path LEFT JOIN summaries s ON s.message_id = path.id ORDER BY depth DESC"""


class Turns:
    """Turns in the database. Every method is one commit or one read on the writer's thread."""

    def __init__(self, database: Database) -> None:
        self._writer = database.writer

    async def open(self, turn: NewTurn) -> OpenedTurn:
        """Store the user's message and the run. Raises NotFound, Conflict (`head_moved`, `too_many_branches`),
        BudgetExceeded."""
        return await self._writer.run(lambda conn: _open(conn, turn))

    async def check(self, turn: NewTurn) -> None:
        """Whether the turn could be opened. Raises as `open` does."""

        def check(conn: sqlite3.Connection) -> None:
            _checked_parent(conn, turn)
            if turn.reservation is not None:
                ledger.reserve(conn, turn.owner, None, turn.reservation)

        await self._writer.run(check)

    async def history(self, session_id: str, message_id: str | None) -> list[StoredMessage]:
        """The path from the root to `message_id`, oldest first."""
        return await self._writer.run(lambda conn: _path(conn, session_id, message_id))

    async def append(self, batch: list[EventLines]) -> None:
        """Store events; those of runs that were deleted meanwhile are left out."""
        await self._writer.run(lambda conn: _append(conn, batch))

    async def close(self, turn: ClosedTurn) -> bool:
        """Store the end of a run, its answer and what it cost in one commit. False: the run was deleted, or had ended
        before."""
        return await self._writer.run(lambda conn: _close(conn, turn))

    async def events(self, run_id: str, after: int, limit: int = 4) -> list[EventLines]:
        """Stored events with a seq above `after`, at most `limit` rows; the first row may begin before."""
        sql = (
            "SELECT run_id, first_seq, last_seq, lines FROM run_events WHERE run_id = ? AND last_seq > ? "
            "ORDER BY first_seq LIMIT ?"
        )
        return await self._writer.run(
            lambda conn: [EventLines(*row) for row in conn.execute(sql, (run_id, after, limit))]
        )

    async def run(self, owner: str, run_id: str) -> StoredRun:
        """One run of the owner's. Raises NotFound."""

        def find(conn: sqlite3.Connection) -> StoredRun:
            sql = f"SELECT {_RUN_COLUMNS} FROM runs WHERE id = ? AND owner = ?"
            row = conn.execute(sql, (run_id, owner)).fetchone()
            if row is None:
                raise NotFound("No such run.")
            return StoredRun(*row)

        return await self._writer.run(find)

    async def by_key(self, owner: str, idempotency_key: str) -> tuple[str, str] | None:
        """The run that has the key, and the hash of its request."""
        sql = "SELECT id, request_hash FROM runs WHERE owner = ? AND idempotency_key = ?"
        return await self._writer.run(lambda conn: conn.execute(sql, (owner, idempotency_key)).fetchone())

    async def last_seq(self, run_id: str) -> int:
        """The last stored seq of a run; 0 when nothing was stored."""
        sql = "SELECT coalesce(max(last_seq), 0) FROM run_events WHERE run_id = ?"
        return await self._writer.run(lambda conn: conn.execute(sql, (run_id,)).fetchone()[0])

    async def unfinished(self, now: int) -> list[StoredRun]:
        """Runs that look live although nobody's lease holds them any more."""
        sql = f"SELECT {_RUN_COLUMNS} FROM runs WHERE status IN (?, ?) AND lease_until <= ?"
        return await self._writer.run(lambda conn: [StoredRun(*row) for row in conn.execute(sql, (*LIVE, now))])

    async def renew_leases(self, instance_id: str, lease_until: int) -> None:
        """Keep this instance's live runs its own."""
        sql = "UPDATE runs SET lease_until = ? WHERE instance_id = ? AND status IN (?, ?)"
        await self._writer.run(lambda conn: conn.execute(sql, (lease_until, instance_id, *LIVE)) and None)

    async def drop_reservations(self) -> None:
        """Let go of what a crash left reserved. Only for the embedded mode, once no run is unfinished."""
        await self._writer.run(ledger.drop_reservations)

    async def release_leases(self) -> None:
        """Let go of every lease. Only for the embedded mode, whose lock on DATA_DIR proves that no holder lives."""
        await self._writer.run(
            lambda conn: conn.execute("UPDATE runs SET lease_until = 0 WHERE lease_until > 0") and None
        )

    async def expired_logs(self, finished_before: int, limit: int = 50) -> list[StoredRun]:
        """Ended runs whose verbatim log has outlived its time (more than a snapshot and a terminal event)."""
        columns = ", ".join(f"runs.{c.strip()}" for c in _RUN_COLUMNS.split(","))
        sql = (
            f"SELECT {columns} FROM runs WHERE finished_at < ? AND EXISTS "
            "(SELECT 1 FROM run_events e WHERE e.run_id = runs.id AND e.first_seq = 1) LIMIT ?"
        )
        return await self._writer.run(
            lambda conn: [StoredRun(*row) for row in conn.execute(sql, (finished_before, limit))]
        )

    async def replace_log(self, events: EventLines) -> None:
        """Put `events` in the place of everything that the run's log holds."""

        def replace(conn: sqlite3.Connection) -> None:
            conn.execute("DELETE FROM run_events WHERE run_id = ?", (events.run_id,))
            _append(conn, [events])

        await self._writer.run(replace)


def _open(conn: sqlite3.Connection, turn: NewTurn) -> OpenedTurn:
    if turn.idempotency_key is not None:
        sql = "SELECT id, request_hash FROM runs WHERE owner = ? AND idempotency_key = ?"
        found = conn.execute(sql, (turn.owner, turn.idempotency_key)).fetchone()
        if found is not None:
            return OpenedTurn(repeats=found[0], repeats_hash=found[1])
    now = now_ms()
    if turn.title is not None:
        conn.execute(
            "INSERT INTO sessions (id, owner, title, head_message_id, settings, created_at, updated_at) "
            "VALUES (?, ?, ?, ?, '{}', ?, ?)",
            (turn.session_id, turn.owner, turn.title, turn.user_message_id, now, now),
        )
        parent = None
    else:
        parent = _checked_parent(conn, turn)
        conn.execute(
            "UPDATE sessions SET head_message_id = ?, updated_at = ? WHERE id = ?",
            (turn.user_message_id, now, turn.session_id),
        )
    if turn.reservation is not None:
        ledger.reserve(conn, turn.owner, turn.run_id, turn.reservation)
    _insert(conn, turn, parent, now)
    return OpenedTurn(_path(conn, turn.session_id, parent), parent)


def _checked_parent(conn: sqlite3.Connection, turn: NewTurn) -> str | None:
    """What the user's message follows. Raises NotFound, Conflict."""
    head = _checked_head(conn, turn.owner, turn.session_id, turn.parent_id, turn.expect_head)
    if turn.beside is None:
        parent = turn.parent_id or turn.after_live or head
    else:
        parent = _parent_of(conn, turn.session_id, turn.beside)
    again = turn.beside == turn.user_message_id
    sql = "SELECT count(*) FROM messages WHERE session_id = ? AND parent_id IS ?"
    branches: int = conn.execute(sql, (turn.session_id, turn.beside if again else parent)).fetchone()[0]
    if again:
        # Answers that are still being written are no messages yet.
        sql = "SELECT count(*) FROM runs WHERE session_id = ? AND user_message_id = ? AND status IN (?, ?)"
        branches += conn.execute(sql, (turn.session_id, turn.beside, *LIVE)).fetchone()[0]
    if branches >= MAX_BRANCHES:
        what = "The message has been answered" if again else "A message in this place has been written"
        raise Conflict(
            f"{what} {MAX_BRANCHES} times, and no more are kept. Go on from one of them, or begin a new session.",
            code="too_many_branches",
        )
    return parent


def _parent_of(conn: sqlite3.Connection, session_id: str, message_id: str) -> str | None:
    """What a message of the user's follows. Raises NotFound."""
    sql = "SELECT parent_id FROM messages WHERE id = ? AND session_id = ? AND role = 'user'"
    found = conn.execute(sql, (message_id, session_id)).fetchone()
    if found is None:
        raise NotFound("No such message of the user's in this session.")
    return found[0]


def _insert(conn: sqlite3.Connection, turn: NewTurn, parent: str | None, now: int) -> None:
    if turn.beside != turn.user_message_id:
        conn.execute(
            "INSERT INTO messages (id, owner, session_id, parent_id, run_id, role, status, parts, created_at) "
            "VALUES (?, ?, ?, ?, ?, 'user', 'complete', ?, ?)",
            (turn.user_message_id, turn.owner, turn.session_id, parent, turn.run_id, turn.parts, now),
        )
    if turn.images:
        store_images(conn, turn.owner, turn.session_id, turn.images, now)
    conn.execute(
        "INSERT INTO runs (id, owner, session_id, user_message_id, message_id, model, prompt, status, instance_id, "
        "lease_until, idempotency_key, request_hash, started_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 'running', ?, ?, ?, ?, ?)",
        (
            turn.run_id,
            turn.owner,
            turn.session_id,
            turn.user_message_id,
            turn.message_id,
            turn.model,
            turn.prompt,
            turn.instance_id,
            now + turn.lease_ms,
            turn.idempotency_key,
            turn.request_hash,
            now,
        ),
    )


def _checked_head(
    conn: sqlite3.Connection, owner: str, session_id: str, parent_id: str | None, expect_head: str | None
) -> str | None:
    """The session's head, after checking that a message may follow as asked."""
    sql = "SELECT head_message_id FROM sessions WHERE id = ? AND owner = ?"
    row = conn.execute(sql, (session_id, owner)).fetchone()
    if row is None:
        raise NotFound("No such session. Leave session_id out to begin a new one.")
    if expect_head is not None and expect_head != row[0]:
        raise Conflict(
            "The session has moved on: its last message is another than expect_head. Read the session and try again.",
            code="head_moved",
            head_message_id=row[0],
        )
    if parent_id is not None:
        sql = "SELECT 1 FROM messages WHERE id = ? AND session_id = ?"
        if conn.execute(sql, (parent_id, session_id)).fetchone() is None:
            raise NotFound("parent_id: no such message in this session.")
    return row[0]


def _path(conn: sqlite3.Connection, session_id: str, message_id: str | None) -> list[StoredMessage]:
    if message_id is None:
        return []
    return [StoredMessage(*row) for row in conn.execute(_PATH, (message_id, session_id, _HISTORY_LIMIT))]


def _append(conn: sqlite3.Connection, batch: list[EventLines]) -> None:
    # A run may end while its checkpoint is under way: its last write then begins at the same seq and holds more.
    conn.executemany(
        "INSERT INTO run_events (run_id, first_seq, last_seq, v, lines) "
        "SELECT ?, ?, ?, 1, ? WHERE EXISTS (SELECT 1 FROM runs WHERE id = ?) "
        "ON CONFLICT (run_id, first_seq) DO UPDATE SET last_seq = excluded.last_seq, lines = excluded.lines",
        [(e.run_id, e.first_seq, e.last_seq, e.lines, e.run_id) for e in batch],
    )


def _close(conn: sqlite3.Connection, turn: ClosedTurn) -> bool:
    now = now_ms()
    params: tuple[Any, ...] = (turn.status, turn.error, turn.usage, now, turn.run_id, *LIVE)
    done = conn.execute(
        "UPDATE runs SET status = ?, error = ?, usage = ?, finished_at = ?, lease_until = 0 "
        "WHERE id = ? AND status IN (?, ?) RETURNING owner, session_id, user_message_id, message_id, model, prompt",
        params,
    ).fetchone()
    if done is None:
        # Ended before, it was booked then; of one that was deleted only the cost is left.
        if conn.execute("SELECT 1 FROM runs WHERE id = ?", (turn.run_id,)).fetchone() is None:
            ledger.settle(conn, turn.owner, turn.run_id, turn.session_id, turn.calls)
        return False
    ledger.settle(conn, turn.owner, turn.run_id, turn.session_id, turn.calls)
    owner, session_id, user_message_id, message_id, asked, prompt = done
    _append(conn, turn.events)
    conn.execute(
        "INSERT INTO messages (id, owner, session_id, parent_id, run_id, role, status, parts, retrieval, model, "
        "prompt, created_at) VALUES (?, ?, ?, ?, ?, 'assistant', ?, ?, ?, ?, ?, ?)",
        (
            message_id,
            owner,
            session_id,
            user_message_id,
            turn.run_id,
            turn.message_status,
            turn.parts,
            turn.retrieval,
            turn.model or asked,
            prompt,
            now,
        ),
    )
    conn.execute(
        "UPDATE sessions SET updated_at = ?, head_message_id = "
        "CASE WHEN head_message_id = ? THEN ? ELSE head_message_id END WHERE id = ?",
        (now, user_message_id, message_id, session_id),
    )
    return True
