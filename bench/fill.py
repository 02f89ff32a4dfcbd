"""Fills a DATA_DIR through the server's own storage and index, since embedding a hundred thousand chunks takes an hour:
one text of each topic is embedded, and the vectors of its documents lie around that one."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.chains.retrieval import entries
from backend.chains.retrieval.embeddings import EmbeddingSettings, open_embedder
from backend.chains.retrieval.index import VectorIndex, index_key
from backend.config.groups.accounts import LOCAL
from backend.kit.ids import new_id
from backend.storage.engine.database import Database
from backend.storage.library.chunks import NewChunk
from backend.storage.library.collections import Collections
from backend.storage.library.document_rows import ParsedText
from backend.storage.library.jobs import Jobs
from backend.storage.library.versions import Versions

from .language import TOPICS, Language

MODEL = "minilm/all-MiniLM-L6-v2"
LANGUAGE = "english"
SPREAD = 1.0  # how far a vector lies from its topic's, beside that one's length
CHUNKS_A_DOCUMENT = 100
CHUNK = 480  # characters
BETWEEN = "\n\n"
_LEASE_MS = 600_000


@dataclass(frozen=True)
class Filled:
    """The ids that a search can be restricted to."""

    document_id: str
    collection_id: str


async def fill(data_dir: Path, chunks: int, language: Language) -> Filled:
    """Make so many chunks searchable, in documents of CHUNKS_A_DOCUMENT, all in the default collection."""
    data_dir.mkdir(parents=True, exist_ok=True)
    database, index = Database(data_dir / "streamforge.db"), VectorIndex(data_dir / "vectors")
    versions, jobs = Versions(database), Jobs(database)
    embedder = open_embedder(MODEL, EmbeddingSettings(data_dir / "cache"))
    random = np.random.default_rng(7)
    await index.open()
    try:
        centres = await embedder.embed_passages([language.text(topic, CHUNK) for topic in range(TOPICS)])
        collection = await Collections(database).default(LOCAL)
        key = index_key(collection.id, collection.generation)
        document_id = ""
        for number in range(chunks // CHUNKS_A_DOCUMENT):
            topic, name = number % TOPICS, f"document-{number}.txt"
            texts = [language.text(topic, CHUNK) for _ in range(CHUNKS_A_DOCUMENT)]
            text = BETWEEN.join(texts)
            sha256, size = hashlib.sha256(text.encode()).hexdigest(), len(text.encode())
            await versions.add(LOCAL, collection.id, new_id("ver"), name, sha256, size)
            job = await jobs.claim("bench", _LEASE_MS, "")
            assert job is not None
            parsed = ParsedText(text, {"pages": [], "headings": []}, "text/plain", None, LANGUAGE, None)
            first = await jobs.store_text(job, parsed, len(texts))
            assert first is not None
            vectors = _around(centres[topic], len(texts), random)
            await index.upsert(key, embedder.fingerprint, range(first, first + len(texts)), vectors)
            await jobs.finish(job, embedder.fingerprint, _rows(first, name, texts, vectors, random), {})
            document_id = job.document_id
        return Filled(document_id, collection.id)
    finally:
        await embedder.aclose()
        await index.close()
        await database.close()


def _around(centre: Any, count: int, random: np.random.Generator) -> Any:
    """Random vectors of length 1, as an array (count, dimension)."""
    noise = random.normal(size=(count, len(centre)))
    rows = centre + SPREAD * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _rows(first: int, name: str, texts: list[str], vectors: Any, random: np.random.Generator) -> list[NewChunk]:
    """The vectors of a chunk's sentences, which are similar to the chunk's own vector."""
    rows: list[NewChunk] = []
    start = 0
    for ordinal, text in enumerate(texts):
        spans = entries.sentence_offsets(text)
        about, body = entries.terms(entries.ChunkText(text, None, None, None), spans, name, LANGUAGE)
        matrix = np.vstack([vectors[ordinal], _around(vectors[ordinal], len(spans), random)])
        rows.append(
            NewChunk(
                n=first + ordinal,
                ordinal=ordinal,
                start=start,
                end=start + len(text),
                page=None,
                heading=None,
                context=None,
                text=text,
                after=BETWEEN if ordinal + 1 < len(texts) else None,
                spans=entries.pack_offsets(spans),
                vectors=entries.pack_vectors(matrix),
                about_terms=about,
                body_terms=body,
            )
        )
        start += len(text) + len(BETWEEN)
    return rows
