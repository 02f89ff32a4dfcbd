"""Makes one version searchable: reads the file, cuts it, embeds and indexes it, a batch of chunks at a time.

Every batch is stored as soon as it has vectors, but searches don't find it yet; the last commit makes the version the
active one. So searches find a document completely or not at all, and an interrupted job continues where it was.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from backend.chains.reading.parsed import ParsedDocument
from backend.chains.reading.parser import Parser
from backend.chains.retrieval import entries
from backend.chains.retrieval.chunking import Chunk, chunk
from backend.chains.retrieval.embeddings import Embedder
from backend.chains.retrieval.index import index_key
from backend.chains.text.terms import detect_language
from backend.errors import DocumentUnreadable
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.progress import JobObsolete, JobOutdated, JobProgress
from backend.storage.library.chunks import NewChunk
from backend.storage.library.document_rows import ParsedText
from backend.storage.library.jobs import JobRow

BATCH = 64
"""Number of chunks that are embedded in one step."""


class IngestJob:
    """The work of a job of kind `ingest`."""

    def __init__(self, holdings: Holdings, parser: Parser, chunk_size: int, job: JobRow, progress: JobProgress) -> None:
        self._holdings = holdings
        self._parser = parser
        self._chunk_size = chunk_size
        self._job = job
        self._progress = progress
        self._key = index_key(job.collection_id, job.generation)
        self._parsed: ParsedDocument | None = None
        self._language: str | None = None
        self._chunks: dict[int, Chunk] = {}
        self._todo: list[int] = []

    async def step(self) -> bool:
        """Embed and store one batch. Returns whether it was the last one.

        Raises JobObsolete, JobOutdated, DocumentUnreadable, EmbeddingError.
        """
        embedder = await self._holdings.embedders.by_fingerprint(self._job.fingerprint)
        parsed = self._parsed or await self._prepare()
        batch = self._todo[:BATCH]
        self._progress.enter("embedding")
        rows, vectors = await self._embed(embedder, parsed, batch)
        if batch:
            await self._holdings.index.upsert(self._key, embedder.fingerprint, batch, vectors)
        if len(batch) == len(self._todo):
            await self._finish(embedder.fingerprint, rows)
            return True
        job = self._job
        if not await self._holdings.chunks.add(job.collection_id, embedder.fingerprint, job.version_id, rows):
            raise JobObsolete
        del self._todo[: len(batch)]
        self._progress.count(self._progress.done + len(batch), len(self._chunks))
        return False

    async def _prepare(self) -> ParsedDocument:
        """Read the file, cut it and number its chunks; find out what an earlier attempt has done."""
        self._progress.enter("parsing")
        parsed, new = await self._read()
        self._progress.enter("chunking")
        chunks = await asyncio.to_thread(chunk, parsed, self._chunk_size)
        if not chunks:
            raise DocumentUnreadable("document_empty", "The file holds no text. Upload one that does.")
        first = await self._holdings.jobs.store_text(self._job, new, len(chunks))
        if first is None:
            raise JobObsolete
        self._chunks = {first + c.ordinal: c for c in chunks}
        done = await self._done_before(first) if self._job.first_chunk is not None else set[int]()
        self._todo = [n for n in self._chunks if n not in done]
        self._progress.count(len(done), len(chunks), by_earlier_attempt=True)
        self._parsed = parsed
        return parsed

    async def _read(self) -> tuple[ParsedDocument, ParsedText | None]:
        """The document as text, and the text if it is not stored yet.

        An earlier attempt may have stored it; otherwise the child process reads the file.
        """
        job = self._job
        if job.is_parsed:
            stored = await self._holdings.jobs.text(job.version_id)
            self._language = stored.language
            fields = {"text": stored.text, "media_type": stored.media_type, "title": stored.title, **stored.map}
            return await asyncio.to_thread(msgspec.convert, fields, ParsedDocument), None
        try:
            parsed = await self._parser.parse(self._holdings.files / job.version_id, job.name)
        except FileNotFoundError:
            raise DocumentUnreadable("document_corrupt", "The stored file is gone. Upload it again.") from None
        self._language = await asyncio.to_thread(detect_language, parsed.text)
        new = ParsedText(
            text=parsed.text,
            map={part: msgspec.to_builtins(getattr(parsed, part)) for part in ("pages", "headings", "contexts")},
            media_type=parsed.media_type,
            title=parsed.title,
            language=self._language,
            pages=len(parsed.pages) or None,
        )
        return parsed, new

    async def _done_before(self, first: int) -> set[int]:
        """The chunks that an earlier attempt stored, with the same offsets as now, and that have vectors."""
        job, holdings = self._job, self._holdings
        stored = await holdings.chunks.stored(job.version_id)
        if job.first_chunk != first:
            # The earlier attempt cut the text into another number of chunks: all of them are made again.
            await holdings.chunks.remove(job.collection_id, [job.version_id])
            old_first = job.first_chunk or 0
            await holdings.index.delete(self._key, range(old_first, old_first + (job.chunks or 0)))
            return set()
        same = [n for n, c in self._chunks.items() if (n, c.start, c.end) in stored]
        return await holdings.index.present(self._key, same)

    async def _embed(
        self, embedder: Embedder, parsed: ParsedDocument, batch: Sequence[int]
    ) -> tuple[list[NewChunk], Any]:
        """The rows of these chunks, to be stored, and their vectors, float32 (len(batch), dimension)."""
        import numpy as np

        texts = [entries.ChunkText.from_document(parsed, self._chunks[n]) for n in batch]
        offsets = [entries.sentence_offsets(text.text) for text in texts]
        matrices = await entries.embed(embedder, texts, offsets)
        rows = await asyncio.to_thread(
            lambda: [self._row(parsed, *row) for row in zip(batch, texts, offsets, matrices, strict=True)]
        )
        first = [matrix[0] for matrix in matrices]
        return rows, np.stack(first) if first else np.empty((0, embedder.dimension), np.float32)

    def _row(
        self, parsed: ParsedDocument, n: int, text: entries.ChunkText, offsets: entries.SentenceOffsets, vectors: Any
    ) -> NewChunk:
        c, following = self._chunks[n], self._chunks.get(n + 1)
        about, body = entries.terms(text, offsets, self._job.name, self._language)
        return NewChunk(
            n=n,
            ordinal=c.ordinal,
            start=c.start,
            end=c.end,
            page=c.page,
            heading=c.heading,
            context=text.context,
            text=text.text,
            after=parsed.text[c.end : following.start] if following is not None else None,
            spans=entries.pack_offsets(offsets),
            vectors=entries.pack_vectors(vectors),
            about_terms=about,
            body_terms=body,
        )

    async def _finish(self, fingerprint: str, rows: Sequence[NewChunk]) -> None:
        self._progress.enter("indexing")
        self._progress.count(len(self._chunks), len(self._chunks))
        finished = await self._holdings.jobs.finish(self._job, fingerprint, rows, self._progress.as_json())
        if finished.outcome == "gone":
            raise JobObsolete
        if finished.outcome == "changed":
            raise JobOutdated
        if finished.superseded is not None:
            await self._holdings.remove_versions([finished.superseded])
