"""Fills a DATA_DIR through the server's own storage and index, since embedding a hundred thousand chunks takes an hour:
one text of each topic is embedded, and the vectors of its documents lie around that one."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.chains.retrieval.embeddings import EmbeddingSettings, open_embedder
from backend.chains.retrieval.index import VectorIndex
from backend.routers.keys import LOCAL
from backend.storage.database import Database
from backend.storage.documents import Documents
from backend.storage.ids import new_id
from backend.storage.jobs import Jobs, NewChunk

from .language import TOPICS, Language

MODEL = "minilm/all-MiniLM-L6-v2"
SPREAD = 1.0  # how far a vector lies from its topic's, beside that one's length
CHUNKS_A_DOCUMENT = 100
CHUNK = 480  # characters
_LEASE_MS = 600_000


@dataclass(frozen=True)
class Filled:
    """What a search can be restricted to."""

    document_id: str
    collection_id: str


async def fill(data_dir: Path, chunks: int, language: Language) -> Filled:
    """Make so many chunks searchable, in documents of CHUNKS_A_DOCUMENT, all in the default collection."""
    data_dir.mkdir(parents=True, exist_ok=True)
    database, index = Database(data_dir / "streamforge.db"), VectorIndex(data_dir / "vectors")
    documents, jobs = Documents(database), Jobs(database)
    embedder = open_embedder(MODEL, EmbeddingSettings(data_dir / "cache"))
    random = np.random.default_rng(7)
    await index.open()
    try:
        centres = await embedder.embed_passages([language.text(topic, CHUNK) for topic in range(TOPICS)])
        collection = await documents.collection(LOCAL)
        document_id = ""
        for number in range(chunks // CHUNKS_A_DOCUMENT):
            topic = number % TOPICS
            texts = [language.text(topic, CHUNK) for _ in range(CHUNKS_A_DOCUMENT)]
            text = "\n\n".join(texts)
            sha256, size = hashlib.sha256(text.encode()).hexdigest(), len(text.encode())
            await documents.add(LOCAL, collection.id, new_id("ver"), f"document-{number}.txt", sha256, size)
            job = await jobs.claim("bench", _LEASE_MS)
            assert job is not None
            await jobs.save_text(job, text=text, map={"pages": [], "headings": []}, media_type="text/plain", title=None)
            rows = _rows(job.version_id, texts)
            vectors = _around(centres[topic], len(rows), random)
            ids = [row.id for row in rows]
            await index.upsert(collection.id, embedder.fingerprint, ids, vectors, job.document_id, job.version_id)
            await jobs.finish(job, embedder.fingerprint, rows, {})
            document_id = job.document_id
        return Filled(document_id, collection.id)
    finally:
        await embedder.aclose()
        await index.close()
        await database.close()


def _around(centre: Any, count: int, random: np.random.Generator) -> Any:
    """(count, dimension), of length 1."""
    noise = random.normal(size=(count, len(centre)))
    rows = centre + SPREAD * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _rows(version_id: str, texts: list[str]) -> list[NewChunk]:
    rows: list[NewChunk] = []
    start = 0
    for ordinal, text in enumerate(texts):
        id = f"chk_{version_id.removeprefix('ver_')}_{ordinal}"
        rows.append(NewChunk(id, ordinal, start, start + len(text), None, None))
        start += len(text) + 2
    return rows
