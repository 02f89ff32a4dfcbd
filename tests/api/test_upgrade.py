"""A DATA_DIR of version 0.1.0: its documents are indexed again from what is stored, nothing else is lost."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from backend.chains.retrieval.index import VectorIndex
from backend.storage.migrations import upgrade
from tests.api.helpers import idle, rows, search
from tests.support.harness import serving
from tests.support.shared import prepare

pytestmark = pytest.mark.asyncio(loop_scope="session")

OLD = """
INSERT INTO sessions VALUES ('ses_1', 'local', 'Old talk', NULL, '{}', 1, 1);
INSERT INTO messages VALUES ('msg_1', 'local', 'ses_1', NULL, NULL, 'user', 'complete', '[]', 1);
INSERT INTO collections VALUES ('col_1', 'local', 'default', 'minilm/all-MiniLM-L6-v2:384', 1, 1);
INSERT INTO documents VALUES ('doc_1', 'local', 'col_1', 'port.txt', 'ver_1', 'ready', NULL, NULL, 1, 1);
INSERT INTO documents VALUES ('doc_2', 'local', 'col_1', 'scan.pdf', NULL, 'failed', 'document_scanned', 'No text.',
    1, 1);
INSERT INTO documents VALUES ('doc_3', 'local', 'col_1', 'new.txt', NULL, 'parsing', NULL, NULL, 1, 1);
INSERT INTO document_versions VALUES ('ver_1', 'local', 'doc_1', 'col_1', 'a', 9, 'text/plain', NULL,
    'The port was founded in 1621.', '{"pages": [], "headings": []}', NULL, 1, 1);
INSERT INTO document_versions VALUES ('ver_2', 'local', 'doc_2', 'col_1', 'b', 9, NULL,
    NULL, NULL, NULL, NULL, NULL, 1);
INSERT INTO document_versions VALUES ('ver_3', 'local', 'doc_3', 'col_1', 'c', 9, NULL,
    NULL, NULL, NULL, NULL, NULL, 1);
INSERT INTO jobs VALUES ('job_1', 'local', 'doc_1', 'ver_1', 'ready', '{}', 0, NULL, 0, NULL, 1, 1);
INSERT INTO jobs VALUES ('job_2', 'local', 'doc_2', 'ver_2', 'failed', '{}', 0, NULL, 0, 'No text.', 1, 1);
INSERT INTO jobs VALUES ('job_3', 'local', 'doc_3', 'ver_3', 'parsing', '{}', 0, 'ins_old', 9, NULL, 1, 1);
INSERT INTO chunks VALUES ('chk_1_0', 'ver_1', 0, 0, 29, NULL, NULL);
"""


async def test_documents_of_0_1_0_are_indexed_again(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    prepare(folder)
    upgrade(folder / "streamforge.db", "0001")
    conn = sqlite3.connect(folder / "streamforge.db")
    conn.executescript(OLD)
    conn.close()
    (folder / "files").mkdir()
    for version in ("ver_1", "ver_2"):
        (folder / "files" / version).write_bytes(b"as it was")
    (folder / "files" / "ver_3").write_text("The ferry leaves at noon.")
    index = VectorIndex(folder / "vectors")
    await index.open()
    await index.upsert("col_1", "minilm/all-MiniLM-L6-v2:384", [1], np.ones((1, 384), np.float32))
    await index.close()
    async with serving(folder) as running:
        for document_id in ("doc_1", "doc_2", "doc_3"):
            await running.services.documents.settled("local", document_id)
        await idle(running)
        statuses = {d["id"]: d["status"] for d in (await running.client.get("/documents")).json()["items"]}
        assert statuses == {"doc_1": "ready", "doc_2": "failed", "doc_3": "ready"}
        scan = (await running.client.get("/documents/doc_2")).json()
        assert (scan["reason_code"], scan["reason"]) == ("document_scanned", "No text.")
        assert (await search(running, "When was the port founded?"))[0]["version"] == "ver_1"
        assert (await search(running, "ferry"))[0]["document_id"] == "doc_3"
        assert (await running.client.get("/sessions/ses_1")).json()["title"] == "Old talk"
        assert set((await running.client.post("/documents/sweep")).json().values()) == {0}
    await index.open()
    assert await index.collections() == {"col_1-1"}
    assert await index.numbers("col_1-1") == [n for (n,) in rows(folder, "SELECT n FROM chunks ORDER BY n")]
    await index.close()
