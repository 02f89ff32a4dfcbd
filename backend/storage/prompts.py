"""Prompts: names with immutable versions, and labels that point to one. `content` is JSON text."""

import sqlite3
from dataclasses import dataclass, field

from backend.errors import Conflict, NotFound
from backend.kit.ids import new_id, now_ms
from backend.storage.engine.database import Database

_MANY, _MANY_LABELS = 1_000, 100
_NONE = "No such prompt. GET /prompts lists yours."


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt; `versions` is how many there are, the last one's number. Times in ms."""

    id: str
    name: str
    created_at: int
    updated_at: int
    versions: int
    labels: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """A version of a prompt."""

    prompt_id: str
    n: int
    content: str
    note: str | None
    created_at: int


class Prompts:
    """Prompts of an owner. Somebody else's raise NotFound."""

    def __init__(self, database: Database) -> None:
        self._writer = database.writer
        self._reader = database.reader

    async def create(self, owner: str, name: str, content: str, note: str | None, labels: list[str]) -> None:
        """A prompt with its first version. Raises Conflict (`prompt_exists`, `too_many_prompts`)."""
        await self._writer.run(lambda conn: _create(conn, owner, name, content, note, labels))

    async def add(self, owner: str, name: str, content: str, note: str | None, labels: list[str]) -> int:
        """Another version; its number. Raises NotFound, Conflict (`too_many_prompts`)."""
        return await self._writer.run(lambda conn: _add(conn, owner, name, content, note, labels))

    async def of(self, owner: str) -> list[PromptRow]:
        """All of an owner's, by name."""
        return await self._reader.run(lambda conn: _rows(conn, owner, None))

    async def get(self, owner: str, name: str) -> PromptRow:
        """One prompt. Raises NotFound."""
        return await self._reader.run(lambda conn: _one(conn, owner, name))

    async def versions(self, owner: str, name: str) -> list[RevisionRow]:
        """All versions, the newest first. Raises NotFound."""

        def find(conn: sqlite3.Connection) -> list[RevisionRow]:
            sql = f"{_VERSION} WHERE p.owner = ? AND p.name = ? ORDER BY v.n DESC"
            return [RevisionRow(*row) for row in conn.execute(sql, (owner, name))]

        if not (found := await self._reader.run(find)):
            raise NotFound(_NONE)
        return found

    async def version(self, owner: str, name: str, n: int | None, label: str | None) -> RevisionRow:
        """A version by its number or by a label; with neither, the one labelled `production`, else the newest.

        Raises NotFound.
        """

        def find(conn: sqlite3.Connection) -> RevisionRow:
            prompt = _one(conn, owner, name)
            wanted = n
            if wanted is None:
                wanted = prompt.labels.get(label or "production", None if label else prompt.versions)
            row = conn.execute(f"{_VERSION} WHERE p.id = ? AND v.n = ?", (prompt.id, wanted)).fetchone()
            if row is None:
                what = f"label {label!r}" if label is not None and n is None else f"version {n}"
                raise NotFound(f"The prompt {name} has no {what}. GET /prompts/{name} tells which there are.")
            return RevisionRow(*row)

        return await self._reader.run(find)

    async def label(self, owner: str, name: str, label: str, n: int) -> None:
        """Let the label point to version `n`. Raises NotFound, Conflict."""

        def put(conn: sqlite3.Connection) -> None:
            prompt = _one(conn, owner, name)
            if not 1 <= n <= prompt.versions:
                raise NotFound(f"The prompt {name} has no version {n}.")
            _label(conn, prompt.id, owner, [label], n)
            _touch(conn, prompt.id)

        await self._writer.run(put)

    async def unlabel(self, owner: str, name: str, label: str) -> None:
        """Take the label away. Raises NotFound."""

        def remove(conn: sqlite3.Connection) -> None:
            prompt = _one(conn, owner, name)
            sql = "DELETE FROM prompt_labels WHERE prompt_id = ? AND label = ?"
            if conn.execute(sql, (prompt.id, label)).rowcount == 0:
                raise NotFound(f"The prompt {name} has no label {label!r}.")
            _touch(conn, prompt.id)

        await self._writer.run(remove)

    async def delete(self, owner: str, name: str) -> None:
        """Delete it with its versions and labels. Raises NotFound."""

        def remove(conn: sqlite3.Connection) -> None:
            if conn.execute("DELETE FROM prompts WHERE owner = ? AND name = ?", (owner, name)).rowcount == 0:
                raise NotFound(_NONE)

        await self._writer.run(remove)


_VERSION = (
    "SELECT v.prompt_id, v.n, v.content, v.note, v.created_at "
    "FROM prompt_versions v JOIN prompts p ON p.id = v.prompt_id"
)


def _rows(conn: sqlite3.Connection, owner: str, name: str | None) -> list[PromptRow]:
    sql = (
        "SELECT p.id, p.name, p.created_at, p.updated_at, (SELECT max(n) FROM prompt_versions WHERE prompt_id = p.id) "
        "FROM prompts p WHERE p.owner = ? AND (? IS NULL OR p.name = ?) ORDER BY p.name"
    )
    found = {row[0]: PromptRow(*row) for row in conn.execute(sql, (owner, name, name))}
    labels = (
        "SELECT l.prompt_id, l.label, l.n FROM prompt_labels l JOIN prompts p ON p.id = l.prompt_id "
        "WHERE p.owner = ? AND (? IS NULL OR p.name = ?) ORDER BY l.label"
    )
    for prompt_id, label, n in conn.execute(labels, (owner, name, name)):
        if prompt_id in found:
            found[prompt_id].labels[label] = n
    return list(found.values())


def _one(conn: sqlite3.Connection, owner: str, name: str) -> PromptRow:
    found = _rows(conn, owner, name)
    if not found:
        raise NotFound(_NONE)
    return found[0]


def _create(conn: sqlite3.Connection, owner: str, name: str, content: str, note: str | None, labels: list[str]) -> None:
    if conn.execute("SELECT 1 FROM prompts WHERE owner = ? AND name = ?", (owner, name)).fetchone() is not None:
        raise Conflict(
            f"You have a prompt of this name. Add a version (POST /prompts/{name}/versions), or choose another name.",
            code="prompt_exists",
        )
    if conn.execute("SELECT count(*) FROM prompts WHERE owner = ?", (owner,)).fetchone()[0] >= _MANY:
        raise Conflict(f"You have {_MANY} prompts, the most there may be. Delete some.", code="too_many_prompts")
    prompt_id, now = new_id("pro"), now_ms()
    sql = "INSERT INTO prompts (id, owner, name, created_at, updated_at) VALUES (?, ?, ?, ?, ?)"
    conn.execute(sql, (prompt_id, owner, name, now, now))
    _add(conn, owner, name, content, note, labels)


def _add(conn: sqlite3.Connection, owner: str, name: str, content: str, note: str | None, labels: list[str]) -> int:
    prompt = _one(conn, owner, name)
    n = (prompt.versions or 0) + 1
    if n > _MANY:
        raise Conflict(f"This prompt has {_MANY} versions, the most there may be.", code="too_many_prompts")
    sql = "INSERT INTO prompt_versions (prompt_id, n, owner, content, note, created_at) VALUES (?, ?, ?, ?, ?, ?)"
    conn.execute(sql, (prompt.id, n, owner, content, note, now_ms()))
    _label(conn, prompt.id, owner, labels, n)
    _touch(conn, prompt.id)
    return n


def _label(conn: sqlite3.Connection, prompt_id: str, owner: str, labels: list[str], n: int) -> None:
    sql = (
        "INSERT INTO prompt_labels (prompt_id, label, owner, n) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (prompt_id, label) DO UPDATE SET n = excluded.n"
    )
    conn.executemany(sql, [(prompt_id, label, owner, n) for label in labels])
    count = conn.execute("SELECT count(*) FROM prompt_labels WHERE prompt_id = ?", (prompt_id,)).fetchone()[0]
    if count > _MANY_LABELS:
        raise Conflict(f"This prompt has {_MANY_LABELS} labels, the most there may be.", code="too_many_prompts")


def _touch(conn: sqlite3.Connection, prompt_id: str) -> None:
    conn.execute("UPDATE prompts SET updated_at = ? WHERE id = ?", (now_ms(), prompt_id))
