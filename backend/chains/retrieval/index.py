"""The vectors of every collection. Chroma is behind this file and nowhere else.

One Chroma collection for each collection of ours, and no metadata filter in a query: at 100k vectors a filter
costs fifty times the query itself. The database is the truth; a hit whose version is not active is for the
caller to drop. Chroma's client is synchronous, and SQLite beneath it wants one writer: every call runs in one
thread of our own.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from backend.errors import EmbeddingMismatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

# Chroma takes 5,461 rows in one call, as many as SQLite has variables for.
_BATCH = 5000
_FINGERPRINT = "fingerprint"
# Chroma's own settings (16 neighbours, 100 candidates) don't find a passage that is unlike all others: in 18,000
# vectors they missed 21 of 60 such needles, these none (the graph is random: sometimes one). The price is 6 ms a query
# instead of 2, and 1,000 vectors a second instead of 4,000.
_HNSW = {"space": "cosine", "max_neighbors": 64, "ef_construction": 400, "ef_search": 800}


class Hit(msgspec.Struct, frozen=True):
    """One chunk near a query. `score` is the cosine, 1 for the same direction."""

    chunk_id: str
    document_id: str
    version_id: str
    score: float


class VectorIndex:
    """Vectors on disk under `path`. Use `open()` first and `close()` last; calls may come from any task.

    Collections come into being with their first vectors. One process at a time may have a path open: the
    caller locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: ThreadPoolExecutor | None = None
        self._client: Any = None
        self._collections: dict[str, Any] = {}

    async def open(self) -> None:
        """Create or open the files under the path. Imports chromadb (about a second), off the event loop."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "vector-index")
            try:
                await self._run(self._open)
            except BaseException:
                self._thread.shutdown(wait=False)
                self._thread = None
                raise

    async def close(self) -> None:
        """Finish what is queued and release every file. Again: does nothing."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)

    async def upsert(
        self,
        collection_id: str,
        fingerprint: str,
        ids: Sequence[str],
        vectors: "NDArray[np.float32]",
        document_id: str,
        version_id: str,
    ) -> None:
        """Store vectors, (len(ids), dimension), under the ids of their chunks; those that are there are
        replaced.

        Raises EmbeddingMismatch when the collection holds vectors of another embedding.
        """
        if len(ids) != len(vectors):
            raise ValueError(f"{len(ids)} ids for {len(vectors)} vectors")
        metadata = {"document_id": document_id, "version_id": version_id}
        for at in range(0, len(ids), _BATCH):
            part = slice(at, at + _BATCH)
            await self._run(self._upsert, collection_id, fingerprint, list(ids[part]), vectors[part], metadata)

    async def query(self, collection_id: str, fingerprint: str, vector: "NDArray[np.float32]", k: int) -> list[Hit]:
        """The k chunks nearest to `vector`, (dimension,), best first. [] when there is no such collection.

        Raises EmbeddingMismatch when the collection holds vectors of another embedding.
        """
        return await self._run(self._query, collection_id, fingerprint, vector, k)

    async def score(
        self, collection_id: str, fingerprint: str, vector: "NDArray[np.float32]", ids: Sequence[str]
    ) -> list[Hit]:
        """The cosines of these chunks to `vector`, exact, in no order; those without a vector are left out.

        For a search in a few documents: quicker than a filter in the query, and complete. Raises EmbeddingMismatch.
        """
        hits: list[Hit] = []
        for at in range(0, len(ids), _BATCH):
            hits += await self._run(self._score, collection_id, fingerprint, vector, list(ids[at : at + _BATCH]))
        return hits

    async def delete_version(self, collection_id: str, version_id: str) -> int:
        """Remove a version's vectors. Returns how many there were."""
        return await self._run(self._delete_version, collection_id, version_id)

    async def drop(self, collection_id: str) -> None:
        """Remove a collection with all of its vectors, if it exists. It may then begin with another
        embedding.
        """
        await self._run(self._drop, collection_id)

    async def count(self, collection_id: str) -> int:
        """How many vectors a collection has; 0 when there is none."""
        return await self._run(self._count, collection_id)

    async def versions(self, collection_id: str) -> set[str]:
        """The versions that have vectors in a collection. Reads all of it: for the sweep."""
        return await self._run(self._versions, collection_id)

    async def collections(self) -> set[str]:
        """The ids of all collections that exist here, for the sweep."""
        return await self._run(self._ids)

    async def _run(self, call: Callable[..., T], *arguments: object) -> T:
        if self._thread is None:
            raise RuntimeError("the vector index is not open")
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    # What follows runs in the index's own thread.

    def _open(self) -> None:
        import chromadb
        from chromadb.config import Settings

        self._path.mkdir(parents=True, exist_ok=True)
        # No .env: Chroma would read whatever lies in the working directory.
        settings = Settings(_env_file=None, anonymized_telemetry=False)  # pyright: ignore[reportCallIssue]
        self._client = chromadb.PersistentClient(str(self._path.resolve()), settings)

    def _close(self) -> None:
        self._collections.clear()
        client, self._client = self._client, None
        client.close()

    def _find(self, collection_id: str) -> Any | None:
        from chromadb.errors import NotFoundError

        if collection_id not in self._collections:
            try:
                found = self._client.get_collection(_name(collection_id), embedding_function=None)
            except NotFoundError:
                return None
            self._collections[collection_id] = found
        return self._collections[collection_id]

    def _matching(self, collection_id: str, fingerprint: str) -> Any | None:
        collection = self._find(collection_id)
        if collection is not None and (stored := collection.metadata[_FINGERPRINT]) != fingerprint:
            if collection.count() == 0:
                self._drop(collection_id)
                return None
            raise EmbeddingMismatch(
                f"This collection was embedded with {stored}, and the server now uses {fingerprint}. "
                f"Set EMBEDDING_MODEL back to {stored.rpartition(':')[0]}, or index the collection again."
            )
        return collection

    def _upsert(
        self, collection_id: str, fingerprint: str, ids: list[str], vectors: Any, metadata: dict[str, str]
    ) -> None:
        collection = self._matching(collection_id, fingerprint)
        if collection is None:
            collection = self._collections[collection_id] = self._client.create_collection(
                _name(collection_id),
                configuration={"hnsw": _HNSW},
                metadata={_FINGERPRINT: fingerprint},
                embedding_function=None,
            )
        collection.upsert(ids=ids, embeddings=vectors, metadatas=[metadata] * len(ids))

    def _query(self, collection_id: str, fingerprint: str, vector: Any, k: int) -> list[Hit]:
        collection = self._matching(collection_id, fingerprint)
        if collection is None or k < 1:
            return []
        found = collection.query(query_embeddings=[vector], n_results=k, include=["metadatas", "distances"])
        rows = zip(found["ids"][0], found["metadatas"][0], found["distances"][0], strict=True)
        return [Hit(id, meta["document_id"], meta["version_id"], 1.0 - far) for id, meta, far in rows]

    def _score(self, collection_id: str, fingerprint: str, vector: Any, ids: list[str]) -> list[Hit]:
        collection = self._matching(collection_id, fingerprint)
        if collection is None:
            return []
        found = collection.get(ids=ids, include=["metadatas", "embeddings"])
        scores: Sequence[float] = found["embeddings"] @ vector if found["ids"] else []
        rows = zip(found["ids"], found["metadatas"], scores, strict=True)
        return [Hit(id, meta["document_id"], meta["version_id"], float(score)) for id, meta, score in rows]

    def _delete_version(self, collection_id: str, version_id: str) -> int:
        collection = self._find(collection_id)
        removed = 0
        # By ids, since Chroma deletes by `where` only as many rows as SQLite has variables for.
        while collection is not None:
            ids = collection.get(where={"version_id": version_id}, limit=_BATCH, include=[])["ids"]
            if not ids:
                break
            collection.delete(ids=ids)
            removed += len(ids)
        return removed

    def _drop(self, collection_id: str) -> None:
        if self._find(collection_id) is not None:
            self._client.delete_collection(_name(collection_id))
            del self._collections[collection_id]

    def _count(self, collection_id: str) -> int:
        collection = self._find(collection_id)
        return 0 if collection is None else collection.count()

    def _versions(self, collection_id: str) -> set[str]:
        collection = self._find(collection_id)
        found: set[str] = set()
        for offset in range(0, collection.count() if collection is not None else 0, _BATCH):
            page = collection.get(limit=_BATCH, offset=offset, include=["metadatas"])  # type: ignore[union-attr]
            found.update(metadata["version_id"] for metadata in page["metadatas"])
        return found

    def _ids(self) -> set[str]:
        names = (collection.name for collection in self._client.list_collections())
        return {name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)}


_PREFIX = "sf-"


def _name(collection_id: str) -> str:
    """Chroma's names have at least three characters."""
    return _PREFIX + collection_id
