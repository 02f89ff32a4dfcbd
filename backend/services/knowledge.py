"""Search in an owner's documents: the same for POST /search and for the answers."""

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from backend.chains.passages import Passage
from backend.chains.retrieval.embeddings import Embedders
from backend.chains.retrieval.index import Hit, VectorIndex, index_key
from backend.chains.words import words
from backend.storage.chunks import ChunkRow, Chunks
from backend.storage.collections import CollectionRow, Collections
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
    """Embedders, index and database, as one search."""

    def __init__(
        self,
        documents: Documents,
        chunks: Chunks,
        collections: Collections,
        index: VectorIndex,
        embedders: Embedders,
        floor: float,
    ) -> None:
        self._documents = documents
        self._chunks = chunks
        self._collections = collections
        self._index = index
        self._embedders = embedders
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

    async def check(self, owner: str, collections: Sequence[str] | None = None) -> None:
        """Raises EmbeddingMismatch when this server can't embed as one of the collections is embedded."""
        for row in await self._searched(owner, collections):
            if row.fingerprint is not None:
                await self._embedders.of(row.fingerprint)

    async def _searched(self, owner: str, collections: Sequence[str] | None) -> list[CollectionRow]:
        """Those of the owner's collections that are asked for (None: all)."""
        rows = await self._collections.of(owner)
        return [row for row in rows if collections is None or row.id in collections]

    async def search(
        self,
        owner: str,
        queries: Sequence[str],
        top_k: int,
        documents: Sequence[str] | None = None,
        collections: Sequence[str] | None = None,
    ) -> list[Passage]:
        """The best passages for the first query, at most `top_k`, best first; further queries add candidates.

        `documents` and `collections` restrict the search to these ids. Scores are 0 to 1: cosine and covered words,
        weighted 2 to 1. Raises EmbeddingMismatch, EmbeddingFailed.
        """
        best: dict[int, float] = {}
        searched = await self._searched(owner, collections)
        # Empty ones too: a document that moves into one during the search is still found where it was.
        for row in searched:
            if row.fingerprint is None:
                continue
            embedder = await self._embedders.of(row.fingerprint)
            for number, query in enumerate(dict.fromkeys(queries)):
                vector = await embedder.embed_query(query)
                for n, cosine in await self._near(owner, row, vector, top_k, documents):
                    best[n] = max(best.get(n, -1.0), cosine * (_SECOND_QUERY if number else 1.0))
        rows = await self._chunks.rows(owner, [row.id for row in searched], list(best))
        wanted = [w for w in (set(words(query)) for query in queries) if w]
        passages = [_passage(row, best[row.n], wanted) for row in rows]
        passages.sort(key=lambda p: -p.score)
        return passages[:top_k]

    async def _near(
        self,
        owner: str,
        row: CollectionRow,
        vector: "NDArray[np.float32]",
        top_k: int,
        documents: Sequence[str] | None,
    ) -> list[Hit]:
        count = max(_MIN_FETCH, _OVERFETCH * top_k)
        key, fingerprint = index_key(row.id, row.generation), row.fingerprint or ""
        if documents is None:
            return await self._index.query(key, fingerprint, vector, count)
        ranges = await self._chunks.ranges(owner, documents)
        numbers = [n for r in ranges if r.collection_id == row.id for n in range(r.first, r.last + 1)]
        return await self._index.score(key, fingerprint, vector, numbers)

    async def relevant(
        self,
        owner: str,
        queries: Sequence[str],
        top_k: int,
        documents: Sequence[str] | None,
        collections: Sequence[str] | None = None,
    ) -> list[Passage]:
        """As `search`, without what lies under the floor of relevance."""
        floor = self._floor / (1 + _COVERAGE)
        return [p for p in await self.search(owner, queries, top_k, documents, collections) if p.score >= floor]

    async def similarity(self, text: str, others: Sequence[str]) -> list[float]:
        """Cosines between a text and others."""
        if not others:
            return []
        one, many = await asyncio.gather(
            self._embedders.default.embed_query(text), self._embedders.default.embed_passages(others)
        )
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
    """The retriever of one conversation: an owner's documents, or some of them, in all collections or in some."""

    def __init__(
        self,
        knowledge: Knowledge,
        owner: str,
        top_k: int,
        documents: Sequence[str] | None,
        collections: Sequence[str] | None = None,
    ) -> None:
        self._knowledge = knowledge
        self._owner = owner
        self._top_k = top_k
        self._only = documents
        self._collections = collections

    async def has_documents(self) -> bool:
        """Whether anything searchable is there at all."""
        return await self._knowledge.has_documents(self._owner)

    async def retrieve(self, queries: Sequence[str]) -> list[Passage]:
        """Relevant passages, best first; maybe none."""
        return await self._knowledge.relevant(self._owner, queries, self._top_k, self._only, self._collections)

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
