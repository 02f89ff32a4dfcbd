"""Changes of embedding: a collection's next generation, and documents that move between collections."""

import json
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from backend.errors import Conflict, NotFound
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx
from backend.storage.library import collections, document_rows, jobs
from backend.storage.library.document_rows import Discarded
from backend.storage.library.jobs import JobRow, Progress


@dataclass(frozen=True, slots=True)
class Embedding:
    """The job that embeds a collection's next generation. `model` is `provider/model`; `stage` is queued or failed."""

    collection_id: str
    model: str
    stage: str
    reason_code: str | None
    reason: str | None
    progress: Progress


@dataclass(frozen=True, slots=True)
class Movable:
    """The data for moving a document. The active version's chunks have the numbers from `first`, `chunks` of them."""

    collection_id: str
    active: str | None
    pending: Discarded | None
    pending_status: str | None
    first: int
    chunks: int


class Transfers:
    """Starts embeddings and moves, and completes each of them in one commit."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # A collection's next generation.

    async def begin_embed(self, owner: str, collection_id: str, model: str) -> None:
        """Queue the embedding of the next generation.

        Raises NotFound, and Conflict (`embedding_running`) while an embedding with another model is running.
        """
        await self._db.write(lambda tx: _begin_embed(tx, owner, collection_id, model))

    async def cancel_embed(self, collection_id: str) -> bool:
        """Stop the embedding; the collection stays unchanged. False: no embedding was running."""
        return await self._db.write(lambda tx: jobs.drop_embed(tx, collection_id))

    async def embeddings(self, collection_ids: list[str]) -> dict[str, Embedding]:
        """The running or failed embeddings of these collections, by collection id."""
        sql = (
            "SELECT collection_id, stage, reason_code, reason, progress FROM jobs "
            "WHERE kind = 'embed' AND collection_id IN :ids"
        )
        return {row[0]: _embedding(*row) for row in await self._db.read(lambda tx: tx.rows(sql, ids=collection_ids))}

    async def active(self, collection_id: str) -> dict[str, tuple[int, int]]:
        """The first chunk and the number of chunks of each active version of a collection, by version id."""
        sql = (
            "SELECT v.id, v.first_chunk, v.chunks FROM documents d JOIN document_versions v ON v.id = d.active_version "
            "WHERE d.collection_id = :collection_id"
        )
        rows = await self._db.read(lambda tx: tx.rows(sql, collection_id=collection_id))
        return {version: (first, chunks) for version, first, chunks in rows}

    async def flip_generation(self, job: JobRow, fingerprint: str, done: AbstractSet[str]) -> list[str] | None:
        """The active versions that are not in `done`; None: the job was cancelled.

        If none is missing, searches use the next generation from now on.
        """
        return await self._db.write(lambda tx: _flip_generation(tx, job, fingerprint, done))

    # A document that moves.

    async def movable(self, owner: str, document_id: str) -> Movable:
        """The data for moving a document. Raises NotFound."""
        return await self._db.read(lambda tx: _movable(tx, owner, document_id))

    async def check_move(self, document_id: str, target: str) -> None:
        """Raise Conflict (`document_duplicate`) if the target collection has the same bytes already."""
        await self._db.read(lambda tx: _check_duplicate(tx, document_id, target))

    async def begin_move(self, owner: str, document_id: str, target: str) -> None:
        """Queue a move that embeds the document again. It replaces an earlier move of the document."""

        def begin(tx: Tx) -> None:
            jobs.drop_move(tx, document_id)
            jobs.queue(tx, owner, "move", target, document_id, None)

        await self._db.write(begin)

    async def flip_collection(
        self, document_id: str, version_id: str | None, source: str, target: str, generation: int, fingerprint: str
    ) -> bool:
        """Whether the document is in `target` now. False: `version_id` is not the active version any more, a pending
        version is queued, or the target has another embedding. Raises Conflict (`document_duplicate`).
        """
        return await self._db.write(
            lambda tx: _flip_collection(tx, document_id, version_id, source, target, generation, fingerprint)
        )


def _embedding(collection_id: str, stage: str, code: str | None, reason: str | None, progress: str) -> Embedding:
    values: dict[str, Any] = json.loads(progress)
    model = values.pop("model", "")
    return Embedding(collection_id, model, stage, code, reason, values)


def _begin_embed(tx: Tx, owner: str, collection_id: str, model: str) -> None:
    sql = "SELECT 1 FROM collections WHERE id = :id AND owner = :owner"
    if tx.one(sql, id=collection_id, owner=owner) is None:
        raise NotFound("No such collection. GET /collections lists yours.")
    sql = "SELECT stage, progress FROM jobs WHERE collection_id = :collection_id AND kind = 'embed'"
    running = tx.one(sql, collection_id=collection_id)
    if running is not None and running[0] == "queued":
        if json.loads(running[1]).get("model") == model:
            return
        raise Conflict(
            "The collection is being embedded by another model. Cancel that first: DELETE /collections/{id}/embed.",
            code="embedding_running",
        )
    jobs.drop_embed(tx, collection_id)
    jobs.queue(tx, owner, "embed", collection_id, None, None, {"model": model})


def _flip_generation(tx: Tx, job: JobRow, fingerprint: str, done: AbstractSet[str]) -> list[str] | None:
    if not jobs.is_queued(tx, job.id):
        return None
    sql = "SELECT active_version FROM documents WHERE collection_id = :collection_id AND active_version IS NOT NULL"
    missing = [v for (v,) in tx.rows(sql, collection_id=job.collection_id) if v not in done]
    if not missing:
        collections.set_generation(tx, job.collection_id, job.generation + 1, fingerprint)
        jobs.drop(tx, job.id)
    return missing


def _movable(tx: Tx, owner: str, document_id: str) -> Movable:
    sql = (
        "SELECT d.collection_id, d.active_version, d.pending_version, v.first_chunk, v.chunks, p.status, "
        "p.collection_id, p.first_chunk, p.chunks FROM documents d "
        "LEFT JOIN document_versions v ON v.id = d.active_version "
        "LEFT JOIN document_versions p ON p.id = d.pending_version WHERE d.id = :id AND d.owner = :owner"
    )
    row = tx.one(sql, id=document_id, owner=owner)
    if row is None or (row[1] is None and row[2] is None):
        raise NotFound("No such document.")
    pending = Discarded(row[2], row[6], document_id, row[7], row[8]) if row[2] is not None else None
    return Movable(row[0], row[1], pending, row[5], row[3] or 0, row[4] or 0)


def _check_duplicate(tx: Tx, document_id: str, target: str) -> None:
    sql = (
        "SELECT other.document_id FROM document_versions own JOIN document_versions other "
        "ON other.sha256 = own.sha256 AND other.collection_id = :target AND other.status != 'superseded' "
        "WHERE own.document_id = :id AND own.status != 'superseded' AND other.document_id != own.document_id"
    )
    if (other := tx.value(sql, target=target, id=document_id)) is not None:
        raise Conflict(
            f"That collection holds these bytes already, as document {other}. Delete one of the two instead.",
            code="document_duplicate",
            document_id=other,
        )


def _flip_collection(
    tx: Tx,
    document_id: str,
    version_id: str | None,
    source: str,
    target: str,
    generation: int,
    fingerprint: str,
) -> bool:
    _check_duplicate(tx, document_id, target)
    sql = (
        "SELECT d.collection_id, d.active_version, p.status, c.generation, c.fingerprint FROM documents d "
        "JOIN collections c ON c.id = :target LEFT JOIN document_versions p ON p.id = d.pending_version "
        "WHERE d.id = :id"
    )
    row = tx.one(sql, target=target, id=document_id)
    if row is None or row[:2] != (source, version_id) or row[2] == "queued":
        return False
    if version_id is not None and (row[3] != generation or row[4] not in (None, fingerprint)):
        return False
    document_rows.move(tx, document_id, target)
    jobs.move(tx, document_id, target)
    if version_id is not None:
        collections.set_first_fingerprint(tx, target, fingerprint)
    return True
