"""The rows of documents and of their versions. Only this module writes the tables documents and document_versions.

Every function is a part of its caller's commit.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backend.kit.times import now_ms
from backend.storage.engine.tx import Tx


@dataclass(frozen=True, slots=True)
class Discarded:
    """A version that is not used any more, so its chunks, vectors and file must be removed. `first` is the number of
    its first chunk.
    """

    id: str
    collection_id: str
    document_id: str
    first: int | None
    chunks: int | None


@dataclass(frozen=True, slots=True)
class ParsedText:
    """The canonical text of a file, with the file's properties that the parser detected."""

    text: str
    map: dict[str, Any]
    media_type: str
    title: str | None
    language: str | None
    pages: int | None


_DISCARDED = "id, collection_id, document_id, first_chunk, chunks"


# Documents.


def insert_document(tx: Tx, owner: str, collection_id: str, document_id: str, name: str, version_id: str) -> None:
    """Store a document whose first version is pending."""
    tx.execute(
        "INSERT INTO documents (id, owner, collection_id, name, pending_version, created_at, updated_at) "
        "VALUES (:id, :owner, :collection_id, :name, :version_id, :now, :now)",
        id=document_id,
        owner=owner,
        collection_id=collection_id,
        name=name,
        version_id=version_id,
        now=now_ms(),
    )


def rename(tx: Tx, owner: str, document_id: str, name: str) -> None:
    """Change the name of the document."""
    sql = "UPDATE documents SET name = :name, updated_at = :now WHERE id = :id AND owner = :owner"
    tx.execute(sql, name=name, now=now_ms(), id=document_id, owner=owner)


def touch(tx: Tx, document_id: str) -> None:
    """Set the time of the document's last change to now."""
    tx.execute("UPDATE documents SET updated_at = :now WHERE id = :id", now=now_ms(), id=document_id)


def set_pending(tx: Tx, document_id: str, version_id: str | None) -> None:
    """Set the version that will become the active one; None removes it."""
    sql = "UPDATE documents SET pending_version = :version_id, updated_at = :now WHERE id = :id"
    tx.execute(sql, version_id=version_id, now=now_ms(), id=document_id)


def activate(tx: Tx, document_id: str, version_id: str) -> None:
    """Make the pending version the active one, which searches use."""
    tx.execute(
        "UPDATE documents SET active_version = :version_id, pending_version = NULL, updated_at = :now WHERE id = :id",
        version_id=version_id,
        now=now_ms(),
        id=document_id,
    )
    tx.execute("UPDATE document_versions SET status = 'ready' WHERE id = :id", id=version_id)


def move(tx: Tx, document_id: str, collection_id: str) -> None:
    """Move the document with all its versions to another collection."""
    sql = "UPDATE documents SET collection_id = :collection_id, updated_at = :now WHERE id = :id"
    tx.execute(sql, collection_id=collection_id, now=now_ms(), id=document_id)
    sql = "UPDATE document_versions SET collection_id = :collection_id WHERE document_id = :id"
    tx.execute(sql, collection_id=collection_id, id=document_id)


def detach(tx: Tx, document_ids: Sequence[str]) -> list[Discarded]:
    """All versions of the documents, so that their data can be removed. The documents then have no version, which means
    that they are being deleted.
    """
    tx.execute("UPDATE documents SET active_version = NULL, pending_version = NULL WHERE id IN :ids", ids=document_ids)
    sql = f"UPDATE document_versions SET status = 'superseded' WHERE document_id IN :ids RETURNING {_DISCARDED}"
    return [Discarded(*row) for row in tx.rows(sql, ids=document_ids)]


def delete(tx: Tx, document_ids: Sequence[str]) -> None:
    """Remove the documents, except those with an active or a pending version."""
    sql = "DELETE FROM documents WHERE id IN :ids AND coalesce(active_version, pending_version) IS NULL"
    tx.execute(sql, ids=document_ids)


# Versions.


def insert_version(
    tx: Tx, owner: str, collection_id: str, document_id: str, version_id: str, sha256: str, size: int
) -> None:
    """Store a version with the status queued."""
    tx.execute(
        "INSERT INTO document_versions (id, owner, document_id, collection_id, sha256, size, status, created_at) "
        "VALUES (:id, :owner, :document_id, :collection_id, :sha256, :size, 'queued', :now)",
        id=version_id,
        owner=owner,
        document_id=document_id,
        collection_id=collection_id,
        sha256=sha256,
        size=size,
        now=now_ms(),
    )


def set_text(tx: Tx, version_id: str, new: ParsedText) -> None:
    """Store the version's text."""
    tx.execute(
        "UPDATE document_versions SET text = :text, map = :map, media_type = :media_type, title = :title, "
        "language = :language, pages = :pages WHERE id = :id",
        text=new.text,
        map=json.dumps(new.map),
        media_type=new.media_type,
        title=new.title,
        language=new.language,
        pages=new.pages,
        id=version_id,
    )


def set_chunk_numbers(tx: Tx, version_id: str, first: int, count: int) -> None:
    """Store the numbers of the version's chunks: `count` numbers from `first`."""
    sql = "UPDATE document_versions SET first_chunk = :first, chunks = :count WHERE id = :id"
    tx.execute(sql, first=first, count=count, id=version_id)


def requeue(tx: Tx, version_id: str) -> None:
    """Set the version's status to queued. The active version stays ready, so that it stays searchable."""
    tx.execute(
        "UPDATE document_versions SET status = iif(status = 'ready', 'ready', 'queued'), reason = NULL, "
        "reason_code = NULL WHERE id = :id",
        id=version_id,
    )


def cancel(tx: Tx, version_id: str | None) -> None:
    """Cancel the version if it is queued."""
    tx.execute("UPDATE document_versions SET status = 'cancelled' WHERE id = :id AND status = 'queued'", id=version_id)


def fail(tx: Tx, version_id: str, code: str, reason: str) -> None:
    """Store why a queued version can't be read or indexed."""
    tx.execute(
        "UPDATE document_versions SET status = 'failed', reason_code = :code, reason = :reason "
        "WHERE id = :id AND status = 'queued'",
        code=code,
        reason=reason,
        id=version_id,
    )


def supersede(tx: Tx, version_id: str) -> Discarded:
    """The active version, marked as superseded: another one takes its place. Its text is kept."""
    sql = f"UPDATE document_versions SET status = 'superseded' WHERE id = :id RETURNING {_DISCARDED}"
    return Discarded(*tx.rows(sql, id=version_id)[0])


def discard(tx: Tx, version_id: str) -> Discarded:
    """The version, marked as superseded and without its text. Only for versions that were never active."""
    sql = (
        "UPDATE document_versions SET status = 'superseded', text = NULL, map = NULL WHERE id = :id "
        f"RETURNING {_DISCARDED}"
    )
    return Discarded(*tx.rows(sql, id=version_id)[0])


def clean(tx: Tx, version_ids: Sequence[str]) -> None:
    """Mark superseded versions as cleaned: only their text is left. Versions without a text are deleted."""
    tx.execute(
        "DELETE FROM document_versions WHERE id IN :ids AND status = 'superseded' AND text IS NULL", ids=version_ids
    )
    tx.execute(
        "UPDATE document_versions SET first_chunk = NULL WHERE id IN :ids AND status = 'superseded'", ids=version_ids
    )


def superseded(tx: Tx, owner: str | None) -> list[Discarded]:
    """Superseded versions that were not cleaned, of one owner, or of all if `owner` is None."""
    sql = (
        f"SELECT {_DISCARDED} FROM document_versions WHERE status = 'superseded' AND (first_chunk IS NOT NULL "
        "OR text IS NULL) AND (:owner IS NULL OR owner = :owner)"
    )
    return [Discarded(*row) for row in tx.rows(sql, owner=owner)]
