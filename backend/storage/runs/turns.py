"""Turns: a user's message and the run that answers it, opened and closed in one commit each.

These commits span runs, conversations and usage, and happen at every message. Only this module writes the table runs.
JSON columns come and go as text that the services encoded.
"""

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
"""Messages that follow the same one, or begin a session: each of them names them all."""


@dataclass(slots=True, frozen=True)
class NewTurn:
    """A user's message and the run that will answer it. `session_id` is new where `title` is given.

    `beside` is an earlier message of the user's that this one stands beside; the same id means that it is answered once
    more. `images` are new pictures that the message shows. `prompt` is JSON text. `reservation`: what the run may cost,
    where the owner has a budget.
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
    lease_until: int
    images: tuple[ImageRow, ...] = ()
    prompt: str | None = None
    parent_id: str | None = None
    beside: str | None = None
    expect_head: str | None = None
    after_live: str | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    reservation: reservations.Reservation | None = None


@dataclass(slots=True, frozen=True)
class OpenedTurn:
    """`history`: the path up to the new message, oldest first, ending with `parent_id`. `repeats`: the run that has the
    key already."""

    history: list[StoredMessage] = field(default_factory=list[StoredMessage])
    parent_id: str | None = None
    repeats: str | None = None
    repeats_hash: str | None = None


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


_RUN = "id, owner, session_id, user_message_id, message_id, model, status, error, usage, started_at, finished_at"
_LIVE = "('queued', 'running')"
_END = f"""
UPDATE runs SET status = :status, error = :error, usage = :usage, finished_at = :now, lease_until = 0
WHERE id = :id AND status IN {_LIVE} RETURNING owner, session_id, user_message_id, message_id, model, prompt"""


class Turns:
    """Turns in the database. Every method is one commit, or a read that sees every commit before it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def open(self, turn: NewTurn) -> OpenedTurn:
        """Store the user's message and the run. Raises NotFound, Conflict (`head_moved`, `too_many_branches`),
        BudgetExceeded."""
        return await self._db.write(lambda tx: _open(tx, turn))

    async def check(self, turn: NewTurn) -> None:
        """Whether the turn could be opened. Raises as `open` does."""

        def check(tx: Tx) -> None:
            _checked_parent(tx, turn)
            if turn.reservation is not None:
                reservations.check(tx, turn.owner, turn.reservation)

        await self._db.write(check)

    async def history(self, session_id: str, message_id: str | None) -> list[StoredMessage]:
        """The path from the root to `message_id`, oldest first."""
        return await self._db.write(lambda tx: messages.path(tx, session_id, message_id))

    async def append(self, batch: list[EventLines]) -> None:
        """Store events; those of runs that were deleted meanwhile are left out."""
        await self._db.write(lambda tx: events.append(tx, batch))

    async def close(self, turn: ClosedTurn) -> bool:
        """Store the end of a run, its answer and what it cost in one commit. False: the run was deleted, or had ended
        before."""
        return await self._db.write(lambda tx: _close(tx, turn))

    async def events(self, run_id: str, after: int, limit: int = 4) -> list[EventLines]:
        """Stored events with a seq above `after`, at most `limit` rows; the first row may begin before."""
        return await self._db.write(lambda tx: events.after(tx, run_id, after, limit))

    async def run(self, owner: str, run_id: str) -> StoredRun:
        """One run of the owner's. Raises NotFound."""
        sql = f"SELECT {_RUN} FROM runs WHERE id = :id AND owner = :owner"
        row = await self._db.write(lambda tx: tx.one(sql, id=run_id, owner=owner))
        if row is None:
            raise NotFound("No such run.")
        return StoredRun(*row)

    async def by_key(self, owner: str, idempotency_key: str) -> tuple[str, str] | None:
        """The run that has the key, and the hash of its request."""
        return await self._db.write(lambda tx: _by_key(tx, owner, idempotency_key))

    async def last_seq(self, run_id: str) -> int:
        """The last stored seq of a run; 0 when nothing was stored."""
        return await self._db.write(lambda tx: events.last_seq(tx, run_id))

    async def unfinished(self, now: int) -> list[StoredRun]:
        """Runs whose status is a live one although their lease has run out."""
        sql = f"SELECT {_RUN} FROM runs WHERE status IN {_LIVE} AND lease_until <= :now"
        return [StoredRun(*row) for row in await self._db.write(lambda tx: tx.rows(sql, now=now))]

    async def renew_leases(self, instance_id: str, lease_until: int) -> None:
        """Keep this instance's live runs its own."""
        sql = f"UPDATE runs SET lease_until = :until WHERE instance_id = :instance AND status IN {_LIVE}"
        await self._db.write(lambda tx: tx.execute(sql, until=lease_until, instance=instance_id))

    async def drop_reservations(self) -> None:
        """Let go of what a crash left reserved. Only for the embedded mode, once no run is unfinished."""
        await self._db.write(reservations.drop_all)

    async def release_leases(self) -> None:
        """Let go of every lease. Only for the embedded mode, whose lock on DATA_DIR proves that no holder lives."""
        await self._db.write(lambda tx: tx.execute("UPDATE runs SET lease_until = 0 WHERE lease_until > 0"))

    async def expired_logs(self, finished_before: int, limit: int = 50) -> list[StoredRun]:
        """Ended runs whose verbatim log has outlived its time (more than a snapshot and a terminal event)."""
        sql = (
            f"SELECT {_RUN} FROM runs WHERE finished_at < :before AND EXISTS "
            "(SELECT 1 FROM run_events e WHERE e.run_id = runs.id AND e.first_seq = 1) LIMIT :limit"
        )
        rows = await self._db.write(lambda tx: tx.rows(sql, before=finished_before, limit=limit))
        return [StoredRun(*row) for row in rows]

    async def replace_log(self, log: EventLines) -> None:
        """Put `log` in the place of everything that the run's log holds."""
        await self._db.write(lambda tx: events.replace(tx, log))


def _by_key(tx: Tx, owner: str, key: str) -> tuple[str, str] | None:
    sql = "SELECT id, request_hash FROM runs WHERE owner = :owner AND idempotency_key = :key"
    row = tx.one(sql, owner=owner, key=key)
    return None if row is None else (row[0], row[1])


def _open(tx: Tx, turn: NewTurn) -> OpenedTurn:
    if turn.idempotency_key is not None:
        first = _by_key(tx, turn.owner, turn.idempotency_key)
        if first is not None:
            return OpenedTurn(repeats=first[0], repeats_hash=first[1])
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
        parent = _checked_parent(tx, turn)
        sessions.set_head(tx, turn.session_id, turn.user_message_id, now)
    if turn.reservation is not None:
        reservations.reserve(tx, turn.owner, turn.run_id, turn.reservation)
    _insert(tx, turn, parent, now)
    return OpenedTurn(messages.path(tx, turn.session_id, parent), parent)


def _checked_parent(tx: Tx, turn: NewTurn) -> str | None:
    """What the user's message follows. Raises NotFound, Conflict."""
    head = _checked_head(tx, turn.owner, turn.session_id, turn.parent_id, turn.expect_head)
    if turn.beside is None:
        parent = turn.parent_id or turn.after_live or head
    else:
        parent = _parent_of(tx, turn.session_id, turn.beside)
    again = turn.beside == turn.user_message_id
    sql = "SELECT count(*) FROM messages WHERE session_id = :session_id AND parent_id IS :parent_id"
    branches: int = tx.value(sql, session_id=turn.session_id, parent_id=turn.beside if again else parent)
    if again:
        # Answers that are still being written are no messages yet.
        sql = (
            "SELECT count(*) FROM runs WHERE session_id = :session_id AND user_message_id = :message_id "
            f"AND status IN {_LIVE}"
        )
        branches += tx.value(sql, session_id=turn.session_id, message_id=turn.beside)
    if branches >= MAX_BRANCHES:
        what = "The message has been answered" if again else "A message in this place has been written"
        raise Conflict(
            f"{what} {MAX_BRANCHES} times, and no more are kept. Go on from one of them, or begin a new session.",
            code="too_many_branches",
        )
    return parent


def _parent_of(tx: Tx, session_id: str, message_id: str) -> str | None:
    """What a message of the user's follows. Raises NotFound."""
    sql = "SELECT parent_id FROM messages WHERE id = :id AND session_id = :session_id AND role = 'user'"
    row = tx.one(sql, id=message_id, session_id=session_id)
    if row is None:
        raise NotFound("No such message of the user's in this session.")
    return row[0]


def _checked_head(tx: Tx, owner: str, session_id: str, parent_id: str | None, expect_head: str | None) -> str | None:
    """The session's head, after checking that a message may follow as the request says."""
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
    """The user's message, unless it is answered once more, its new images, and the run."""
    if turn.beside != turn.user_message_id:
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
        lease_until=turn.lease_until,
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
        # A run that had ended before was booked then. Of a run that was deleted only the cost is left.
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
