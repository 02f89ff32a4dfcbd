"""Search in an owner's documents: the same for POST /search and for the answers."""

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
from backend.services.library.search.engine import Found, Mode, SearchEngine, SearchPart, SearchRequest
from backend.services.library.search.explain import trace_of
from backend.services.telemetry.telemetry import SILENT, Telemetry
from backend.storage.library.chunks import ChunkRow, Chunks
from backend.storage.library.collections import CollectionRow, Collections
from backend.storage.library.documents import Documents

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

_KEPT_MAPS = 256


@dataclass(frozen=True, slots=True)
class Scope:
    """Where to look: collections (None: all of the owner's), and in them documents (None: all)."""

    collections: tuple[str, ...] | None = None
    documents: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Passages, best first; what lies under the floor of relevance; and how they were found (JSON-able)."""

    passages: list[Passage] = field(default_factory=list[Passage])
    irrelevant: list[Passage] = field(default_factory=list[Passage])
    trace: dict[str, object] = field(default_factory=dict[str, object])


Metering = Callable[[str], AbstractContextManager[None]]
"""Lets an owner pay for what is embedded within. That may be refused: BudgetExceeded, PriceUnknown."""


class LibrarySearch:
    """Collections, embedders and indexes, as one search."""

    def __init__(
        self,
        documents: Documents,
        collections: Collections,
        chunks: Chunks,
        search: SearchEngine,
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
        self._search = search
        self._embedders = embedders
        self._floor = floor
        self._width = width
        self._metering = metering
        self._telemetry = telemetry
        self._ready: set[str] = set()
        self._languages: dict[str, tuple[str | None, ...]] = {}
        self._pages: OrderedDict[str, list[tuple[int, int]]] = OrderedDict()

    def changed(self, owner: str) -> None:
        """Documents of the owner came or went."""
        self._ready.discard(owner)
        self._languages.clear()

    async def has_documents(self, owner: str) -> bool:
        """Whether the owner has anything searchable."""
        # Only a yes is remembered: a no may be out of date before it is.
        if owner not in self._ready and await self._documents.any_ready(owner):
            self._ready.add(owner)
        return owner in self._ready

    async def check(self, owner: str, collections: Sequence[str] | None = None) -> None:
        """Raises EmbeddingMismatch when this server can't embed as one of the collections (None: all) is embedded."""
        for row in await self._searched(owner, collections):
            if row.fingerprint is not None:
                await self._embedders.of(row.fingerprint)

    async def _searched(self, owner: str, collections: Sequence[str] | None) -> list[CollectionRow]:
        """Those of the owner's collections that are asked for (None: all)."""
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
        budget: int | None = None,
    ) -> Result:
        """At most `count` passages for the queries (text, weight), the question first; see `SearchRequest`.

        Collections that aren't the owner's are passed over. Raises EmbeddingMismatch, EmbeddingFailed; BudgetExceeded,
        PriceUnknown where a provider embeds.
        """
        rows = await self._searched(owner, scope.collections)
        parts = await self._parts(owner, rows, scope.documents)
        wanted = SearchRequest(_distinct(queries), count, self._width, mode, budget)
        with self._telemetry.retrieval(wanted.queries) as told:
            with self._metering(owner):
                found = await self._search.find(owner, parts, [row.id for row in rows], wanted) if parts else Found()
            told.seconds, told.passages = found.seconds, len(found.spans)
        passages = [await self._passage(span, found) for span in found.spans]
        kept = [p for p in passages if p.relevance >= self._floor]
        irrelevant = [p for p in passages if p.relevance < self._floor]
        return Result(kept, irrelevant, trace_of(wanted, found, kept, irrelevant, self._floor))

    async def _parts(
        self, owner: str, rows: Sequence[CollectionRow], documents: Sequence[str] | None
    ) -> list[SearchPart]:
        ranges: dict[str, list[tuple[int, int]]] | None = None
        if documents is not None:
            ranges = {}
            for found in await self._chunks.ranges(owner, documents):
                ranges.setdefault(found.collection_id, []).append((found.first, found.last))
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

    async def _passage(self, span: RankedPassage, found: Found) -> Passage:
        row = found.chunks[span.best.n]
        page = await self.page_at(row.version_id, span.best.start) if row.page is not None else None
        return Passage(
            chunk_id=f"chk_{row.n}",
            document_id=row.document_id,
            version=row.version_id,
            title=row.name,
            text=_text(span, found.chunks),
            start=span.start,
            end=span.end,
            page=page,
            heading=row.heading,
            score=min(1.0, span.score),
            relevance=found.relevance(span),
            context=row.context,
        )

    async def similarity(self, owner: str, text: str, others: Sequence[str], known: "dict[str, Vector]") -> list[float]:
        """Cosines between a text and others, by the default embedder. What is embedded of the others is added to
        `known`, and not embedded again."""
        new = [other for other in dict.fromkeys(others) if other not in known]
        embedder = self._embedders.default
        with self._metering(owner):
            one, many = await asyncio.gather(embedder.embed_query(text), embedder.embed_passages(new))
        known.update(zip(new, many, strict=True))
        return [float(known[other] @ one) for other in others]

    async def page_at(self, version: str, offset: int) -> int | None:
        """The page of a version on which the code point `offset` stands."""
        if version not in self._pages:
            self._pages[version] = await self._documents.page_starts(version)
            if len(self._pages) > _KEPT_MAPS:
                self._pages.popitem(last=False)
        pages = self._pages[version]
        at = bisect_right(pages, offset, key=lambda p: p[0]) - 1
        return pages[max(at, 0)][1] if pages else None


class LibraryRetriever:
    """The retriever of one conversation: what it may see of an owner's documents."""

    def __init__(self, knowledge: LibrarySearch, owner: str, top_k: int, scope: Scope) -> None:
        self._knowledge = knowledge
        self._owner = owner
        self._top_k = top_k
        self._scope = scope
        self._known: dict[str, Vector] = {}
        self.trace: dict[str, object] | None = None
        """How the last `retrieve` went."""

    async def has_documents(self) -> bool:
        """Whether anything searchable is there at all."""
        return await self._knowledge.has_documents(self._owner)

    async def retrieve(self, queries: Sequence[tuple[str, float]]) -> list[Passage]:
        """Relevant passages, best first; maybe none."""
        found = await self._knowledge.search(self._owner, queries, self._top_k, self._scope)
        self.trace = found.trace
        return found.passages

    async def similarity(self, text: str, others: Sequence[str]) -> list[float]:
        """Cosines between a text and others."""
        return await self._knowledge.similarity(self._owner, text, others, self._known) if others else []

    async def page_at(self, version: str, offset: int) -> int | None:
        """The page on which the code point stands."""
        return await self._knowledge.page_at(version, offset)


def _distinct(queries: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The same text twice is one query of both weights."""
    weights: dict[str, float] = {}
    for text, weight in queries:
        weights[text] = weights.get(text, 0.0) + weight
    return list(weights.items())


def _text(span: RankedPassage, chunks: dict[int, ChunkRow]) -> str:
    """The passage as it stands in the document, put together from the chunks it lies in."""
    numbers = range(span.sentences[0].n, span.sentences[-1].n + 1)
    text = "".join(chunks[n].text + (chunks[n].after or "") for n in numbers)
    start = chunks[numbers[0]].start
    return text[span.start - start : span.end - start]
