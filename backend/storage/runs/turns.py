"""Turns: a user's message and the run that answers it, opened and closed in one commit each.

These commits write tables of runs, conversations and usage. Only this module writes the table runs. Values of JSON
columns are text, which the services encode and decode.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from backend.errors import Conflict, NotFound
from backend.kit.times import now_ms
from backend.storage.conversations import messages, sessions
from backend.storage.conversations.images import ImageRow, store_images
from backend.storage.conversations.messages import StoredMessage
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx
from backend.storage.runs import events
from backend.storage.runs.events import EventLines
from backend.storage.usage import ledger, reservations

MAX_BRANCHES = 200
"""Maximum number of messages with the same parent, because the API lists all of them with each of them."""


@dataclass(slots=True, frozen=True)
class NewTurn:
    """A user's message and the run that will answer it. If there is a `title`, the session is new.

    `sibling_of` is an earlier user message with the same parent; if it is `user_message_id` itself, that message is
    answered again. `images` are new images of the message. `prompt` is JSON text. `reservation`: what the run may
    cost, if the owner has a budget. Only the instance `instance_id` may work on the run for the next `lease_ms`.
    `first_title` is the title of a session that has no messages yet.
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
    sibling_of: str | None = None
    expect_head: str | None = None
    after_live: str | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    reservation: reservations.Reservation | None = None
    first_title: str | None = None


@dataclass(slots=True, frozen=True)
class OpenedTurn:
    """The turn after it was opened. `history` is the path before the new message, oldest first; it ends with
    `parent_id`. `repeated_run`: the run that has the same idempotency key already; then nothing was stored.
    """

    history: list[StoredMessage] = field(default_factory=list[StoredMessage])
    parent_id: str | None = None
    repeated_run: str | None = None
    repeated_hash: str | None = None


@dataclass(slots=True, frozen=True)
class ClosedTurn:
    """The end of a run: its last events, the answer's message, and its calls of models. JSON columns are text. `model`
    wrote the answer; None: it was the requested model.
    """

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


_RUN = "id, owner, session_id, user_message_id, message_id, model, status, error, usage, started_at, finished_at"
LIVE = "('queued', 'running')"
_END = f"""
UPDATE runs SET status = :status, error = :error, usage = :usage, finished_at = :now, lease_until = 0
WHERE id = :id AND status IN {LIVE} RETURNING owner, session_id, user_message_id, message_id, model, prompt"""


class Turns:
    """Turns in the database. Every method is one commit, or a read that sees every commit before it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def open(self, turn: NewTurn) -> OpenedTurn:
        """Store the user's message and the run.

        Raises NotFound, Conflict (`head_moved`, `too_many_branches`), BudgetExceeded.
        """
        return await self._db.write(lambda tx: _open(tx, turn))

    async def check(self, turn: NewTurn) -> None:
        """Check that the turn can be opened. Raises the errors of `open`."""

        def check(tx: Tx) -> None:
            _find_parent(tx, turn)
            if turn.reservation is not None:
                reservations.check(tx, turn.owner, turn.reservation)

        await self._db.write(check)

    async def history(self, session_id: str, message_id: str | None) -> list[StoredMessage]:
        """The path from the root to `message_id`, oldest first."""
        return await self._db.write(lambda tx: messages.path(tx, session_id, message_id))

    async def append(self, batch: list[EventLines]) -> None:
        """Store events. Events of runs that were deleted meanwhile are left out."""
        await self._db.write(lambda tx: events.append(tx, batch))

    async def close(self, turn: ClosedTurn) -> bool:
        """Store the end of a run, its answer and its cost in one commit. False: the run was deleted or had ended."""
        return await self._db.write(lambda tx: _close(tx, turn))

    async def events(self, run_id: str, after: int, limit: int = 4) -> list[EventLines]:
        """The stored events after seq `after`, at most `limit` rows. The first row may also contain earlier events."""
        return await self._db.write(lambda tx: events.after(tx, run_id, after, limit))

    async def run(self, owner: str, run_id: str) -> StoredRun:
        """One run of the owner. Raises NotFound."""
        sql = f"SELECT {_RUN} FROM runs WHERE id = :id AND owner = :owner"
        row = await self._db.write(lambda tx: tx.one(sql, id=run_id, owner=owner))
        if row is None:
            raise NotFound("No such run.")
        return StoredRun(*row)

    async def page(
        self, owner: str, limit: int, before: tuple[int, str] | None, session_id: str | None, status: str | None
    ) -> list[StoredRun]:
        """At most `limit` runs, the last started first, after the one at `before` (started_at, id); of a session, and
        with a status if given.
        """
        conditions = ["owner = :owner"]
        if session_id is not None:
            conditions.append("session_id = :session_id")
        if status is not None:
            conditions.append("status = :status")
        if before is not None:
            conditions.append("(started_at, id) < (:started_at, :id)")
        sql = f"SELECT {_RUN} FROM runs WHERE {' AND '.join(conditions)} ORDER BY started_at DESC, id DESC LIMIT :limit"
        started_at, id_ = before or (None, None)
        rows = await self._db.read(
            lambda tx: tx.rows(
                sql, owner=owner, session_id=session_id, status=status, started_at=started_at, id=id_, limit=limit
            )
        )
        return [StoredRun(*row) for row in rows]

    async def by_key(self, owner: str, idempotency_key: str) -> tuple[str, str] | None:
        """The id of the run with this key, and the hash of its request; None if there is no such run."""
        return await self._db.write(lambda tx: _by_key(tx, owner, idempotency_key))

    async def last_events(self, run_id: str) -> EventLines | None:
        """The last stored row of a run's events; None if nothing was stored."""
        return await self._db.write(lambda tx: events.last(tx, run_id))

    async def unfinished(self, now: int, except_instance: str) -> list[StoredRun]:
        """The runs that have a live status although their lease is over, without those of an instance."""
        sql = f"SELECT {_RUN} FROM runs WHERE status IN {LIVE} AND lease_until <= :now AND instance_id != :me"
        return [StoredRun(*row) for row in await self._db.write(lambda tx: tx.rows(sql, now=now, me=except_instance))]

    async def renew_leases(self, instance_id: str, lease_until: int) -> None:
        """Extend the leases of this instance's live runs."""
        sql = f"UPDATE runs SET lease_until = :until WHERE instance_id = :instance AND status IN {LIVE}"
        await self._db.write(lambda tx: tx.execute(sql, until=lease_until, instance=instance_id))

    async def drop_reservations(self, made_before: int) -> None:
        """Delete the reservations that a crash left: those that were made before this process began (ms)."""
        await self._db.write(lambda tx: reservations.drop_all(tx, made_before))

    async def release_leases(self, except_instance: str) -> None:
        """End every lease, except those of an instance. The lock on DATA_DIR proves that no other process works on a
        run."""
        sql = "UPDATE runs SET lease_until = 0 WHERE lease_until > 0 AND instance_id != :me"
        await self._db.write(lambda tx: tx.execute(sql, me=except_instance))

    async def expired_logs(
        self, finished_before: int, except_ids: Collection[str] = (), limit: int = 50
    ) -> list[StoredRun]:
        """Runs that finished before a time and still have their whole log, not only snapshot and terminal event."""
        sql = (
            f"SELECT {_RUN} FROM runs WHERE finished_at < :before AND EXISTS "
            "(SELECT 1 FROM run_events e WHERE e.run_id = runs.id AND e.first_seq = 1) "
            "AND id NOT IN :except_ids LIMIT :limit"
        )
        rows = await self._db.write(lambda tx: tx.rows(sql, before=finished_before, except_ids=except_ids, limit=limit))
        return [StoredRun(*row) for row in rows]

    async def replace_log(self, log: EventLines) -> None:
        """Replace the run's whole log by `log`."""
        await self._db.write(lambda tx: events.replace(tx, log))


def _by_key(tx: Tx, owner: str, key: str) -> tuple[str, str] | None:
    sql = "SELECT id, request_hash FROM runs WHERE owner = :owner AND idempotency_key = :key"
    row = tx.one(sql, owner=owner, key=key)
    return None if row is None else (row[0], row[1])


def _open(tx: Tx, turn: NewTurn) -> OpenedTurn:
    if turn.idempotency_key is not None:
        first = _by_key(tx, turn.owner, turn.idempotency_key)
        if first is not None:
            return OpenedTurn(repeated_run=first[0], repeated_hash=first[1])
    now = now_ms()
    if turn.title is not None:
        parent = None
        sessions.insert(
            tx,
            id=turn.session_id,
            owner=turn.owner,
            title=turn.title,
            head_message_id=turn.user_message_id,
            created_at=now,
            updated_at=now,
        )
    else:
        parent = _find_parent(tx, turn)
        if turn.first_title is not None:
            sessions.name_if_empty(tx, turn.session_id, turn.first_title)
        sessions.set_head(tx, turn.session_id, turn.user_message_id, now)
    if turn.reservation is not None:
        reservations.reserve(tx, turn.owner, turn.run_id, turn.reservation)
    _insert(tx, turn, parent, now)
    return OpenedTurn(messages.path(tx, turn.session_id, parent), parent)


def _find_parent(tx: Tx, turn: NewTurn) -> str | None:
    """The parent of the user's new message. Raises NotFound, Conflict."""
    head = _check_head(tx, turn.owner, turn.session_id, turn.parent_id, turn.expect_head)
    if turn.sibling_of is None:
        parent = turn.parent_id or turn.after_live or head
    else:
        parent = _parent_of(tx, turn.session_id, turn.sibling_of)
    is_regenerated = turn.sibling_of == turn.user_message_id
    sql = "SELECT count(*) FROM messages WHERE session_id = :session_id AND parent_id IS :parent_id"
    branches: int = tx.value(sql, session_id=turn.session_id, parent_id=turn.sibling_of if is_regenerated else parent)
    if is_regenerated:
        # An answer becomes a message only when its run ends, so live runs are counted as well.
        sql = (
            "SELECT count(*) FROM runs WHERE session_id = :session_id AND user_message_id = :message_id "
            f"AND status IN {LIVE}"
        )
        branches += tx.value(sql, session_id=turn.session_id, message_id=turn.sibling_of)
    if branches >= MAX_BRANCHES:
        event = "The message has been answered" if is_regenerated else "A message in this place has been written"
        raise Conflict(
            f"{event} {MAX_BRANCHES} times, and no more are kept. Go on from one of them, or begin a new session.",
            code="too_many_branches",
        )
    return parent


def _parent_of(tx: Tx, session_id: str, message_id: str) -> str | None:
    """The parent of a user message. Raises NotFound."""
    sql = "SELECT parent_id FROM messages WHERE id = :id AND session_id = :session_id AND role = 'user'"
    row = tx.one(sql, id=message_id, session_id=session_id)
    if row is None:
        raise NotFound("No such message of the user's in this session.")
    return row[0]


def _check_head(tx: Tx, owner: str, session_id: str, parent_id: str | None, expect_head: str | None) -> str | None:
    """The session's head. Raises NotFound and Conflict if the request's `parent_id` or `expect_head` don't fit."""
    row = tx.one("SELECT head_message_id FROM sessions WHERE id = :id AND owner = :owner", id=session_id, owner=owner)
    if row is None:
        raise NotFound("No such session. Leave session_id out to begin a new one.")
    if expect_head is not None and expect_head != row[0]:
        raise Conflict(
            "The session has moved on: its last message is another than expect_head. Read the session and try again.",
            code="head_moved",
            head_message_id=row[0],
        )
    if parent_id is not None:
        sql = "SELECT 1 FROM messages WHERE id = :id AND session_id = :session_id"
        if tx.one(sql, id=parent_id, session_id=session_id) is None:
            raise NotFound("parent_id: no such message in this session.")
    return row[0]


def _insert(tx: Tx, turn: NewTurn, parent: str | None, now: int) -> None:
    """Store the run, the new images, and the user's message unless an existing one is answered again."""
    if turn.sibling_of != turn.user_message_id:
        messages.insert(
            tx,
            id=turn.user_message_id,
            owner=turn.owner,
            session_id=turn.session_id,
            parent_id=parent,
            run_id=turn.run_id,
            role="user",
            status="complete",
            parts=turn.parts,
            created_at=now,
        )
    if turn.images:
        store_images(tx, turn.owner, turn.session_id, turn.images, now)
    tx.execute(
        "INSERT INTO runs (id, owner, session_id, user_message_id, message_id, model, prompt, status, instance_id, "
        "lease_until, idempotency_key, request_hash, started_at) VALUES (:id, :owner, :session_id, :user_message_id, "
        ":message_id, :model, :prompt, 'running', :instance_id, :lease_until, :idempotency_key, :request_hash, :now)",
        id=turn.run_id,
        owner=turn.owner,
        session_id=turn.session_id,
        user_message_id=turn.user_message_id,
        message_id=turn.message_id,
        model=turn.model,
        prompt=turn.prompt,
        instance_id=turn.instance_id,
        lease_until=now + turn.lease_ms,
        idempotency_key=turn.idempotency_key,
        request_hash=turn.request_hash,
        now=now,
    )


def _close(tx: Tx, turn: ClosedTurn) -> bool:
    now = now_ms()
    row = tx.one(
        _END,
        status=turn.status,
        error=turn.error,
        usage=turn.usage,
        now=now,
        id=turn.run_id,
    )
    if row is None:
        # A run that had ended was booked then. If the run was deleted, only its calls are booked.
        if tx.one("SELECT 1 FROM runs WHERE id = :id", id=turn.run_id) is None:
            ledger.settle(tx, turn.owner, turn.run_id, turn.session_id, turn.calls)
        return False
    ledger.settle(tx, turn.owner, turn.run_id, turn.session_id, turn.calls)
    owner, session_id, user_message_id, message_id, requested_model, prompt = row
    events.append(tx, turn.events)
    messages.insert(
        tx,
        id=message_id,
        owner=owner,
        session_id=session_id,
        parent_id=user_message_id,
        run_id=turn.run_id,
        role="assistant",
        status=turn.message_status,
        parts=turn.parts,
        model=turn.model or requested_model,
        prompt=prompt,
        retrieval=turn.retrieval,
        created_at=now,
    )
    sessions.advance_head(tx, session_id, user_message_id, message_id, now)
    return True


def delete_runs(tx: Tx, session_id: str, message_ids: Sequence[str]) -> None:
    """Delete the runs that answered one of the messages, or wrote it, with their logs. Their costs stay booked."""
    tx.execute(
        "DELETE FROM runs WHERE session_id = :session_id AND (message_id IN :ids OR user_message_id IN :ids)",
        session_id=session_id,
        ids=message_ids,
    )
