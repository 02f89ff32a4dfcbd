"""POST /search, and that what chat cites is really there."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.api.helpers import problem, search, stored
from tests.support import samples
from tests.support.harness import Running, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGES = [
    "The port was founded in 1621. Its first master was Jonas Berg.",
    "The tariff for a pilot is 40 crowns a night. Children pay nothing.",
    "In winter the icebreaker Ymer keeps the fairway open. It leaves at six o'clock. 🚢",
]
NOTES = "# Bakery\n\nRye bread needs three days. The oven holds 90 loaves.\n\n## Prices\n\nA loaf costs four crowns.\n"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def library(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[tuple[Running, dict[str, Any]]]:
    """A server with a PDF of three pages and a Markdown file."""
    folder: Path = tmp_path_factory.mktemp("library")
    async with serving(folder / "data") as running:
        pdf = await running.upload("port.pdf", samples.pdf(folder / "port.pdf", PAGES).read_bytes())
        notes = await running.upload("bakery.md", NOTES.encode())
        assert (pdf["status"], notes["status"]) == ("ready", "ready")
        yield running, {"pdf": pdf, "notes": notes}


Library = tuple[Running, dict[str, Any]]


async def test_a_passage_has_every_field(library: Library) -> None:
    running, documents = library
    passage = (await search(running, "How much is a pilot?"))[0]
    assert set(passage) == {
        *(
            "text",
            "document_id",
            "name",
            "filename",
            "version",
            "chunk_id",
            "page",
            "heading",
            "context",
            "start",
            "end",
        ),
        *("score", "relevance", "relevant"),
    }
    assert passage["document_id"] == documents["pdf"]["id"]
    assert passage["version"] == documents["pdf"]["version"]
    assert passage["filename"] == "port.pdf"
    assert "40 crowns" in passage["text"]


async def test_passages_are_exact_slices_best_first(library: Library) -> None:
    running, _ = library
    found = await search(running, "crowns", top_k=100)
    assert len(found) >= 2
    for p in found:
        params = {"version": p["version"], "start": p["start"], "end": p["end"]}
        text = (await running.client.get(f"/documents/{p['document_id']}/text", params=params)).json()["text"]
        assert text == p["text"]
    scores = [p["score"] for p in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= s <= 1 for s in scores)


@pytest.mark.parametrize(
    ("question", "page", "quote"),
    [
        ("Who was the first master of the port?", 1, "Jonas Berg"),
        ("What does a pilot cost?", 2, "40 crowns"),
        ("Which icebreaker keeps the fairway open in winter?", 3, "Ymer"),
    ],
)
async def test_a_citation_names_the_right_page_and_quotes_the_text(
    library: Library, question: str, page: int, quote: str
) -> None:
    running, documents = library
    events = await running.events({"message": question})
    citations = [e for e in events if e["type"] == "citation"]
    cited = next(c for c in citations if quote in c["quote"])
    place = cited["document"]
    assert (place["document_id"], place["page"]) == (documents["pdf"]["id"], page)
    for citation in citations:
        place = citation["document"]
        params = {"version": place["version"], "start": place["start"], "end": place["end"]}
        text = await running.client.get(f"/documents/{place['document_id']}/text", params=params)
        assert text.json()["text"] == citation["quote"]


async def test_the_documents_filter(library: Library) -> None:
    running, documents = library
    notes = documents["notes"]["id"]
    assert {p["document_id"] for p in await search(running, "crowns", documents=[notes], top_k=50)} == {notes}
    both = [notes, documents["pdf"]["id"]]
    assert {p["document_id"] for p in await search(running, "crowns", documents=both, top_k=50)} == set(both)


async def test_the_filter_compares_as_the_whole_search_does(library: Library) -> None:
    """Scores are relative to the best one; closeness is not."""
    running, documents = library

    async def closeness(**fields: Any) -> dict[str, float]:
        body = {"query": "four crowns", "top_k": 100, "explain": True, **fields}
        said = (await running.client.post("/search", json=body)).json()["explanation"]
        return {c["chunk_id"]: c["dense"] for c in said["candidates"] if c["document_id"] == documents["notes"]["id"]}

    some = await closeness(documents=[documents["notes"]["id"]])
    assert some
    assert some == pytest.approx(await closeness(), abs=0.01)


async def test_an_unknown_document_in_the_filter_is_404(library: Library) -> None:
    running, documents = library
    body = {"query": "x", "documents": [documents["pdf"]["id"], "doc_unknown"]}
    assert "doc_unknown" in problem(await running.client.post("/search", json=body), 404, "not_found")["detail"]
    chat = {"message": "x", "documents": ["doc_unknown"]}
    before = await stored(running)
    problem(await running.client.post("/chat", json=chat), 404, "not_found")
    assert await stored(running) == before


@pytest.mark.parametrize("top_k", [1, 2])
async def test_top_k_bounds_the_passages(library: Library, top_k: int) -> None:
    running, _ = library
    assert len(await search(running, "crowns", top_k=top_k)) == top_k


@pytest.mark.parametrize(
    "fields",
    [
        {"query": "x", "top_k": 0},
        {"query": "x", "top_k": 101},
        {"query": "x", "top_k": -1},
        {"query": "x", "top_k": 10**40},
        {"query": "x", "top_k": 2.5},
        {"query": "x", "top_k": "many"},
        {"query": ""},
        {"query": "   \n"},
        {"query": "\u2003\u00a0"},
        {"query": "x" * 4001},
        {"query": None},
        {"query": ["x"]},
        {},
        {"query": "x", "documents": "doc_1"},
        {"query": "x", "documents": [1]},
        {"query": "x", "documents": ["a"] * 101},
        {"query": "x", "collection": "other"},
    ],
    ids=repr,
)
async def test_a_wrong_search_is_422(library: Library, fields: dict[str, Any]) -> None:
    problem(await library[0].client.post("/search", json=fields), 422, "invalid_request")


@pytest.mark.parametrize(
    "query",
    [
        "%",
        "_",
        "' OR 1=1 --",
        '"; DROP TABLE chunks; --',
        '"unbalanced AND NOT (',
        "NEAR(a b, 5) * ^col:",
        "[a-z]+(?:x)*$",
        "\\",
        "{{7*7}} ${x} {message}",
        "🚢👨‍👩‍👧",
        "名前は何ですか",
        "\u202eabc\u0000def",
        "a\u0300" * 1000,
        "x" * 4000,
        "\ufffe\uffff",
    ],
    ids=lambda q: repr(q[:16]),
)
async def test_a_hostile_query_is_only_text(library: Library, query: str) -> None:
    found = await search(library[0], query, top_k=3)
    assert 1 <= len(found) <= 3
    assert all(0 <= p["score"] <= 1 for p in found)
    assert len(await search(library[0], query, mode="lexical", top_k=3)) <= 3


async def test_lone_surrogates_in_a_query_are_422(library: Library) -> None:
    response = await library[0].client.post("/search", content=b'{"query": "a\\ud800b"}', headers=JSON)
    problem(response, 422, "invalid_request")


JSON = {"Content-Type": "application/json"}


async def test_an_unicode_query_finds_its_document(library: Library) -> None:
    running, documents = library
    assert (await search(running, "🚢 Ymer fairway"))[0]["document_id"] == documents["pdf"]["id"]


async def test_a_search_with_nothing_uploaded_finds_nothing(fresh: Running) -> None:
    assert await search(fresh, "anything at all") == []


async def test_curl_without_a_content_type_searches(library: Library) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = await library[0].client.post("/search", content=b'{"query":"crowns"}', headers=headers)
    assert response.status_code == 200, response.text
    assert response.json()["passages"]
