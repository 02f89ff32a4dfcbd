"""Changes of documents and their versions. Each operation is one commit."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.errors import Conflict, NotFound
from backend.kit.ids import new_id
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx
from backend.storage.library import document_rows, jobs
from backend.storage.library.document_rows import Discarded


@dataclass(frozen=True, slots=True)
class Replaced:
    """The result of new content for a document: `version` has these bytes. `unchanged`: it had them already.
    `discarded` is the earlier pending version.
    """

    version: str
    unchanged: bool
    discarded: Discarded | None = None


class Versions:
    """Changes to the documents of an owner. Those of another owner raise NotFound."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(
        self, owner: str, collection_id: str, version_id: str, name: str, sha256: str, size: int
    ) -> tuple[str, str, bool]:
        """The document with these bytes, its version, and whether it is new. If it had failed, it is queued again.

        Raises NotFound if the collection is gone.
        """
        return await self._db.write(lambda tx: _add(tx, owner, collection_id, version_id, name, sha256, size))

    async def replace(self, owner: str, document_id: str, version_id: str, sha256: str, size: int) -> Replaced:
        """The result of replacing the document's content. Raises NotFound, Conflict (`document_duplicate`)."""
        return await self._db.write(lambda tx: _replace(tx, owner, document_id, version_id, sha256, size))

    async def exists(self, version_id: str) -> bool:
        """Whether the version exists, after all writes that are queued now."""
        sql = "SELECT 1 FROM document_versions WHERE id = :id"
        return await self._db.write(lambda tx: tx.one(sql, id=version_id)) is not None

    async def cancel(self, owner: str, document_id: str) -> None:
        """Cancel the document's queued and running jobs; nothing else changes. Raises NotFound."""

        def cancel(tx: Tx) -> None:
            _, _, pending = _check(tx, owner, document_id)
            jobs.drop_move(tx, document_id)
            jobs.cancel_ingest(tx, document_id, pending)
            document_rows.cancel(tx, pending)

        await self._db.write(cancel)

    async def retry(self, owner: str, document_id: str) -> None:
        """Run the document's jobs now that failed, were cancelled, or wait for their next attempt. Raises NotFound."""
        await self._db.write(lambda tx: _retry(tx, owner, document_id))

    async def rename(self, owner: str, document_id: str, name: str) -> None:
        """Change the name. Raises NotFound."""

        def change(tx: Tx) -> None:
            _check(tx, owner, document_id)
            document_rows.rename(tx, owner, document_id, name)

        await self._db.write(change)

    async def begin_delete(self, document_ids: Sequence[str]) -> list[Discarded]:
        """The versions whose data must be removed. From now on, searches and jobs ignore these documents."""

        def begin(tx: Tx) -> list[Discarded]:
            jobs.drop_of_documents(tx, document_ids)
            return document_rows.detach(tx, document_ids)

        return await self._db.write(begin)

    async def end_delete(self, document_ids: Sequence[str]) -> None:
        """Remove the rows of these documents, after all of their other data was removed."""
        await self._db.write(lambda tx: document_rows.delete(tx, document_ids))

    async def mark_cleaned(self, version_ids: Sequence[str]) -> None:
        """Mark superseded versions as cleaned: only their text is left. Versions without a text are deleted."""
        await self._db.write(lambda tx: document_rows.clean(tx, version_ids))

    async def half_deleted(self) -> list[str]:
        """The documents whose deletion was begun but not finished."""
        sql = "SELECT id FROM documents WHERE coalesce(active_version, pending_version) IS NULL"
        return [i for (i,) in await self._db.read(lambda tx: tx.rows(sql))]

    async def superseded(self, owner: str | None = None) -> list[Discarded]:
        """Superseded versions that were not cleaned, of one owner, or of all if `owner` is None."""
        return await self._db.read(lambda tx: document_rows.superseded(tx, owner))


def _check(tx: Tx, owner: str, document_id: str) -> tuple[str, str | None, str | None]:
    """Collection, active and pending version of a document. Raises NotFound."""
    sql = "SELECT collection_id, active_version, pending_version FROM documents WHERE id = :id AND owner = :owner"
    row = tx.one(sql, id=document_id, owner=owner)
    if row is None or (row[1] is None and row[2] is None):
        raise NotFound("No such document.")
    return row[0], row[1], row[2]


def _same_bytes(tx: Tx, collection_id: str, sha256: str) -> tuple[str, str, str] | None:
    """Document, version and status of the version with these bytes in a collection; None if there is none."""
    sql = (
        "SELECT document_id, id, status FROM document_versions "
        "WHERE collection_id = :collection_id AND sha256 = :sha256 AND status != 'superseded'"
    )
    row = tx.one(sql, collection_id=collection_id, sha256=sha256)
    return None if row is None else (row[0], row[1], row[2])


def _add(
    tx: Tx, owner: str, collection_id: str, version_id: str, name: str, sha256: str, size: int
) -> tuple[str, str, bool]:
    if (existing := _same_bytes(tx, collection_id, sha256)) is not None:
        existing_document, existing_version, status = existing
        if status in ("failed", "cancelled"):
            jobs.requeue(tx, existing_version)
        return existing_document, existing_version, False
    sql = "SELECT 1 FROM collections WHERE id = :id AND owner = :owner"
    if tx.one(sql, id=collection_id, owner=owner) is None:
        raise NotFound("No such collection. GET /collections lists yours.")
    document_id = new_id("doc")
    document_rows.insert_document(tx, owner, collection_id, document_id, name, version_id)
    _insert_version(tx, owner, collection_id, document_id, version_id, sha256, size)
    return document_id, version_id, True


def _insert_version(
    tx: Tx, owner: str, collection_id: str, document_id: str, version_id: str, sha256: str, size: int
) -> None:
    document_rows.insert_version(tx, owner, collection_id, document_id, version_id, sha256, size)
    jobs.queue(tx, owner, "ingest", collection_id, document_id, version_id)


def _replace(tx: Tx, owner: str, document_id: str, version_id: str, sha256: str, size: int) -> Replaced:
    collection_id, _, pending = _check(tx, owner, document_id)
    known_document, known_version, status = _same_bytes(tx, collection_id, sha256) or (None, None, None)
    if known_document is not None and known_document != document_id:
        raise Conflict(
            f"The collection holds these bytes already, as document {known_document}. Delete one of the two first.",
            code="document_duplicate",
            document_id=known_document,
        )
    if known_version is not None and known_version == pending:
        if status in ("failed", "cancelled"):
            jobs.requeue(tx, known_version)
        return Replaced(known_version, unchanged=True)
    discarded = None
    if pending is not None:
        jobs.drop_ingest(tx, pending)
        discarded = document_rows.discard(tx, pending)
    waiting = version_id if known_version is None else None
    if known_version is None:
        _insert_version(tx, owner, collection_id, document_id, version_id, sha256, size)
    if waiting != pending:
        document_rows.set_pending(tx, document_id, waiting)
    return Replaced(known_version or version_id, known_version is not None, discarded)


def _retry(tx: Tx, owner: str, document_id: str) -> None:
    _, _, pending = _check(tx, owner, document_id)
    status = tx.value("SELECT status FROM document_versions WHERE id = :id", id=pending)
    if pending is not None and status in ("failed", "cancelled"):
        jobs.requeue(tx, pending)
    jobs.end_waits_of_document(tx, document_id)
