"""Prompts: names with immutable versions, and labels that point to one. `content` is JSON text."""

from dataclasses import dataclass, field

from backend.errors import Conflict, NotFound
from backend.kit.ids import new_id
from backend.kit.times import now_ms
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx

_MAX_VERSIONS, _MAX_LABELS = 1_000, 100
_NONE = "No such prompt. GET /prompts lists yours."


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt. `versions` is the number of the newest version. Times in ms."""

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
    """Prompts of an owner. Those of another owner raise NotFound."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def create(self, owner: str, name: str, content: str, note: str | None, labels: list[str]) -> None:
        """Create a prompt with its first version. Raises Conflict (`prompt_exists`, `too_many_prompts`)."""
        await self._db.write(lambda tx: _create(tx, owner, name, content, note, labels))

    async def add(self, owner: str, name: str, content: str, note: str | None, labels: list[str]) -> int:
        """The number of the new version. Raises NotFound, Conflict (`too_many_prompts`)."""
        return await self._db.write(lambda tx: _add(tx, owner, name, content, note, labels))

    async def by_owner(self, owner: str) -> list[PromptRow]:
        """All prompts of an owner, sorted by name."""
        return await self._db.read(lambda tx: _rows(tx, owner, None))

    async def get(self, owner: str, name: str) -> PromptRow:
        """One prompt. Raises NotFound."""
        return await self._db.read(lambda tx: _one(tx, owner, name))

    async def versions(self, owner: str, name: str) -> list[RevisionRow]:
        """All versions, the newest first. Raises NotFound."""

        def find(tx: Tx) -> list[RevisionRow]:
            sql = f"{_VERSION} WHERE p.owner = :owner AND p.name = :name ORDER BY v.n DESC"
            return [RevisionRow(*row) for row in tx.rows(sql, owner=owner, name=name)]

        if not (revisions := await self._db.read(find)):
            raise NotFound(_NONE)
        return revisions

    async def version(self, owner: str, name: str, n: int | None, label: str | None) -> RevisionRow:
        """A version by its number or by a label. Without both: the version labelled `production`, else the newest.

        Raises NotFound.
        """

        def find(tx: Tx) -> RevisionRow:
            prompt = _one(tx, owner, name)
            number = n
            if number is None:
                number = prompt.labels.get(label or "production", None if label else prompt.versions)
            row = tx.one(f"{_VERSION} WHERE p.id = :id AND v.n = :n", id=prompt.id, n=number)
            if row is None:
                missing = f"label {label!r}" if label is not None and n is None else f"version {n}"
                raise NotFound(f"The prompt {name} has no {missing}. GET /prompts/{name} tells which there are.")
            return RevisionRow(*row)

        return await self._db.read(find)

    async def label(self, owner: str, name: str, label: str, n: int) -> None:
        """Make the label point to version `n`. Raises NotFound, Conflict."""

        def put(tx: Tx) -> None:
            prompt = _one(tx, owner, name)
            if not 1 <= n <= prompt.versions:
                raise NotFound(f"The prompt {name} has no version {n}.")
            _label(tx, prompt.id, owner, [label], n)
            _touch(tx, prompt.id)

        await self._db.write(put)

    async def unlabel(self, owner: str, name: str, label: str) -> None:
        """Remove the label. Raises NotFound."""

        def remove(tx: Tx) -> None:
            prompt = _one(tx, owner, name)
            sql = "DELETE FROM prompt_labels WHERE prompt_id = :id AND label = :label"
            if tx.count_changes(sql, id=prompt.id, label=label) == 0:
                raise NotFound(f"The prompt {name} has no label {label!r}.")
            _touch(tx, prompt.id)

        await self._db.write(remove)

    async def delete(self, owner: str, name: str) -> None:
        """Delete a prompt with its versions and labels. Raises NotFound."""

        def remove(tx: Tx) -> None:
            if (
                tx.count_changes("DELETE FROM prompts WHERE owner = :owner AND name = :name", owner=owner, name=name)
                == 0
            ):
                raise NotFound(_NONE)

        await self._db.write(remove)


_VERSION = (
    "SELECT v.prompt_id, v.n, v.content, v.note, v.created_at "
    "FROM prompt_versions v JOIN prompts p ON p.id = v.prompt_id"
)


def _rows(tx: Tx, owner: str, name: str | None) -> list[PromptRow]:
    sql = (
        "SELECT p.id, p.name, p.created_at, p.updated_at, (SELECT max(n) FROM prompt_versions WHERE prompt_id = p.id) "
        "FROM prompts p WHERE p.owner = :owner AND (:name IS NULL OR p.name = :name) ORDER BY p.name"
    )
    prompts = {row[0]: PromptRow(*row) for row in tx.rows(sql, owner=owner, name=name)}
    labels = (
        "SELECT l.prompt_id, l.label, l.n FROM prompt_labels l JOIN prompts p ON p.id = l.prompt_id "
        "WHERE p.owner = :owner AND (:name IS NULL OR p.name = :name) ORDER BY l.label"
    )
    for prompt_id, label, n in tx.rows(labels, owner=owner, name=name):
        if prompt_id in prompts:
            prompts[prompt_id].labels[label] = n
    return list(prompts.values())


def _one(tx: Tx, owner: str, name: str) -> PromptRow:
    rows = _rows(tx, owner, name)
    if not rows:
        raise NotFound(_NONE)
    return rows[0]


def _create(tx: Tx, owner: str, name: str, content: str, note: str | None, labels: list[str]) -> None:
    sql = "SELECT 1 FROM prompts WHERE owner = :owner AND name = :name"
    if tx.one(sql, owner=owner, name=name) is not None:
        raise Conflict(
            f"You have a prompt of this name. Add a version (POST /prompts/{name}/versions), or choose another name.",
            code="prompt_exists",
        )
    if tx.value("SELECT count(*) FROM prompts WHERE owner = :owner", owner=owner) >= _MAX_VERSIONS:
        raise Conflict(
            f"You have {_MAX_VERSIONS} prompts, the most there may be. Delete some.", code="too_many_prompts"
        )
    prompt_id, now = new_id("pro"), now_ms()
    sql = "INSERT INTO prompts (id, owner, name, created_at, updated_at) VALUES (:id, :owner, :name, :now, :now)"
    tx.execute(sql, id=prompt_id, owner=owner, name=name, now=now)
    _add(tx, owner, name, content, note, labels)


def _add(tx: Tx, owner: str, name: str, content: str, note: str | None, labels: list[str]) -> int:
    prompt = _one(tx, owner, name)
    n = (prompt.versions or 0) + 1
    if n > _MAX_VERSIONS:
        raise Conflict(f"This prompt has {_MAX_VERSIONS} versions, the most there may be.", code="too_many_prompts")
    sql = (
        "INSERT INTO prompt_versions (prompt_id, n, owner, content, note, created_at) "
        "VALUES (:id, :n, :owner, :content, :note, :now)"
    )
    tx.execute(sql, id=prompt.id, n=n, owner=owner, content=content, note=note, now=now_ms())
    _label(tx, prompt.id, owner, labels, n)
    _touch(tx, prompt.id)
    return n


def _label(tx: Tx, prompt_id: str, owner: str, labels: list[str], n: int) -> None:
    sql = (
        "INSERT INTO prompt_labels (prompt_id, label, owner, n) VALUES (:id, :label, :owner, :n) "
        "ON CONFLICT (prompt_id, label) DO UPDATE SET n = excluded.n"
    )
    tx.execute_many(sql, [{"id": prompt_id, "label": label, "owner": owner, "n": n} for label in labels])
    if tx.value("SELECT count(*) FROM prompt_labels WHERE prompt_id = :id", id=prompt_id) > _MAX_LABELS:
        raise Conflict(f"This prompt has {_MAX_LABELS} labels, the most there may be.", code="too_many_prompts")


def _touch(tx: Tx, prompt_id: str) -> None:
    tx.execute("UPDATE prompts SET updated_at = :now WHERE id = :id", now=now_ms(), id=prompt_id)
