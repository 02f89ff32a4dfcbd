"""Documents in the database: whose they are."""

import pytest

from backend.errors import NotFound
from backend.storage.engine.database import Database
from backend.storage.library.chunks import Chunks
from backend.storage.library.collections import Collections
from backend.storage.library.documents import Documents
from backend.storage.library.transfers import Transfers
from backend.storage.library.versions import Versions
from tests.support.storing import MODEL, ingested


async def test_nobody_reads_somebody_elses_document(database: Database) -> None:
    """What takes an owner filters by it, whatever the caller has checked before."""
    collection, document, version, n = await ingested(database, "a")
    storage, chunks, changes = Documents(database), Chunks(database), Versions(database)
    assert [c.n for c in await chunks.candidates("a", collection, [collection], MODEL, [n])] == [n]
    assert [r.first for r in await chunks.ranges("a", [document])] == [n]
    assert await storage.has_ready("a")
    assert await chunks.candidates("b", collection, [collection], MODEL, [n]) == []
    assert await chunks.ranges("b", [document]) == []
    assert await storage.missing("b", [document]) == [document]
    assert await storage.page("b", 5) == []
    assert not await storage.has_ready("b")
    assert collection not in await Collections(database).ids("b")
    for call in (
        storage.get("b", document),
        storage.text("b", document, None, 0, None),
        storage.versions("b", document),
        changes.rename("b", document, "x"),
        changes.replace("b", document, "ver_b", "other", 5),
        changes.cancel("b", document),
        changes.retry("b", document),
        changes.add("b", collection, "ver_b", "x", "other", 5),
        Collections(database).get("b", collection),
        Collections(database).rename("b", collection, "x"),
        Transfers(database).movable("b", document),
        Transfers(database).begin_embed("b", collection, "m/n"),
    ):
        with pytest.raises(NotFound):
            await call
    assert not await Collections(database).remove("b", collection)
    row = await storage.get("a", document)
    assert (row.status, row.version, row.name) == ("ready", version, "a.txt")
