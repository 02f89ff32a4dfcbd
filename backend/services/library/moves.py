"""Moves documents from one collection to another."""

from backend.errors import Conflict
from backend.kit.locks import KeyedLocks
from backend.services.library.documents import DocumentService
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.move import MoveJob
from backend.services.library.jobs.progress import JobBlocked, JobObsolete, JobOutdated, JobProgress, ProgressBoard
from backend.services.library.jobs.workers import JobWorkers
from backend.services.library.search.search import LibrarySearch

_ATTEMPTS = 5
"""How often a move begins again because something else changed the document."""


class Moves:
    """Moves at once if the vectors can be copied; otherwise a job re-embeds the document first."""

    def __init__(
        self,
        holdings: Holdings,
        documents: DocumentService,
        workers: JobWorkers,
        board: ProgressBoard,
        search: LibrarySearch,
        locks: KeyedLocks,
    ) -> None:
        self._holdings = holdings
        self._documents = documents
        self._workers = workers
        self._board = board
        self._search = search
        self._locks = locks

    async def move(self, owner: str, document_id: str, collection: str) -> None:
        """Move a document to the collection with this id or name, or queue the job that does.

        Raises NotFound, Conflict (`document_duplicate`; `document_busy` while it is being read), EmbeddingMismatch.
        """
        async with self._locks.get(document_id):
            row = await self._documents.get(owner, document_id)
            target = (await self._holdings.collections.get(owner, collection)).id
            if row.collection_id == target:
                return
            if row.status not in ("ready", "failed", "cancelled") or (row.pending and not row.is_settled):
                raise Conflict(
                    "The document is being read. Wait until it is ready, or cancel that (POST /documents/{id}/cancel).",
                    code="document_busy",
                )
            await self._search.check(owner, [target])
            await self._holdings.transfers.check_move(document_id, target)
            if await self._new_job(owner, document_id, target).can_copy_vectors():
                await self._move_now(owner, document_id, target)
            else:
                await self._holdings.transfers.begin_move(owner, document_id, target)
        self._search.forget(owner)
        self._workers.wake()
        self._board.announce(document_id)

    async def _move_now(self, owner: str, document_id: str, target: str) -> None:
        for _ in range(_ATTEMPTS):
            job = self._new_job(owner, document_id, target)
            try:
                while not await job.step():
                    pass
                return
            except JobObsolete:
                return
            except (JobOutdated, JobBlocked):
                continue
            except BaseException:
                await job.undo()
                raise
        raise Conflict("The document changes all the time. Try again.", code="document_busy")

    def _new_job(self, owner: str, document_id: str, target: str) -> MoveJob:
        return MoveJob(self._holdings, owner, document_id, target, JobProgress(lambda: None))
