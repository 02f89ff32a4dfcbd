"""From an uploaded file to a searchable document: read, cut, embed, index. Jobs are rows, so a restart goes on.

No half document is ever found: vectors are stored first, chunks and the active version follow in one commit, and a
hit without a chunk row is dropped by the search.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog

from backend.chains.retrieval.chunking import Chunk, chunk, indexed_text
from backend.chains.retrieval.embeddings import Embedder
from backend.chains.retrieval.index import VectorIndex
from backend.chains.retrieval.parsed import ParsedDocument
from backend.chains.retrieval.parser import Parser
from backend.errors import DocumentUnreadable, EmbeddingFailed, EmbeddingMismatch, StreamForgeError
from backend.services.knowledge import Knowledge
from backend.storage.documents import Documents
from backend.storage.ids import new_id, now_ms
from backend.storage.jobs import JobRow, Jobs, NewChunk

log = structlog.get_logger(__name__)

LEASE_MS = 120_000
MAX_ATTEMPTS = 5
_EMBED_BATCH = 64


class _Gone(Exception):
    """The document was deleted while it was being worked on."""


class Ingestion:
    """The worker of this process, and the bell that tells watchers of a document's progress."""

    def __init__(
        self,
        documents: Documents,
        jobs: Jobs,
        index: VectorIndex,
        embedder: Embedder,
        parser: Parser,
        knowledge: Knowledge,
        files: Path,
        chunk_size: int,
    ) -> None:
        self._documents = documents
        self._jobs = jobs
        self._index = index
        self._embedder = embedder
        self._parser = parser
        self._knowledge = knowledge
        self._files = files
        self._chunk_size = chunk_size
        self._instance_id = new_id("ins")
        self._work = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._watchers: dict[str, set[asyncio.Future[None]]] = {}
        self.dismissed = False

    async def open(self) -> None:
        """Go on with the jobs that an earlier process left, and take new ones."""
        await self._jobs.release()
        await self._sweep()
        self._worker = asyncio.create_task(self._run(), name="ingestion")

    async def close(self) -> None:
        """Stop; an unfinished job goes on at the next start."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self._parser.aclose()

    def wake(self) -> None:
        """There is a new job."""
        self._work.set()

    @contextmanager
    def next_change(self, document_id: str) -> Generator["asyncio.Future[None]"]:
        """Done when something about the document changes; ask before you read, so that nothing is missed between."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.setdefault(document_id, set()).add(future)
        try:
            yield future
        finally:
            watchers = self._watchers.get(document_id, set())
            watchers.discard(future)
            if not watchers:
                self._watchers.pop(document_id, None)

    def announce(self, document_id: str) -> None:
        """Tell the watchers of a document that it changed."""
        for future in self._watchers.pop(document_id, ()):
            if not future.done():
                future.set_result(None)

    def dismiss_watchers(self) -> None:
        """The server stops: nobody is told of changes any more."""
        self.dismissed = True
        for document_id in list(self._watchers):
            self.announce(document_id)

    async def _run(self) -> None:
        while True:
            self._work.clear()
            try:
                while (job := await self._jobs.claim(self._instance_id, LEASE_MS)) is not None:
                    await self._process(job)
            except StreamForgeError as error:
                log.warning("ingestion_paused", code=error.code)
            except Exception:
                log.exception("ingestion_crashed")
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self._work.wait()

    async def _process(self, job: JobRow) -> None:
        began = time.monotonic()
        try:
            chunks = await _Ingest(self, job).run()
            log.info("document_ready", document_id=job.document_id, chunks=chunks, seconds=_since(began))
        except _Gone:
            await self._index.delete_version(job.collection_id, job.version_id)
        except (DocumentUnreadable, EmbeddingMismatch) as error:
            await self._jobs.fail(job, error.code, error.message)
            log.info("document_failed", document_id=job.document_id, code=error.code)
        except EmbeddingFailed as error:
            await self._again(job, error.code, error.message)
        except (StreamForgeError, OSError):
            # The database or the disk: the job's lease runs out and it is taken up again.
            raise
        except Exception:
            log.exception("document_crashed", document_id=job.document_id)
            await self._again(job, "internal", "Something went wrong here. The server's log has the details.")
        finally:
            self._knowledge.changed(job.owner)
            self.announce(job.document_id)

    async def _again(self, job: JobRow, code: str, reason: str) -> None:
        if job.attempts + 1 >= MAX_ATTEMPTS:
            await self._jobs.fail(job, code, reason)
        else:
            await self._jobs.postpone(job, now_ms() + 2_000 * 2**job.attempts)

    async def _sweep(self) -> None:
        """Make index and files agree with the database: traces of a crash go, vectors that are missing come again."""
        known = await self._documents.version_ids()
        for path in await asyncio.to_thread(lambda: list(self._files.iterdir())):
            if path.name not in known:
                await asyncio.to_thread(path.unlink, missing_ok=True)
        for collection in await self._documents.collections():
            indexed = await self._index.versions(collection.id)
            for version in indexed - known:
                await self._index.delete_version(collection.id, version)
            for document_id in await self._documents.active_beyond(collection.id, indexed):
                log.info("document_indexed_again", document_id=document_id)
                await self._documents.requeue(document_id)

    # What one job needs of the worker.

    async def stage(self, job: JobRow, stage: str, progress: dict[str, Any]) -> None:
        """Say how far it is. Raises _Gone."""
        if not await self._jobs.stage(job, stage, progress, LEASE_MS):
            raise _Gone
        self.announce(job.document_id)

    async def read(self, job: JobRow) -> ParsedDocument:
        """The document as text: what an earlier attempt stored, or the file, read in the child process."""
        if job.parsed:
            text, stored, media_type, title = await self._jobs.load_text(job)
            fields = {"text": text, "media_type": media_type, "title": title, **stored}
            return msgspec.convert(fields, ParsedDocument)
        path = self._files / job.version_id
        try:
            parsed = await self._parser.parse(path, job.name)
        except FileNotFoundError:
            raise DocumentUnreadable("document_corrupt", "The stored file is gone. Upload it again.") from None
        await self._jobs.save_text(
            job,
            text=parsed.text,
            map={part: msgspec.to_builtins(getattr(parsed, part)) for part in ("pages", "headings", "contexts")},
            media_type=parsed.media_type,
            title=parsed.title,
            pages=len(parsed.pages) or None,
        )
        return parsed

    async def cut(self, parsed: ParsedDocument) -> list[Chunk]:
        """The chunks; off the loop, a long text takes a second."""
        return await asyncio.to_thread(chunk, parsed, self._chunk_size)

    async def embed(self, parsed: ParsedDocument, chunks: list[Chunk], told: Callable[[int], Awaitable[None]]) -> Any:
        """float32 (len(chunks), dimension)."""
        import numpy as np

        texts = [indexed_text(parsed, c) for c in chunks]
        pieces: list[Any] = []
        for at in range(0, len(texts), _EMBED_BATCH):
            pieces.append(await self._embedder.embed_passages(texts[at : at + _EMBED_BATCH]))
            await told(min(at + _EMBED_BATCH, len(texts)))
        return np.concatenate(pieces)

    async def index(self, job: JobRow, chunks: list[Chunk], vectors: Any) -> None:
        """Store the vectors; nothing finds them yet. Raises EmbeddingMismatch."""
        ids = [_chunk_id(job, c) for c in chunks]
        fingerprint = self._embedder.fingerprint
        await self._index.upsert(job.collection_id, fingerprint, ids, vectors, job.document_id, job.version_id)

    async def finish(self, job: JobRow, chunks: list[Chunk], progress: dict[str, Any]) -> None:
        """Everything else in one commit: now the document is found. Raises _Gone."""
        rows = [NewChunk(_chunk_id(job, c), c.ordinal, c.start, c.end, c.page, c.heading) for c in chunks]
        if not await self._jobs.finish(job, self._embedder.fingerprint, rows, progress):
            raise _Gone


class _Ingest:
    """One job, stage by stage."""

    def __init__(self, worker: Ingestion, job: JobRow) -> None:
        self._worker = worker
        self._job = job
        self._seconds: dict[str, float] = {}
        self._began = 0.0
        self._stage = ""

    async def run(self) -> int:
        """All stages; how many chunks the document has. Raises what `_process` handles."""
        worker, job = self._worker, self._job
        await self._enter("parsing")
        parsed = await worker.read(job)
        await self._enter("chunking")
        chunks = await worker.cut(parsed)
        if not chunks:
            raise DocumentUnreadable("document_empty", "The file holds no text. Upload one that does.")
        await self._enter("embedding", done=0, total=len(chunks))
        vectors = await worker.embed(parsed, chunks, lambda done: self._tell(done, len(chunks)))
        await self._enter("indexing", done=len(chunks), total=len(chunks))
        await worker.index(job, chunks, vectors)
        await worker.finish(job, chunks, self._progress(done=len(chunks), total=len(chunks)))
        return len(chunks)

    async def _enter(self, stage: str, **progress: int) -> None:
        now = time.monotonic()
        if self._stage:
            self._seconds[self._stage] = round(now - self._began, 3)
        self._stage, self._began = stage, now
        await self._worker.stage(self._job, stage, self._progress(**progress))

    async def _tell(self, done: int, total: int) -> None:
        await self._worker.stage(self._job, self._stage, self._progress(done=done, total=total))

    def _progress(self, **progress: int) -> dict[str, Any]:
        seconds = {**self._seconds, self._stage: round(time.monotonic() - self._began, 3)}
        return {**progress, "seconds": seconds}


def _chunk_id(job: JobRow, chunk: Chunk) -> str:
    """Deterministic, so that indexing again after a crash replaces and never adds."""
    return f"chk_{job.version_id.removeprefix('ver_')}_{chunk.ordinal}"


def _since(began: float) -> float:
    return round(time.monotonic() - began, 2)
