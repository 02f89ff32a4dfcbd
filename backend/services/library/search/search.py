"""The search in an owner's documents, for POST /search and for answers."""

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backend.chains.passages import Passage
from backend.chains.retrieval.embeddings import Embedders
from backend.chains.retrieval.ranking import RankedPassage
from backend.services.library.search.engine import Mode, SearchEngine, SearchFindings, SearchPart, SearchRequest
from backend.services.library.search.explain import explain_search
from backend.services.telemetry.telemetry import SILENT, Telemetry
from backend.storage.library.chunks import ChunkRow, Chunks
from backend.storage.library.collections import CollectionRow, Collections
from backend.storage.library.documents import Documents

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

_CACHED_PAGE_MAPS = 256


@dataclass(frozen=True, slots=True)
class Scope:
    """Where to search: in these collections (None: all of the owner), and only in these documents (None: all)."""

    collections: tuple[str, ...] | None = None
    documents: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """The relevant passages, best first; the passages below RELEVANCE_FLOOR; the explanation, as JSON."""

    passages: list[Passage] = field(default_factory=list[Passage])
    irrelevant: list[Passage] = field(default_factory=list[Passage])
    explanation: dict[str, object] = field(default_factory=dict[str, object])


Metering = Callable[[str], AbstractContextManager[None]]
"""Opens a context in which an owner pays for embeddings. The budget may refuse: BudgetExceeded, PriceUnknown."""


class LibrarySearch:
    """Searches the collections of an owner. `floor`: RELEVANCE_FLOOR; `width`: maximum characters of a passage."""

    def __init__(
        self,
        documents: Documents,
        collections: Collections,
        chunks: Chunks,
        engine: SearchEngine,
        embedders: Embedders,
        *,
        floor: float,
        width: int,
        metering: Metering,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._documents = documents
        self._collections = collections
        self._chunks = chunks
        self._engine = engine
        self._embedders = embedders
        self._floor = floor
        self._width = width
        self._metering = metering
        self._telemetry = telemetry
        self._with_documents: set[str] = set()
        self._languages: dict[str, tuple[str | None, ...]] = {}
        self._pages: OrderedDict[str, list[tuple[int, int]]] = OrderedDict()

    def forget(self, owner: str) -> None:
        """Forget what is cached about the owner's documents: some were added, changed or removed."""
        self._with_documents.discard(owner)
        self._languages.clear()

    async def has_documents(self, owner: str) -> bool:
        """Whether the owner has a searchable document."""
        # Only "yes" is cached: a document may become ready while the database is asked.
        if owner not in self._with_documents and await self._documents.has_ready(owner):
            self._with_documents.add(owner)
        return owner in self._with_documents

    async def document_names(self, owner: str, scope: Scope, limit: int) -> list[str]:
        """The names of the searchable documents of the scope, newest first."""
        return await self._documents.names(owner, scope.collections, scope.documents, limit)

    async def check(self, owner: str, collections: Sequence[str] | None = None) -> None:
        """Raises EmbeddingMismatch if this server can't use the embedding of one of the collections (None: all)."""
        for row in await self._collections.by_owner(owner):
            if row.fingerprint is not None and (collections is None or row.id in collections):
                await self._embedders.by_fingerprint(row.fingerprint)

    async def _collection_rows(self, owner: str, collections: Sequence[str] | None) -> list[CollectionRow]:
        """The owner's collections with these ids (None: all)."""
        rows = await self._collections.by_owner(owner)
        return [row for row in rows if collections is None or row.id in collections]

    async def search(
        self,
        owner: str,
        queries: Sequence[tuple[str, float]],
        count: int,
        scope: Scope,
        *,
        mode: Mode = "hybrid",
        max_chars: int | None = None,
    ) -> SearchOutcome:
        """At most `count` passages for the queries (text, weight), the question first. See `SearchRequest`.

        Collections of other owners are ignored. Raises EmbeddingMismatch, EmbeddingFailed; BudgetExceeded and
        PriceUnknown if a provider embeds.
        """
        rows = await self._collection_rows(owner, scope.collections)
        parts = await self._parts(owner, rows, scope.documents)
        request = SearchRequest(_distinct(queries), count, self._width, mode, max_chars)
        collection_ids = [row.id for row in rows]
        with self._telemetry.retrieval(request.queries) as record:
            with self._metering(owner):
                findings = await self._engine.find(owner, parts, collection_ids, request) if parts else SearchFindings()
            record.seconds, record.passages = findings.seconds, len(findings.passages)
        passages = [await self._passage(ranked, findings) for ranked in findings.passages]
        relevant = [p for p in passages if p.relevance >= self._floor]
        irrelevant = [p for p in passages if p.relevance < self._floor]
        explanation = explain_search(request, findings, relevant, irrelevant, self._floor)
        return SearchOutcome(relevant, irrelevant, explanation)

    async def _parts(
        self, owner: str, rows: Sequence[CollectionRow], documents: Sequence[str] | None
    ) -> list[SearchPart]:
        ranges: dict[str, list[tuple[int, int]]] | None = None
        if documents is not None:
            ranges = {}
            for chunks in await self._chunks.ranges(owner, documents):
                ranges.setdefault(chunks.collection_id, []).append((chunks.first, chunks.last))
        return [
            await self._part(row, row.fingerprint, tuple(ranges[row.id]) if ranges is not None else None)
            for row in rows
            if row.fingerprint is not None and (ranges is None or row.id in ranges)
        ]

    async def _part(
        self, row: CollectionRow, fingerprint: str, ranges: tuple[tuple[int, int], ...] | None
    ) -> SearchPart:
        if row.id not in self._languages:
            self._languages[row.id] = tuple(await self._chunks.languages(row.id))
        return SearchPart(row.id, row.generation, fingerprint, self._languages[row.id], ranges)

    async def _passage(self, ranked: RankedPassage, findings: SearchFindings) -> Passage:
        row = findings.chunks[ranked.best.n]
        page = await self.page_at(row.version_id, ranked.best.start) if row.page is not None else None
        return Passage(
            chunk_id=f"chk_{row.n}",
            document_id=row.document_id,
            version=row.version_id,
            document_name=row.name,
            text=_text(ranked, findings.chunks),
            start=ranked.start,
            end=ranked.end,
            page=page,
            heading=row.heading,
            score=min(1.0, ranked.score),
            relevance=findings.relevance(ranked),
            context=row.context,
        )

    async def similarity(self, owner: str, text: str, others: Sequence[str], known: "dict[str, Vector]") -> list[float]:
        """Cosines between a text and each of the others, computed by the default embedder.

        Vectors of `others` are added to `known`, and not computed again if they are in it.
        """
        new = [other for other in dict.fromkeys(others) if other not in known]
        embedder = self._embedders.default
        with self._metering(owner):
            vector, vectors = await asyncio.gather(embedder.embed_query(text), embedder.embed_passages(new))
        known.update(zip(new, vectors, strict=True))
        return [float(known[other] @ vector) for other in others]

    async def page_at(self, version: str, offset: int) -> int | None:
        """The page of a version that contains the code point `offset`; None if it has no pages."""
        if version not in self._pages:
            self._pages[version] = await self._documents.page_starts(version)
            if len(self._pages) > _CACHED_PAGE_MAPS:
                self._pages.popitem(last=False)
        pages = self._pages[version]
        at = bisect_right(pages, offset, key=lambda p: p[0]) - 1
        return pages[max(at, 0)][1] if pages else None


def _distinct(queries: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The queries without duplicates; the weights of the same text are added."""
    weights: dict[str, float] = {}
    for text, weight in queries:
        weights[text] = weights.get(text, 0.0) + weight
    return list(weights.items())


def _text(ranked: RankedPassage, chunks: dict[int, ChunkRow]) -> str:
    """The passage's text in the document, joined from the chunks that it is in."""
    numbers = range(ranked.sentences[0].n, ranked.sentences[-1].n + 1)
    text = "".join(chunks[n].text + (chunks[n].after or "") for n in numbers)
    start = chunks[numbers[0]].start
    return text[ranked.start - start : ranked.end - start]
