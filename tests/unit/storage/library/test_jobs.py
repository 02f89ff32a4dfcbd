"""The queue of jobs: fair between owners, with leases."""

import asyncio

from backend.storage.engine.database import Database
from backend.storage.library.collections import Collections
from backend.storage.library.jobs import Jobs
from backend.storage.library.versions import Versions


async def test_owners_take_turns_in_the_queue(database: Database) -> None:
    changes, collections, jobs = Versions(database), Collections(database), Jobs(database)
    for owner, count in (("a", 3), ("b", 1), ("c", 2)):
        collection = await collections.default(owner)
        for n in range(count):
            await changes.add(owner, collection.id, f"ver_{owner}{n}", "x", f"{owner}{n}", 1)
    taken: list[str] = []
    while job := await jobs.claim("me", 60_000, taken[-1][4] if taken else ""):
        taken.append(job.version_id)
    assert taken == ["ver_a0", "ver_b0", "ver_c0", "ver_a1", "ver_c1", "ver_a2"]


async def test_a_job_that_gives_way_goes_behind_the_others(database: Database) -> None:
    changes, jobs = Versions(database), Jobs(database)
    collection = await Collections(database).default("a")
    for n in range(2):
        await changes.add("a", collection.id, f"ver_{n}", "x", str(n), 1)
    first = await jobs.claim("me", 60_000, "")
    assert first is not None
    await asyncio.sleep(0.002)
    await jobs.put_back(first)
    order = [await jobs.claim("me", 60_000, "") for _ in range(3)]
    assert [job and job.version_id for job in order] == ["ver_1", "ver_0", None]


async def test_a_lease_that_is_not_renewed_runs_out_and_one_that_is_does_not(database: Database) -> None:
    collection, jobs = await Collections(database).default("a"), Jobs(database)
    await Versions(database).add("a", collection.id, "ver_1", "x", "1", 1)
    assert await jobs.claim("me", 0, "") is not None
    assert await jobs.claim("other", 60_000, "") is not None, "it ran out at once"
    await jobs.renew("me", 0)
    assert await jobs.claim("me", 60_000, "") is None, "somebody else's is not ours to renew"
    await jobs.release("other", busy=[])
    assert await jobs.claim("me", 60_000, "") is not None
