"""How far the jobs are, and the bell that tells watchers of a document that something changed."""

import asyncio
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from typing_extensions import override

from backend.storage.library.documents import DocumentRow
from backend.storage.library.jobs import JobRow

STAGES = ("parsing", "chunking", "embedding", "indexing")
"""The stages of a job that has begun, in their order. A job that has not begun is in the stage "queued"."""


class JobObsolete(Exception):
    """The job's result is not needed any more: its document was deleted, cancelled or replaced, for example."""


class JobOutdated(Exception):
    """The collection's embedding or the document's collection changed meanwhile: the job must begin again."""


class JobBlocked(Exception):
    """Another job of the same document must end first."""


class JobProgress:
    """The stage of a job, the chunks that are done, and the seconds spent in each stage.

    `on_change` is called at each change.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.stage = "queued"
        self.done = 0
        self.total = 0
        self._done_here = 0
        self._seconds: dict[str, float] = {}
        self._resumed_at = time.monotonic()
        self._on_change = on_change

    def enter(self, stage: str) -> None:
        """Begin a stage."""
        if stage != self.stage:
            self.pause()
            self.stage = stage
            self._on_change()

    def pause(self) -> None:
        """Stop counting seconds until `resume`."""
        now = time.monotonic()
        self._seconds[self.stage] = self._seconds.get(self.stage, 0.0) + now - self._resumed_at
        self._resumed_at = now

    def resume(self) -> None:
        """Count seconds again."""
        self._resumed_at = time.monotonic()

    def count(self, done: int, total: int, *, by_earlier_attempt: bool = False) -> None:
        """`done` of `total` chunks are done. What an earlier attempt did doesn't count for the rate."""
        self._done_here += 0 if by_earlier_attempt else done - self.done
        self.done, self.total = done, total
        self._on_change()

    def seconds_by_stage(self) -> dict[str, float]:
        """Seconds spent in each stage, without the time in the queue."""
        seconds = dict(self._seconds)
        seconds[self.stage] = seconds.get(self.stage, 0.0) + time.monotonic() - self._resumed_at
        seconds.pop("queued", None)
        return seconds

    def as_json(self) -> dict[str, Any]:
        """The progress as the API and the database have it: `done`, `total`, `rate` in chunks per second, `seconds` by
        stage."""
        seconds = self.seconds_by_stage()
        fields: dict[str, Any] = {"seconds": {stage: round(spent, 3) for stage, spent in seconds.items()}}
        if self.total:
            fields |= {"done": self.done, "total": self.total}
        if self._done_here and (spent := seconds.get("embedding", 0.0)) > 0:
            fields["rate"] = round(self._done_here / spent, 2)
        return fields


@dataclass(frozen=True, slots=True)
class BoardEntry:
    """A job that a worker has begun, and how far it is."""

    job: JobRow
    progress: JobProgress


class ProgressBoard(Protocol):
    """The jobs that are under way, and the watchers of documents.

    Stages between "queued" and the end are here, not in the database. A board knows the jobs and the watchers of one
    process; several processes need one that they share.
    """

    @property
    def is_dismissed(self) -> bool:
        """Whether the server stops and watchers get no more changes."""
        ...

    def start(self, job: JobRow) -> JobProgress:
        """Put a job on the board. Its changes are announced to the watchers of its document."""
        ...

    def get(self, job_id: str) -> BoardEntry | None:
        """One job, if it is on the board."""
        ...

    def remove(self, job_id: str) -> None:
        """Take a job off the board, if it is there."""
        ...

    def entries(self) -> Sequence[BoardEntry]:
        """All jobs on the board."""
        ...

    def next_change(self, document_id: str) -> "AbstractContextManager[asyncio.Future[None]]":
        """A future that is done when something about the document changes.

        Enter the context before you read the document: then no change between the two is missed.
        """
        ...

    def announce(self, document_id: str) -> None:
        """Tell the watchers of a document that it changed."""
        ...

    def dismiss_watchers(self) -> None:
        """Let all watchers go, because the server stops."""
        ...


class LocalProgressBoard(ProgressBoard):
    """The board of a server with one process, in its memory."""

    def __init__(self) -> None:
        self._entries: dict[str, BoardEntry] = {}
        self._watchers: dict[str, set[asyncio.Future[None]]] = {}
        self._is_dismissed = False

    @property
    @override
    def is_dismissed(self) -> bool:
        return self._is_dismissed

    @override
    def start(self, job: JobRow) -> JobProgress:
        progress = JobProgress(lambda: self.announce(job.document_id))
        self._entries[job.id] = BoardEntry(job, progress)
        return progress

    @override
    def get(self, job_id: str) -> BoardEntry | None:
        return self._entries.get(job_id)

    @override
    def remove(self, job_id: str) -> None:
        self._entries.pop(job_id, None)

    @override
    def entries(self) -> Sequence[BoardEntry]:
        return list(self._entries.values())

    @contextmanager
    @override
    def next_change(self, document_id: str) -> Generator["asyncio.Future[None]"]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.setdefault(document_id, set()).add(future)
        try:
            yield future
        finally:
            watchers = self._watchers.get(document_id, set())
            watchers.discard(future)
            if not watchers:
                self._watchers.pop(document_id, None)

    @override
    def announce(self, document_id: str) -> None:
        for future in self._watchers.pop(document_id, ()):
            if not future.done():
                future.set_result(None)

    @override
    def dismiss_watchers(self) -> None:
        self._is_dismissed = True
        for document_id in list(self._watchers):
            self.announce(document_id)


def document_entries(board: ProgressBoard, document_id: str) -> list[BoardEntry]:
    """The jobs of a document that have begun."""
    return [entry for entry in board.entries() if entry.job.document_id == document_id]


def versions_in_stage(board: ProgressBoard, stage: str) -> list[str]:
    """The ids of the versions that are being ingested and are in this stage now."""
    return [e.job.version_id for e in board.entries() if e.job.kind == "ingest" and e.progress.stage == stage]


def embedding_progress(board: ProgressBoard, collection_id: str) -> JobProgress | None:
    """How far the re-embedding of a collection is; None while no worker is at it."""
    for entry in board.entries():
        if entry.job.kind == "embed" and entry.job.collection_id == collection_id:
            return entry.progress
    return None


def with_progress(row: DocumentRow, entries: Iterable[BoardEntry]) -> DocumentRow:
    """The document with the stages of its jobs: the database knows only "queued" and the end."""
    for entry in entries:
        job, progress = entry.job, entry.progress
        if job.kind == "move" and row.moving is not None:
            row = replace(row, moving=replace(row.moving, progress=progress.as_json()))
        elif job.version_id == row.version and row.status == "queued":
            row = replace(row, status=progress.stage, progress=progress.as_json())
        elif row.pending is not None and job.version_id == row.pending.version and row.pending.status == "queued":
            row = replace(row, pending=replace(row.pending, status=progress.stage, progress=progress.as_json()))
    return row
