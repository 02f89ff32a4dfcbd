"""Messages of sessions, and the path to a message. Only this module writes the table messages."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.storage.conversations import message_texts
from backend.storage.engine.tx import Tx

_HISTORY_LIMIT = 400
_COLUMNS = "id, session_id, parent_id, run_id, role, status, parts, model, prompt, created_at"


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message. `parts` and `prompt` (the template of the answer) are JSON text; `model` wrote the answer."""

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


@dataclass(slots=True, frozen=True)
class StoredMessage:
    """A message of the active path; `parts` is JSON text. `summary` covers all messages up to and including this.
    `error` is the code of the error that ended the answer."""

    id: str
    role: str
    status: str
    parts: str
    summary: str | None = None
    error: str | None = None


def of_session(tx: Tx, session_id: str) -> list[MessageRow]:
    """All messages of a session, every branch, in order of creation."""
    sql = f"SELECT {_COLUMNS} FROM messages WHERE session_id = :session_id ORDER BY created_at, id"
    return [MessageRow(*row) for row in tx.rows(sql, session_id=session_id)]


def by_id(tx: Tx, owner: str, message_id: str) -> MessageRow | None:
    """A message of the owner; None if the owner has no such message."""
    row = tx.one(f"SELECT {_COLUMNS} FROM messages WHERE id = :id AND owner = :owner", id=message_id, owner=owner)
    return None if row is None else MessageRow(*row)


def path(tx: Tx, session_id: str, message_id: str | None) -> list[StoredMessage]:
    """The path from the root to a message, oldest first, at most its last 400 messages."""
    if message_id is None:
        return []
    return [StoredMessage(*row) for row in tx.rows(_PATH, id=message_id, session_id=session_id, limit=_HISTORY_LIMIT)]


_PATH = """
WITH RECURSIVE path(id, parent_id, run_id, role, status, parts, depth) AS (
    SELECT id, parent_id, run_id, role, status, parts, 0 FROM messages WHERE id = :id AND session_id = :session_id
    UNION ALL
    SELECT m.id, m.parent_id, m.run_id, m.role, m.status, m.parts, path.depth + 1
    FROM messages m JOIN path ON m.id = path.parent_id WHERE path.depth < :limit
) SELECT path.id, role, path.status, parts, s.text, json_extract(r.error, '$.code')
FROM path LEFT JOIN summaries s ON s.message_id = path.id
LEFT JOIN runs r ON path.status = 'failed' AND r.id = path.run_id ORDER BY depth DESC"""


_BRANCH = """
WITH RECURSIVE branch(id) AS (
    SELECT id FROM messages WHERE id = :id AND session_id = :session_id
    UNION SELECT m.id FROM messages m JOIN branch ON m.parent_id = branch.id WHERE m.session_id = :session_id
) SELECT id FROM branch"""


_INSERT = f"""
INSERT INTO messages (owner, retrieval, {_COLUMNS}) VALUES (:owner, :retrieval, :id, :session_id, :parent_id, :run_id,
    :role, :status, :parts, :model, :prompt, :created_at)"""


def insert(
    tx: Tx,
    *,
    id: str,
    owner: str,
    session_id: str,
    parent_id: str | None,
    run_id: str | None,
    role: str,
    status: str,
    parts: str,
    created_at: int,
    model: str | None = None,
    prompt: str | None = None,
    retrieval: str | None = None,
) -> None:
    """Store a message. `retrieval` explains the search for an answer, as JSON text."""
    tx.execute(
        _INSERT,
        owner=owner,
        retrieval=retrieval,
        id=id,
        session_id=session_id,
        parent_id=parent_id,
        run_id=run_id,
        role=role,
        status=status,
        parts=parts,
        model=model,
        prompt=prompt,
        created_at=created_at,
    )
    message_texts.put(tx, owner, id, parts)


def delete(tx: Tx, ids: Sequence[str]) -> None:
    """Delete messages, with their summaries, texts and feedback."""
    tx.execute("DELETE FROM messages WHERE id IN :ids", ids=ids)


def branch_from(tx: Tx, session_id: str, message_id: str) -> list[str]:
    """The ids of a message and of all messages after it, in every branch."""
    return [row[0] for row in tx.rows(_BRANCH, id=message_id, session_id=session_id)]


def last_leaf(tx: Tx, session_id: str, parent_id: str | None) -> str | None:
    """The id of the last message of the newest branch after `parent_id`; `parent_id` itself if nothing follows it."""
    sql = (
        "SELECT id FROM messages WHERE session_id = :session_id AND parent_id IS :parent_id "
        "ORDER BY created_at DESC, id DESC LIMIT 1"
    )
    leaf, visited = parent_id, set[str]()
    while (child := tx.value(sql, session_id=session_id, parent_id=leaf)) is not None and child not in visited:
        visited.add(child)
        leaf = child
    return leaf
