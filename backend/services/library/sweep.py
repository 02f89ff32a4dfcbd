"""Makes vectors, lexical indexes and files agree with the database: strays go, what is missing comes again."""

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog

from backend.chains.retrieval.index import index_key
from backend.services.library.holdings import Holdings
from backend.storage.library.collections import CollectionRow
from backend.storage.library.strays import Range

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Swept:
    """What a sweep found and put right."""

    documents_removed: int = 0
    chunks_removed: int = 0
    terms_removed: int = 0
    vectors_removed: int = 0
    files_removed: int = 0
    documents_queued: int = 0


class Sweep:
    """`arriving` are the files of uploads that are not in the database yet."""

    def __init__(self, corpus: Holdings, arriving: set[str]) -> None:
        self._corpus = corpus
        self._arriving = arriving

    async def at_start(self) -> Swept:
        """Of everybody. Looks closely only where numbers don't agree: that is quick however much there is."""
        swept = Swept()
        await self._half_done(swept, None)
        for row in await self._corpus.collections.every():
            await self._collection(row, swept, closely=False)
        await self._nobodys(swept)
        if swept != Swept():
            log.info("swept", **{name: getattr(swept, name) for name in Swept.__slots__})
        return swept

    async def of(self, owner: str, *, everything: bool) -> Swept:
        """Of one owner, closely; with `everything` also what belongs to nobody."""
        swept = Swept()
        await self._half_done(swept, owner)
        for row in await self._corpus.collections.by_owner(owner):
            await self._collection(row, swept, closely=True)
        if everything:
            await self._nobodys(swept)
        return swept

    async def _half_done(self, swept: Swept, owner: str | None) -> None:
        """End what was begun: deletions, and the removal of superseded versions."""
        corpus = self._corpus
        removed = await corpus.remove_versions(await corpus.versions.superseded(owner))
        swept.chunks_removed += removed.chunks
        swept.vectors_removed += removed.vectors
        swept.files_removed += removed.files
        if owner is None and (deleted := await corpus.versions.half_deleted()):
            await corpus.versions.end_delete(deleted)
            swept.documents_removed += len(deleted)

    async def _collection(self, row: CollectionRow, swept: Swept, *, closely: bool) -> None:
        key = index_key(row.id, row.generation)
        if closely or not await self._agrees(row, key):
            # First what is there, then what should be: what comes meanwhile is no stray.
            present = await self._corpus.index.numbers(key)
            ranges = await self._corpus.remains.ranges(row.id)
            strays = list(_outside(present, ranges))
            swept.vectors_removed += await self._corpus.index.delete(key, strays)
            await self._queue_again(key, ranges, present, swept)
        chunks, terms = await self._corpus.remains.counts(row.id)
        if closely or chunks != terms:
            stray_terms = await self._corpus.remains.stray_terms(row.id)
            await self._corpus.chunks.remove_terms(row.id, stray_terms)
            swept.terms_removed += len(stray_terms)
            if without := await self._corpus.remains.without_terms(row.id):
                await self._corpus.remains.forget_chunks(without)
                await self._corpus.jobs.requeue(without)
                swept.documents_queued += len(without)

    async def _agrees(self, row: CollectionRow, key: str) -> bool:
        """Whether there are as many vectors as there should be."""
        ranges = await self._corpus.remains.ranges(row.id)
        wanted = sum(r.chunks for r in ranges if r.active)
        begun = [n for r in ranges if not r.active for n in r.numbers]
        wanted += len(await self._corpus.index.present(key, begun))
        return wanted == await self._corpus.index.count(key)

    async def _queue_again(self, key: str, ranges: Iterable[Range], present: Sequence[int], swept: Swept) -> None:
        there = set(present)
        lacking = [r for r in ranges if r.active and not there.issuperset(r.numbers)]
        # Looked at once more: it may have become active since.
        again = [r.version_id for r in lacking if len(await self._corpus.index.present(key, r.numbers)) < r.chunks]
        await self._corpus.jobs.requeue(again)
        swept.documents_queued += len(again)

    async def _nobodys(self, swept: Swept) -> None:
        """What belongs to no collection and to no version."""
        corpus = self._corpus
        existing = await corpus.index.collections()
        rows = await corpus.collections.every()
        embedding = await corpus.transfers.embeddings([row.id for row in rows])
        keys = {index_key(row.id, row.generation) for row in rows}
        keys |= {index_key(row.id, row.generation + 1) for row in rows if row.id in embedding}
        for key in existing - keys:
            swept.vectors_removed += await corpus.index.count(key)
            await corpus.index.drop(key)
        for collection_id in await corpus.remains.orphan_indexes():
            await corpus.collections.drop_terms(collection_id)
        names = await asyncio.to_thread(lambda: {path.name for path in corpus.files.iterdir()})
        names -= self._arriving
        strays = names - await corpus.remains.wanted_files()
        swept.files_removed += await asyncio.to_thread(corpus.unlink, sorted(strays))


def _outside(numbers: Iterable[int], ranges: Sequence[Range]) -> Iterable[int]:
    """Those that are in none of the ranges, which are in order."""
    firsts = [r.first for r in ranges]
    for n in numbers:
        at = bisect_right(firsts, n) - 1
        if at < 0 or n >= ranges[at].first + ranges[at].chunks:
            yield n
