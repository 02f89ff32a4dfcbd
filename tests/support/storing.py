"""Stores a document of one chunk in a database, without a server."""

from backend.chains.retrieval.entries import pack_offsets
from backend.kit.ids import new_id
from backend.storage.engine.database import Database
from backend.storage.library.chunks import NewChunk
from backend.storage.library.collections import Collections
from backend.storage.library.document_rows import ParsedText
from backend.storage.library.jobs import Jobs
from backend.storage.library.versions import Versions

TEXT = ParsedText("words", {}, "text/plain", None, None, None)


MODEL = "test/model:4"
VECTORS = bytes([127, 0, 0, 0] * 2)


def new_chunk(n: int, text: str = "words", ordinal: int = 0) -> NewChunk:
    spans = pack_offsets([(0, len(text))])
    return NewChunk(n, ordinal, 0, len(text), None, None, None, text, None, spans, VECTORS, "a txt", text)


async def ingested(database: Database, owner: str, sha: str = "sha") -> tuple[str, str, str, int]:
    """The ids of collection, document and version, and the chunk's number, of a new document with one chunk."""
    collection = await Collections(database).default(owner)
    version = new_id("ver")
    document, _, _ = await Versions(database).add(owner, collection.id, version, "a.txt", sha, 5)
    jobs = Jobs(database)
    job = await jobs.claim("me", 1000, "")
    assert job is not None
    n = await jobs.store_text(job, TEXT, 1)
    assert n is not None
    assert (await jobs.finish(job, MODEL, [new_chunk(n)], {})).outcome == "done"
    return collection.id, document, version, n
