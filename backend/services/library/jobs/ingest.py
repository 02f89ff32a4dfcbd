"""One version from its file to the search: read, cut, embedded, indexed, a batch of chunks at a time.

Every batch is stored as soon as it has vectors, and nothing finds it; the last commit makes the version the active one.
So a document is found whole or not at all, and whoever takes the job up again goes on where it was.
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
from backend.services.library.jobs.progress import Changed, Gone, JobProgress
from backend.storage.library.chunks import NewChunk
from backend.storage.library.document_rows import ParsedText
from backend.storage.library.jobs import JobRow

BATCH = 64


class IngestJob:
    """The work of a job of kind `ingest`."""

    def __init__(self, corpus: Holdings, parser: Parser, chunk_size: int, job: JobRow, stages: JobProgress) -> None:
        self._corpus = corpus
        self._parser = parser
        self._chunk_size = chunk_size
        self._job = job
        self._stages = stages
        self._key = index_key(job.collection_id, job.generation)
        self._parsed: ParsedDocument | None = None
        self._language: str | None = None
        self._chunks: dict[int, Chunk] = {}
        self._rest: list[int] = []

    async def step(self) -> bool:
        """One batch; whether it was the last. Raises Gone, Changed, DocumentUnreadable, EmbeddingError."""
        embedder = await self._corpus.embedders.of(self._job.fingerprint)
        parsed = self._parsed or await self._prepare()
        batch = self._rest[:BATCH]
        self._stages.enter("embedding")
        rows, vectors = await self._embed(embedder, parsed, batch)
        if batch:
            await self._corpus.index.upsert(self._key, embedder.fingerprint, batch, vectors)
        if len(batch) == len(self._rest):
            await self._finish(embedder.fingerprint, rows)
            return True
        job = self._job
        if not await self._corpus.chunks.add(job.collection_id, embedder.fingerprint, job.version_id, rows):
            raise Gone
        del self._rest[: len(batch)]
        self._stages.count(self._stages.done + len(batch), len(self._chunks))
        return False

    async def _prepare(self) -> ParsedDocument:
        """Read, cut, number; find out what an earlier attempt has done."""
        self._stages.enter("parsing")
        parsed, new = await self._read()
        self._stages.enter("chunking")
        chunks = await asyncio.to_thread(chunk, parsed, self._chunk_size)
        if not chunks:
            raise DocumentUnreadable("document_empty", "The file holds no text. Upload one that does.")
        first = await self._corpus.jobs.parsed(self._job, new, len(chunks))
        if first is None:
            raise Gone
        self._chunks = {first + c.ordinal: c for c in chunks}
        done = await self._done(first) if self._job.first_chunk is not None else set[int]()
        self._rest = [n for n in self._chunks if n not in done]
        self._stages.count(len(done), len(chunks), fresh=False)
        self._parsed = parsed
        return parsed

    async def _read(self) -> tuple[ParsedDocument, ParsedText | None]:
        """The document as text: what an earlier attempt stored, or the file, read in the child process."""
        job = self._job
        if job.parsed:
            stored = await self._corpus.jobs.text(job.version_id)
            self._language = stored.language
            fields = {"text": stored.text, "media_type": stored.media_type, "title": stored.title, **stored.map}
            return await asyncio.to_thread(msgspec.convert, fields, ParsedDocument), None
        try:
            parsed = await self._parser.parse(self._corpus.files / job.version_id, job.name)
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

    async def _done(self, first: int) -> set[int]:
        """The chunks that are stored as they are cut now, and have vectors."""
        job, corpus = self._job, self._corpus
        stored = await corpus.chunks.stored(job.version_id)
        if job.first_chunk != first:
            # Cut otherwise, into more or fewer: all of it is made anew.
            await corpus.chunks.remove(job.collection_id, [job.version_id])
            before = job.first_chunk or 0
            await corpus.index.delete(self._key, range(before, before + (job.chunks or 0)))
            return set()
        same = [n for n, c in self._chunks.items() if (n, c.start, c.end) in stored]
        return await corpus.index.present(self._key, same)

    async def _embed(
        self, embedder: Embedder, parsed: ParsedDocument, batch: Sequence[int]
    ) -> tuple[list[NewChunk], Any]:
        """Rows to be stored and vectors, float32 (len(batch), dimension), of these chunks."""
        import numpy as np

        texts = [entries.ChunkText.of(parsed, self._chunks[n]) for n in batch]
        spans = [entries.spans_of(text.text) for text in texts]
        matrices = await entries.embed(embedder, texts, spans)
        rows = await asyncio.to_thread(
            lambda: [self._row(parsed, *row) for row in zip(batch, texts, spans, matrices, strict=True)]
        )
        first = [matrix[0] for matrix in matrices]
        return rows, np.stack(first) if first else np.empty((0, embedder.dimension), np.float32)

    def _row(
        self, parsed: ParsedDocument, n: int, text: entries.ChunkText, spans: entries.SentenceOffsets, vectors: Any
    ) -> NewChunk:
        c, following = self._chunks[n], self._chunks.get(n + 1)
        about, body = entries.terms(text, spans, self._job.name, self._language)
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
            spans=entries.pack_spans(spans),
            vectors=entries.pack_vectors(vectors),
            about_terms=about,
            body_terms=body,
        )

    async def _finish(self, fingerprint: str, rows: Sequence[NewChunk]) -> None:
        self._stages.enter("indexing")
        self._stages.count(len(self._chunks), len(self._chunks))
        finished = await self._corpus.jobs.finish(self._job, fingerprint, rows, self._stages.told())
        if finished.outcome == "gone":
            raise Gone
        if finished.outcome == "changed":
            raise Changed
        if finished.superseded is not None:
            await self._corpus.remove_versions([finished.superseded])
