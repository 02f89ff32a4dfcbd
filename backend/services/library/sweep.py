"""Compares vectors, lexical indexes and files with the database: removes strays, indexes again what is missing."""

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog

from backend.chains.retrieval.index import index_key
from backend.services.library.holdings import Holdings
from backend.services.library.jobs.workers import JobWorkers
from backend.services.library.restore import VectorRestorer
from backend.services.library.search.search import LibrarySearch
from backend.storage.library.collections import CollectionRow
from backend.storage.library.strays import Range

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class SweepReport:
    """What a sweep found and repaired."""

    documents_removed: int = 0
    chunks_removed: int = 0
    terms_removed: int = 0
    vectors_removed: int = 0
    files_removed: int = 0
    documents_queued: int = 0


class Sweep:
    """Finds and removes strays. `unstored`: the version ids of files that are not in the database yet (see Uploads)."""

    def __init__(
        self,
        holdings: Holdings,
        workers: JobWorkers,
        search: LibrarySearch,
        restorer: VectorRestorer,
        unstored: set[str],
    ) -> None:
        self._holdings = holdings
        self._workers = workers
        self._search = search
        self._restorer = restorer
        self._unstored = unstored

    async def sweep_all(self) -> SweepReport:
        """Sweep the libraries of all owners: to be called at the start, before the workers open.

        Compares item by item only if the numbers don't agree, so it is quick for libraries of any size.
        """
        report = SweepReport()
        await self._finish_deletions(report, None)
        for row in await self._holdings.collections.all_owners():
            await self._sweep_collection(row, report, completely=False)
        await self._sweep_orphans(report)
        self._restorer.loaded()
        await self._restorer.wait()
        if report != SweepReport():
            log.info("swept", **{name: getattr(report, name) for name in SweepReport.__slots__})
        return report

    async def sweep_owner(self, owner: str, *, include_orphans: bool) -> SweepReport:
        """Sweep one owner's library completely; with `include_orphans` also what has no owner."""
        report = SweepReport()
        await self._finish_deletions(report, owner)
        for row in await self._holdings.collections.by_owner(owner):
            await self._sweep_collection(row, report, completely=True)
        if include_orphans:
            await self._sweep_orphans(report)
        self._search.forget(owner)
        self._workers.wake()
        return report

    async def _finish_deletions(self, report: SweepReport, owner: str | None) -> None:
        """Finish deletions that were begun, and remove superseded versions."""
        holdings = self._holdings
        removed = await holdings.remove_versions(await holdings.versions.superseded(owner))
        report.chunks_removed += removed.chunks
        report.vectors_removed += removed.vectors
        report.files_removed += removed.files
        if owner is None and (deleted := await holdings.versions.half_deleted()):
            await holdings.versions.end_delete(deleted)
            report.documents_removed += len(deleted)

    async def _sweep_collection(self, row: CollectionRow, report: SweepReport, *, completely: bool) -> None:
        key = index_key(row.id, row.generation)
        if completely or not await self._has_right_count(row, key):
            # The index is read first, then the database: what is added between the two is not taken for a stray.
            present = await self._holdings.index.numbers(key)
            ranges = await self._holdings.strays.ranges(row.id)
            strays = list(_outside(present, ranges))
            report.vectors_removed += await self._holdings.index.delete(key, strays)
            numbers = set(present)
            if any(r.active and not numbers.issuperset(r.numbers) for r in ranges):
                self._restorer.restore_later()
        chunks, terms = await self._holdings.strays.counts(row.id)
        if completely or chunks != terms:
            stray_terms = await self._holdings.strays.stray_terms(row.id)
            await self._holdings.chunks.remove_terms(row.id, stray_terms)
            report.terms_removed += len(stray_terms)
            if without := await self._holdings.strays.without_terms(row.id):
                await self._holdings.strays.remove_chunks(without)
                await self._holdings.jobs.requeue(without)
                report.documents_queued += len(without)

    async def _has_right_count(self, row: CollectionRow, key: str) -> bool:
        """Whether the index has as many vectors as it should have."""
        ranges = await self._holdings.strays.ranges(row.id)
        expected = sum(r.chunks for r in ranges if r.active)
        unfinished = [n for r in ranges if not r.active for n in r.numbers]
        expected += len(await self._holdings.index.present(key, unfinished))
        return expected == await self._holdings.index.count(key)

    async def _sweep_orphans(self, report: SweepReport) -> None:
        """Remove vectors and indexes that belong to no collection, and files that belong to no version."""
        holdings = self._holdings
        existing = await holdings.index.keys()
        rows = await holdings.collections.all_owners()
        embedding = await holdings.transfers.embeddings([row.id for row in rows])
        keys = {index_key(row.id, row.generation) for row in rows}
        keys |= {index_key(row.id, row.generation + 1) for row in rows if row.id in embedding}
        for key in existing - keys:
            report.vectors_removed += await holdings.index.count(key)
            await holdings.index.drop(key)
        for collection_id in await holdings.strays.orphan_indexes():
            await holdings.collections.drop_terms(collection_id)
        names = await asyncio.to_thread(lambda: {path.name for path in holdings.files.iterdir()})
        names -= self._unstored
        strays = names - await holdings.strays.versions_with_file()
        report.files_removed += await asyncio.to_thread(holdings.unlink, sorted(strays))


def _outside(numbers: Iterable[int], ranges: Sequence[Range]) -> Iterable[int]:
    """The numbers that are in none of the ranges. `ranges` must be sorted."""
    firsts = [r.first for r in ranges]
    for n in numbers:
        at = bisect_right(firsts, n) - 1
        if at < 0 or n >= ranges[at].first + ranges[at].chunks:
            yield n
