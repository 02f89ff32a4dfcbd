"""How far jobs are, and who hears of it."""

import asyncio

import pytest

from backend.services.library.jobs.progress import (
    JobProgress,
    LocalProgressBoard,
    document_entries,
    embedding_progress,
    versions_in_stage,
)
from backend.storage.library.jobs import JobRow


def job(job_id: str, kind: str = "ingest", document_id: str = "doc_1") -> JobRow:
    return JobRow(
        id=job_id,
        kind=kind,
        owner="anna",
        document_id=document_id,
        version_id=f"ver_{job_id}",
        collection_id="col_1",
        generation=1,
        fingerprint=None,
        attempts=0,
        reason_code=None,
        progress={},
        name="a.txt",
        first_chunk=None,
        chunks=None,
        is_parsed=False,
    )


def test_the_rate_counts_only_what_this_attempt_has_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    changes: list[int] = []
    progress = JobProgress(lambda: changes.append(1))
    now += 5
    progress.enter("embedding")
    progress.count(30, 100, by_earlier_attempt=True)
    now += 2
    progress.count(50, 100)
    progress.pause()
    now += 60
    progress.resume()
    assert progress.as_json() == {"seconds": {"embedding": 2.0}, "done": 50, "total": 100, "rate": 10.0}
    assert len(changes) == 3


async def test_a_change_of_a_job_wakes_the_watchers_of_its_document_only() -> None:
    board = LocalProgressBoard()
    progress = board.start(job("1"))
    with board.next_change("doc_1") as change, board.next_change("doc_2") as other:
        progress.enter("parsing")
        await asyncio.wait_for(change, 1)
        assert not other.done()
    assert board._watchers == {}


async def test_dismissed_watchers_are_woken_for_good() -> None:
    board = LocalProgressBoard()
    with board.next_change("doc_1") as change:
        assert not board.is_dismissed
        board.dismiss_watchers()
        await asyncio.wait_for(change, 1)
    assert board.is_dismissed


def test_jobs_are_found_by_document_stage_and_collection() -> None:
    board = LocalProgressBoard()
    first, second = board.start(job("1")), board.start(job("2", document_id="doc_2"))
    embedding = board.start(job("3", kind="embed", document_id=""))
    first.enter("parsing")
    second.enter("embedding")
    embedding.enter("embedding")
    assert [entry.job.id for entry in document_entries(board, "doc_1")] == ["1"]
    assert versions_in_stage(board, "embedding") == ["ver_2"]
    assert embedding_progress(board, "col_1") is embedding
    assert embedding_progress(board, "col_2") is None
    board.remove("1")
    board.remove("1")
    assert board.get("1") is None
    assert document_entries(board, "doc_1") == []
