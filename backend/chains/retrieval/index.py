"""The vectors of all collections. This is the only file that uses Chroma.

There is one Chroma collection for each generation of a library's collection (its `key`, see `index_key`). Queries have
no metadata filter: with 100k vectors, a filter takes fifty times as long as the query itself. The database is the
truth: the caller drops hits of versions that are not active. Chroma's client is synchronous, and its SQLite allows one
writer, so every call runs in one thread that belongs to the index.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from backend.chains.retrieval import index_files
from backend.errors import EmbeddingMismatch, StorageFull, StreamForgeError, Unavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Chroma takes at most 5,461 rows in one call, because of the number of SQLite's variables.
_BATCH = 5000
_FINGERPRINT = "fingerprint"
# With Chroma's defaults (16 neighbours, 100 candidates), queries miss chunks that are unlike all others: in 18,000
# vectors, they missed 21 of 60 such chunks. With these settings they missed none (sometimes one: the graph is random).
# The price: 6 ms per query instead of 2, and 1,000 vectors per second instead of 4,000.
_HNSW = {"space": "cosine", "max_neighbors": 64, "ef_construction": 400, "ef_search": 800}
_PREFIX = "sf-"

Hit = tuple[int, float]
"""A chunk's number and the cosine of its vector to the query, 1 for the same direction."""
_Upsert = tuple[list[str], "Vectors", "asyncio.Future[None]"]


class IndexDamaged(Unavailable):
    """The vectors can't be used, because their files are damaged or gone. They are rebuilt."""


def index_key(collection_id: str, generation: int) -> str:
    """The key of a generation of a collection."""
    return f"{collection_id}-{generation}"


class VectorIndex:
    """Vectors on disk under `path`, by the numbers of their chunks.

    Call `open()` first and `close()` last; calls may come from any task. A key's Chroma collection is created with its
    first vectors. Only one process may have a path open: the caller must hold a lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: ThreadPoolExecutor | None = None
        self._client: Any = None
        self._collections: dict[str, Any] = {}
        self._waiting: dict[tuple[str, str], list[_Upsert]] = {}
        self._storing: asyncio.Task[None] | None = None
        self.on_damage: Callable[[str], None] = _ignore
        """Called with a description when the vectors turn out to be damaged."""

    @property
    def is_open(self) -> bool:
        """Whether the index is open."""
        return self._thread is not None

    @property
    def path(self) -> Path:
        """The folder of the files."""
        return self._path

    async def open(self) -> None:
        """Create or open the files under the path. Imports chromadb (about a second), off the event loop.

        Raises IndexDamaged.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "vector-index")
            try:
                await self._run(self._open)
            except BaseException:
                self._thread.shutdown(wait=False)
                self._thread = None
                raise

    async def reset(self) -> None:
        """Remove all vectors and open an empty index, also if the present one can't be opened."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "vector-index")
        await asyncio.get_running_loop().run_in_executor(self._thread, self._reset)

    async def close(self) -> None:
        """Finish what is queued and release every file. A second call does nothing."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)

    async def upsert(self, key: str, fingerprint: str, numbers: Sequence[int], vectors: "Vectors") -> None:
        """Store the vectors, (len(numbers), dimension), of these chunks; vectors that exist are replaced.

        Calls that wait while another one is stored are stored together: Chroma takes as long for a few vectors as for
        some dozen. Raises EmbeddingMismatch if the key has vectors of another embedding.
        """
        if len(numbers) != len(vectors):
            raise ValueError(f"{len(numbers)} numbers for {len(vectors)} vectors")
        if self._thread is None:
            raise RuntimeError("the vector index is not open")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((key, fingerprint), []).append((_ids(numbers), vectors, done))
        if self._storing is None:
            self._storing = asyncio.create_task(self._store(), name="vector-upserts")
        await done

    async def _store(self) -> None:
        """Store what waits, until nothing waits. Vectors of a caller that was cancelled meanwhile are stored, too."""
        try:
            while self._waiting:
                target = next(iter(self._waiting))
                calls = self._waiting.pop(target)
                try:
                    await self._run(self._upsert, *target, calls)
                except Exception as error:
                    for *_, done in calls:
                        if not done.done():
                            done.set_exception(error)
                for *_, done in calls:
                    if not done.done():
                        done.set_result(None)
        finally:
            self._storing = None

    async def query(self, key: str, fingerprint: str, vector: "Vectors", k: int) -> list[Hit]:
        """The k chunks closest to `vector`, (dimension,), best first; [] if the key has no vectors.

        Raises EmbeddingMismatch if the key has vectors of another embedding.
        """
        return await self._run(self._query, key, fingerprint, vector, k)

    async def vectors(self, key: str, numbers: Sequence[int]) -> tuple[list[int], "Vectors"]:
        """The numbers of those chunks that have vectors, and the vectors, (n, dimension), in the same order."""
        return await self._run(self._vectors, key, list(numbers))

    async def present(self, key: str, numbers: Sequence[int]) -> set[int]:
        """The numbers of those chunks that have vectors."""
        numbers_found: set[int] = set()
        for at in range(0, len(numbers), _BATCH):
            numbers_found |= await self._run(self._present, key, _ids(numbers[at : at + _BATCH]))
        return numbers_found

    async def delete(self, key: str, numbers: Sequence[int]) -> int:
        """Remove the vectors of these chunks. Returns how many there were."""
        removed = 0
        for at in range(0, len(numbers), _BATCH):
            removed += await self._run(self._delete, key, _ids(numbers[at : at + _BATCH]))
        return removed

    async def drop(self, key: str) -> None:
        """Remove all vectors of a key. It may then begin with another embedding."""
        await self._run(self._drop, key)

    async def count(self, key: str) -> int:
        """The number of vectors of a key."""
        return await self._run(self._count, key)

    async def numbers(self, key: str) -> list[int]:
        """The numbers of all chunks that have vectors under a key, sorted. This reads the whole key: for the sweep."""
        return await self._run(self._numbers, key)

    async def keys(self) -> set[str]:
        """All keys that have vectors, for the sweep."""
        return await self._run(self._keys)

    async def _run(self, call: Callable[..., T], *arguments: object) -> T:
        if self._thread is None:
            raise RuntimeError("the vector index is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, _guarded, self._path, call, *arguments
            )
        except IndexDamaged as error:
            self.on_damage(str(error.__cause__)[:300])
            raise

    # The methods below run in the index's own thread.

    def _open(self) -> None:
        import chromadb
        from chromadb.config import Settings

        self._path.mkdir(parents=True, exist_ok=True)
        if (damage := index_files.find_damage(self._path)) is not None:
            raise _FilesDamaged(damage)
        # Without this, Chroma would read an .env file in the working directory.
        settings = Settings(_env_file=None, anonymized_telemetry=False)  # pyright: ignore[reportCallIssue]
        self._client = chromadb.PersistentClient(str(self._path.resolve()), settings)

    def _close(self) -> None:
        self._collections.clear()
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _reset(self) -> None:
        try:
            self._close()
        except BaseException as error:
            log.info("vectors_not_closed", error=type(error).__name__)
        from chromadb.api.shared_system_client import SharedSystemClient

        # Otherwise Chroma would use the files that it had opened under this path.
        SharedSystemClient.clear_system_cache()
        index_files.remove_files(self._path)
        self._open()

    def _find(self, key: str) -> Any | None:
        from chromadb.errors import NotFoundError

        if key not in self._collections:
            try:
                collection = self._client.get_collection(_PREFIX + key, embedding_function=None)
            except NotFoundError:
                return None
            self._collections[key] = collection
        return self._collections[key]

    def _matching(self, key: str, fingerprint: str) -> Any | None:
        collection = self._find(key)
        if collection is not None and (stored := collection.metadata[_FINGERPRINT]) != fingerprint:
            if collection.count() == 0:
                self._drop(key)
                return None
            raise EmbeddingMismatch(
                f"This collection holds vectors of {stored}, not of {fingerprint}. Embed it anew "
                "(POST /collections/{id}/embed)."
            )
        return collection

    def _upsert(self, key: str, fingerprint: str, calls: "list[_Upsert]") -> None:
        import numpy as np

        collection = self._matching(key, fingerprint)
        if collection is None:
            collection = self._collections[key] = self._client.create_collection(
                _PREFIX + key,
                configuration={"hnsw": _HNSW},
                metadata={_FINGERPRINT: fingerprint},
                embedding_function=None,
            )
        ids = [n for call in calls for n in call[0]]
        vectors = np.concatenate([call[1] for call in calls])
        for at in range(0, len(ids), _BATCH):
            collection.upsert(ids=ids[at : at + _BATCH], embeddings=vectors[at : at + _BATCH])

    def _query(self, key: str, fingerprint: str, vector: Any, k: int) -> list[Hit]:
        collection = self._matching(key, fingerprint)
        if collection is None or k < 1:
            return []
        hits = collection.query(query_embeddings=[vector], n_results=k, include=["distances"])
        return [(int(n), 1.0 - distance) for n, distance in zip(hits["ids"][0], hits["distances"][0], strict=True)]

    def _vectors(self, key: str, numbers: list[int]) -> tuple[list[int], Any]:
        import numpy as np

        collection = self._find(key)
        if collection is None or not numbers:
            return [], np.empty((0, 0), np.float32)
        rows = collection.get(ids=_ids(numbers), include=["embeddings"])
        return [int(n) for n in rows["ids"]], np.asarray(rows["embeddings"], np.float32)

    def _present(self, key: str, ids: list[str]) -> set[int]:
        collection = self._find(key)
        return set() if collection is None else {int(n) for n in collection.get(ids=ids, include=[])["ids"]}

    def _delete(self, key: str, ids: list[str]) -> int:
        collection = self._find(key)
        if collection is None:
            return 0
        there: list[str] = collection.get(ids=ids, include=[])["ids"]
        if there:
            collection.delete(ids=there)
        return len(there)

    def _drop(self, key: str) -> None:
        if self._find(key) is not None:
            self._client.delete_collection(_PREFIX + key)
            del self._collections[key]

    def _count(self, key: str) -> int:
        collection = self._find(key)
        return 0 if collection is None else collection.count()

    def _numbers(self, key: str) -> list[int]:
        collection = self._find(key)
        return sorted(int(n) for n in collection.get(include=[])["ids"]) if collection is not None else []

    def _keys(self) -> set[str]:
        names = (collection.name for collection in self._client.list_collections())
        return {name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)}


def _ids(numbers: Sequence[int]) -> list[str]:
    return [str(n) for n in numbers]


class _FilesDamaged(Exception):
    """The files of the index can't be right."""


def _guarded(path: Path, call: Callable[..., T], *arguments: object) -> T:
    """The result of a call of Chroma. Raises our own errors: IndexDamaged for whatever Chroma doesn't expect."""
    try:
        return call(*arguments)
    except StreamForgeError:
        raise
    except BaseException as error:
        # Not Exception: a panic of Chroma's native code is none.
        text = str(error).lower()
        if "disk is full" in text or "no space left" in text or index_files.is_disk_full(path):
            raise StorageFull.on_server() from error
        if "database is locked" in text:
            raise Unavailable("The vectors are busy. Try again in a moment.", code="storage_busy") from error
        raise IndexDamaged(
            "The vectors of the documents are damaged and are being rebuilt. Try again in a moment."
        ) from error


def _ignore(damage: str) -> None:
    del damage
