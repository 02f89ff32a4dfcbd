"""Search in an owner's documents: the same for POST /search and for the answers."""

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from backend.chains.passages import Passage
from backend.chains.retrieval.embeddings import Embedder
from backend.chains.retrieval.index import Hit, VectorIndex, index_key
from backend.chains.words import words
from backend.errors import EmbeddingMismatch
from backend.storage.chunks import ChunkRow, Chunks
from backend.storage.documents import Documents

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OVERFETCH = 5
_MIN_FETCH = 30
_COVERAGE = 0.5
"""Weight of the share of the question's words that a passage holds, beside its cosine."""
_SECOND_QUERY = 0.9
_KEPT_MAPS = 256


class Knowledge:
    """Embedder, index and database, as one search."""

    def __init__(
        self, documents: Documents, chunks: Chunks, index: VectorIndex, embedder: Embedder, floor: float
    ) -> None:
        self._documents = documents
        self._chunks = chunks
        self._index = index
        self._embedder = embedder
        self._floor = floor
        self._ready: set[str] = set()
        self._pages: OrderedDict[str, list[tuple[int, int]]] = OrderedDict()

    def changed(self, owner: str) -> None:
        """Documents of the owner came or went."""
        self._ready.discard(owner)

    async def has_documents(self, owner: str) -> bool:
        """Whether the owner has anything searchable."""
        # Only a yes is remembered: a no may be out of date before it is.
        if owner not in self._ready and await self._documents.any_ready(owner):
            self._ready.add(owner)
        return owner in self._ready

    async def check(self, owner: str) -> None:
        """Raises EmbeddingMismatch when the owner's documents were embedded by another model than is set now."""
        await self._collection(owner)

    async def _collection(self, owner: str) -> str | None:
        """The id of the owner's collection, checked; None when there is nothing to search."""
        if not await self.has_documents(owner):
            return None
        collection = await self._documents.collection(owner)
        if collection.fingerprint not in (None, self._embedder.fingerprint):
            raise EmbeddingMismatch(
                f"Your documents were embedded by {collection.fingerprint}, and the server now uses "
                f"{self._embedder.fingerprint}. Set EMBEDDING_MODEL back, or delete them and upload them again."
            )
        return collection.id

    async def search(
        self, owner: str, queries: Sequence[str], top_k: int, documents: Sequence[str] | None = None
    ) -> list[Passage]:
        """The best passages for the first query, at most `top_k`, best first; further queries add candidates.

        `documents` restricts the search to these ids. Scores are 0 to 1: cosine and covered words, weighted 2 to 1.
        Raises EmbeddingMismatch, EmbeddingFailed.
        """
        collection_id = await self._collection(owner)
        if collection_id is None:
            return []
        best: dict[int, float] = {}
        for number, query in enumerate(dict.fromkeys(queries)):
            vector = await self._embedder.embed_query(query)
            for n, cosine in await self._near(owner, collection_id, vector, top_k, documents):
                best[n] = max(best.get(n, -1.0), cosine * (_SECOND_QUERY if number else 1.0))
        rows = await self._chunks.rows(owner, [collection_id], list(best))
        wanted = [w for w in (set(words(query)) for query in queries) if w]
        passages = [_passage(row, best[row.n], wanted) for row in rows]
        passages.sort(key=lambda p: -p.score)
        return passages[:top_k]

    async def _near(
        self, owner: str, collection_id: str, vector: "NDArray[np.float32]", top_k: int, documents: Sequence[str] | None
    ) -> list[Hit]:
        count = max(_MIN_FETCH, _OVERFETCH * top_k)
        key = index_key(collection_id, 1)
        if documents is None:
            return await self._index.query(key, self._embedder.fingerprint, vector, count)
        ranges = await self._chunks.ranges(owner, documents)
        numbers = [n for r in ranges for n in range(r.first, r.last + 1)]
        return await self._index.score(key, self._embedder.fingerprint, vector, numbers)

    async def relevant(
        self, owner: str, queries: Sequence[str], top_k: int, documents: Sequence[str] | None
    ) -> list[Passage]:
        """As `search`, without what lies under the floor of relevance."""
        floor = self._floor / (1 + _COVERAGE)
        return [p for p in await self.search(owner, queries, top_k, documents) if p.score >= floor]

    async def similarity(self, text: str, others: Sequence[str]) -> list[float]:
        """Cosines between a text and others."""
        if not others:
            return []
        one, many = await asyncio.gather(self._embedder.embed_query(text), self._embedder.embed_passages(others))
        return [float(x) for x in many @ one]

    async def page_at(self, version: str, offset: int) -> int | None:
        """The page of a version on which the code point `offset` stands."""
        if version not in self._pages:
            stored = await self._documents.version_map(version)
            self._pages[version] = [(p["start"], p["page"]) for p in stored.get("pages", ())]
            if len(self._pages) > _KEPT_MAPS:
                self._pages.popitem(last=False)
        pages = self._pages[version]
        at = bisect_right(pages, offset, key=lambda p: p[0]) - 1
        return pages[max(at, 0)][1] if pages else None


class OwnedKnowledge:
    """The retriever of one conversation: an owner's documents, or some of them."""

    def __init__(self, knowledge: Knowledge, owner: str, top_k: int, documents: Sequence[str] | None) -> None:
        self._knowledge = knowledge
        self._owner = owner
        self._top_k = top_k
        self._only = documents

    async def has_documents(self) -> bool:
        """Whether anything searchable is there at all."""
        return await self._knowledge.has_documents(self._owner)

    async def retrieve(self, queries: Sequence[str]) -> list[Passage]:
        """Relevant passages, best first; maybe none."""
        return await self._knowledge.relevant(self._owner, queries, self._top_k, self._only)

    async def similarity(self, text: str, others: Sequence[str]) -> list[float]:
        """Cosines between a text and others."""
        return await self._knowledge.similarity(text, others)

    async def page_at(self, version: str, offset: int) -> int | None:
        """The page on which the code point stands."""
        return await self._knowledge.page_at(version, offset)


def _passage(row: ChunkRow, cosine: float, wanted: list[set[str]]) -> Passage:
    """`wanted`: the words of each query; the passage counts for the query that it covers best."""
    held = set(words(f"{row.text} {row.heading or ''} {row.name}"))
    covered = max((len(w & held) / len(w) for w in wanted), default=0.0)
    score = (max(0.0, cosine) + _COVERAGE * covered) / (1 + _COVERAGE)
    return Passage(
        chunk_id=str(row.n),
        document_id=row.document_id,
        version=row.version_id,
        title=row.name,
        text=row.text,
        start=row.start,
        end=row.end,
        page=row.page,
        heading=row.heading,
        score=min(1.0, score),
    )
