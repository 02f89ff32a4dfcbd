"""Documents after their upload: one, the list, events, text, download, delete."""

from pathlib import Path

import pytest

from backend.chains.retrieval.index import VectorIndex
from tests.api.helpers import data_dir, document_events, problem, rows, search, stored, unique
from tests.support import samples
from tests.support.harness import Running, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

EMOJI = "Ahoy 🚢! The café ⚓️ costs 3 €.\n\nSecond paragraph: 👨‍👩‍👧 waits at the quay."
UNKNOWN = "doc_00000000000000000000000000000000"


async def test_one_document_tells_all_of_it(api: Running) -> None:
    document = await api.upload("tell.txt", data := unique("Boats need paint."))
    assert document["filename"] == "tell.txt"
    assert (document["status"], document["chunks"], document["size"]) == ("ready", 1, len(data))
    assert document["reason"] is None and document["reason_code"] is None
    assert document["progress"]["done"] == document["progress"]["total"] == 1
    assert set(document["progress"]["seconds"]) == {"parsing", "chunking", "embedding", "indexing"}
    assert document["created_at"].endswith("Z") and document["created_at"] <= document["updated_at"]


@pytest.mark.parametrize("tail", ["", "/events", "/text", "/content"])
@pytest.mark.parametrize("document_id", [UNKNOWN, "1", "doc_%00", "%2e%2e%2fstreamforge.db", "ver_1"])
async def test_an_unknown_document_is_404(api: Running, document_id: str, tail: str) -> None:
    problem(await api.client.get(f"/documents/{document_id}{tail}"), 404, "not_found")


async def test_the_list_pages_from_the_newest_without_gap_or_repetition(fresh: Running) -> None:
    ids = [(await fresh.upload(f"{n}.txt", unique(f"Number {n}")))["id"] for n in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    for size in (2, 2, 1):
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await fresh.client.get("/documents", params=params)).json()
        assert len(page["items"]) == size
        seen += [d["id"] for d in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == ids[::-1]


@pytest.mark.parametrize("limit", ["0", "201", "-1", "x", "1e400"])
async def test_the_lists_limit_is_bounded(api: Running, limit: str) -> None:
    problem(await api.client.get("/documents", params={"limit": limit}), 422, "invalid_request")


async def test_events_tell_each_stage_until_ready(api: Running) -> None:
    response = await api.client.post("/documents/upload", files={"file": ("watch.txt", unique("Watch me."))})
    events = await document_events(api, response.json()["id"])
    order = ["queued", "parsing", "chunking", "embedding", "indexing", "ready"]
    told = [order.index(e["document"]["status"]) for e in events]
    assert told == sorted(told)
    assert told[-1] == len(order) - 1
    assert all(e["type"] == "document" for e in events)


async def test_events_of_a_ready_document_are_one_and_the_stream_ends(api: Running) -> None:
    document = await api.upload("done.txt", unique("Done."))
    (event,) = await document_events(api, document["id"])
    told = event["document"]
    assert told == {key: value for key, value in document.items() if value is not None}


async def test_events_are_an_event_stream_with_its_headers(api: Running) -> None:
    document = await api.upload("heads.txt", unique("Heads."))
    response = await api.client.get(f"/documents/{document['id']}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert b"\r" not in response.content


async def test_text_is_sliced_in_code_points(api: Running) -> None:
    document = await api.upload("emoji.txt", unique(EMOJI))
    path = f"/documents/{document['id']}/text"
    whole = (await api.client.get(path)).json()
    text = whole["text"]
    assert text.startswith("Ahoy 🚢!") and (whole["start"], whole["end"]) == (0, len(text))
    for start, end in ((0, 6), (5, 6), (6, 20), (len(text) - 3, len(text)), (4, 4)):
        part = (await api.client.get(path, params={"start": start, "end": end})).json()
        assert part["text"] == text[start:end]
        assert (part["start"], part["end"]) == (start, end)
    beyond = (await api.client.get(path, params={"start": len(text) - 2, "end": 10**6})).json()
    assert (beyond["text"], beyond["end"]) == (text[-2:], len(text))
    last = (await api.client.get(path, params={"start": 10})).json()
    assert last["text"] == text[10:]


@pytest.mark.parametrize(
    "params", [{"start": -1}, {"end": -1}, {"start": 5, "end": 4}, {"start": "x"}, {"start": 10**30}, {"end": 10**30}]
)
async def test_a_slice_that_makes_no_sense_is_422(api: Running, params: dict[str, object]) -> None:
    document = await api.upload("slices.txt", b"Always the same file for these slices.")
    response = await api.client.get(f"/documents/{document['id']}/text", params=params)  # type: ignore[arg-type]
    problem(response, 422, "invalid_request")


async def test_text_of_another_version_is_404(api: Running) -> None:
    one, two = await api.upload("v.txt", unique("One.")), await api.upload("v.txt", unique("Two."))
    path = f"/documents/{one['id']}/text"
    assert (await api.client.get(path, params={"version": one["version"]})).status_code == 200
    problem(await api.client.get(path, params={"version": two["version"]}), 404, "not_found")


async def test_text_of_a_file_that_could_not_be_read_is_409(api: Running, tmp_path: Path) -> None:
    document = await api.upload("scan.pdf", samples.scanned_pdf(tmp_path / "scan.pdf").read_bytes())
    found = problem(await api.client.get(f"/documents/{document['id']}/text"), 409, "document_not_ready")
    assert document["reason"] in found["detail"] and "not been read yet" not in found["detail"]


async def test_content_is_the_same_bytes_and_text_is_a_download(api: Running) -> None:
    data = unique("<!DOCTYPE html><html><body><script>alert(1)</script><p>Page</p></body></html>")
    document = await api.upload("page.html", data)
    response = await api.client.get(f"/documents/{document['id']}/content")
    assert response.content == data
    assert response.headers["content-disposition"].startswith("attachment;")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in response.headers["content-security-policy"]
    assert response.headers["content-type"] == "application/octet-stream"


async def test_content_takes_one_range_and_is_not_slowed_by_thousands(api: Running) -> None:
    """CVE-2025-62727: quadratic merging of ranges. What counts is that a flood of them is not served as parts."""
    document = await api.upload("range.txt", data := unique("0123456789" * 100))
    path = f"/documents/{document['id']}/content"
    response = await api.client.get(path, headers={"Range": "bytes=10-19"})
    assert (response.status_code, response.content) == (206, data[10:20])
    response = await api.client.get(path, headers={"Range": f"bytes={len(data) + 5}-"})
    assert response.status_code == 416
    many = "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 900, 2))
    response = await api.client.get(path, headers={"Range": many})
    assert response.status_code in (200, 206, 400, 416)
    assert len(response.content) < 100 * len(data)


async def test_delete_removes_rows_file_and_vectors(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as fresh:
        keep = await fresh.upload("keep.txt", unique("Lanterns hang at the gate."))
        before = await stored(fresh)
        document = await fresh.upload("gone.txt", unique("The zeppelin lands on Tuesday."))
        response = await fresh.client.delete(f"/documents/{document['id']}")
        assert response.status_code == 200
        assert response.json() == {
            "document_id": document["id"],
            "versions": 1,
            "chunks_removed": document["chunks"],
            "vectors_removed": document["chunks"],
            "vectors_left": 0,
            "file_removed": True,
        }
        assert await stored(fresh) == before
        for tail in ("", "/text", "/content", "/events"):
            problem(await fresh.client.get(f"/documents/{document['id']}{tail}"), 404, "not_found")
        problem(await fresh.client.delete(f"/documents/{document['id']}"), 404, "not_found")
        found = await search(fresh, "When does the zeppelin land?", top_k=50)
        assert {p["document_id"] for p in found} == {keep["id"]}
        numbers = [n for (n,) in rows(data_dir(fresh), "SELECT n FROM chunks")]
        collection = rows(data_dir(fresh), "SELECT id FROM collections")[0][0]
    index = VectorIndex(tmp_path / "data" / "vectors")
    await index.open()
    assert await index.numbers(f"{collection}-1") == numbers
    await index.close()


async def test_delete_during_a_watch_ends_the_stream(api: Running, tmp_path: Path) -> None:
    path = samples.scanned_pdf(tmp_path / "scan.pdf")
    document = await api.upload("scan.pdf", path.read_bytes() + b"\n% deleted while watched")
    watched = api.services.library.documents.watch("local", document["id"])
    assert (await anext(watched)).status == "failed"
    await api.client.delete(f"/documents/{document['id']}")
    assert [row async for row in watched] == []


async def test_bytes_that_were_deleted_can_be_uploaded_again(api: Running) -> None:
    data = unique("Phoenix.")
    first = await api.upload("again.txt", data)
    await api.client.delete(f"/documents/{first['id']}")
    second = await api.upload("again.txt", data)
    assert second["status"] == "ready" and second["id"] != first["id"]
    assert {p["document_id"] for p in await search(api, "Phoenix", documents=[second["id"]])} == {second["id"]}
