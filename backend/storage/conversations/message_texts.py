"""The texts of messages, and the search in them. Only this module writes the table message_texts.

A text is deleted with its message. The FTS5 table `message_index` holds the words; triggers of the database keep it in
step, whoever deletes a message. It is created when the server starts, from the texts that are there.
"""

from dataclasses import dataclass

from backend.messages import decode_parts, text_of
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx

MATCH_BEGIN, MATCH_END = "\x02", "\x03"
"""What stands around a match in a snippet."""
_SNIPPET_TOKENS = 24
_MAX_TERMS = 16


@dataclass(frozen=True, slots=True)
class MessageHit:
    """A message that has all words of a search. `snippet` is a piece of its text with MATCH_BEGIN and MATCH_END around
    each match; `n` grows with each message that is stored.
    """

    n: int
    message_id: str
    session_id: str
    session_title: str
    role: str
    created_at: int
    snippet: str


class MessageTexts:
    """The texts of the messages of all owners."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def open(self) -> None:
        """Create the index if it isn't there: in a new database, and in one that was just upgraded."""
        await self._db.write(_create_index)

    async def search(self, owner: str, words: list[str], before: int | None, limit: int) -> list[MessageHit]:
        """At most `limit` messages that have all words, or words that begin with them; the last stored one first, after
        the one with the number `before`.
        """
        if not words:
            return []
        query = " ".join(f'"{word}"*' for word in words[:_MAX_TERMS])
        rows = await self._db.read(
            lambda tx: tx.rows(
                _SEARCH,
                owner=owner,
                query=query,
                before=2**62 if before is None else before,
                limit=limit,
                begin=MATCH_BEGIN,
                end=MATCH_END,
                tokens=_SNIPPET_TOKENS,
            )
        )
        return [MessageHit(*row) for row in rows]


_SEARCH = """
SELECT t.n, m.id, m.session_id, s.title, m.role, m.created_at,
    snippet(message_index, 0, :begin, :end, '…', :tokens)
FROM message_index JOIN message_texts t ON t.n = message_index.rowid
JOIN messages m ON m.id = t.message_id JOIN sessions s ON s.id = m.session_id
WHERE message_index MATCH :query AND message_index.rowid < :before AND t.owner = :owner
ORDER BY message_index.rowid DESC LIMIT :limit"""


_INDEX = (
    "CREATE VIRTUAL TABLE message_index USING fts5("
    "text, content='message_texts', content_rowid='n', tokenize='unicode61 remove_diacritics 2')",
    "CREATE TRIGGER message_texts_inserted AFTER INSERT ON message_texts BEGIN "
    "INSERT INTO message_index (rowid, text) VALUES (new.n, new.text); END",
    "CREATE TRIGGER message_texts_deleted AFTER DELETE ON message_texts BEGIN "
    "INSERT INTO message_index (message_index, rowid, text) VALUES ('delete', old.n, old.text); END",
    "INSERT INTO message_index (message_index) VALUES ('rebuild')",
)


def _create_index(tx: Tx) -> None:
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'message_index'"
    if tx.one(sql) is None:
        for statement in _INDEX:
            tx.execute(statement)


# Parts of a caller's commit.


def put(tx: Tx, owner: str, message_id: str, parts: str) -> None:
    """Store the text of a message, whose parts are JSON text. A message without text is not stored."""
    if text := text_of(decode_parts(parts)).strip():
        tx.execute(
            "INSERT INTO message_texts (message_id, owner, text) VALUES (:message_id, :owner, :text)",
            message_id=message_id,
            owner=owner,
            text=text,
        )
