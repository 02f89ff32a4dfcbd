"""POST /search beyond the plain question: modes, budgets, where to look, conversations, explanations, languages."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.api.helpers import ALICE, BOB, bearer, problem, search
from tests.support.harness import Running, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

PORT = """# The port of Ymer

Jonas Berg was the first master of the port. He came in 1621 and stayed for thirty years.

## Pilots

A pilot costs 40 crowns a night. Children pay nothing.

## Ice

In winter the icebreaker keeps the fairway open. It leaves at six o'clock.
"""
CODE = '''class Transport:
    """Sends requests."""

    maxRetryCount = 5

    def send(self, request):
        for attempt in range(self.maxRetryCount):
            if self.try_once(request):
                return True
        return False
'''
GERMAN = """Der Leuchtturm auf der Insel wurde im Jahr 1871 gebaut. Sein Wärter zündete die Lampen jeden Abend an.

Die Bäckereien der Stadt öffnen um sechs Uhr. Ein Brötchen kostet dort zwanzig Pfennige.
"""
RUSSIAN = """Маяк на острове построили в 1871 году. Смотритель зажигал лампы каждый вечер.

Библиотеки города открываются в девять часов. Читатели могут брать пять книг.
"""
JAPANESE = """灯台は一八七一年に島に建てられました。灯台守は毎晩ランプを灯しました。

図書館は午前九時に開きます。利用者は五冊の本を借りることができます。
"""
HINDI = """द्वीप पर प्रकाशस्तंभ 1871 में बनाया गया था। रखवाला हर शाम दीपक जलाता था।

पुस्तकालय सुबह नौ बजे खुलता है। पाठक पाँच किताबें ले सकते हैं।
"""
LOG = "\n\n".join(
    f"On day {n} the zeppelin landed at pier {n % 7}. The crew unloaded {n * 3} crates and slept until noon. "
    f"Its captain wrote the number {n * 7919 % 10007} into the book of the harbour."
    for n in range(80)
)


@dataclass
class Library:
    """A server with documents in two collections: their ids by name, and the second collection's."""

    running: Running
    documents: dict[str, str]
    other: str

    async def found(self, query: str, **fields: Any) -> list[str]:
        """Names of the documents of the passages, best first."""
        names = {id_: name for name, id_ in self.documents.items()}
        return [names[p["document_id"]] for p in await search(self.running, query, **fields)]

    async def explained(self, query: str, **fields: Any) -> dict[str, Any]:
        body = {"query": query, "explain": True, **fields}
        response = await self.running.client.post("/search", json=body)
        assert response.status_code == 200, response.text
        return response.json()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def library(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Library]:
    folder: Path = tmp_path_factory.mktemp("modes")
    async with serving(folder / "data") as running:
        other = (await running.client.post("/collections", json={"name": "other"})).json()["id"]
        texts = {
            "port.md": PORT,
            "transport.py": CODE,
            "leuchtturm.txt": GERMAN,
            "mayak.txt": RUSSIAN,
            "todai.txt": JAPANESE,
            "dvip.txt": HINDI,
        }
        documents = {name: (await running.upload(name, text.encode()))["id"] for name, text in texts.items()}
        params = {"collection": other, "wait": "true"}
        files = {"file": ("log.txt", LOG.encode())}
        response = await running.client.post("/documents/upload", params=params, files=files)
        documents["log.txt"] = response.json()["id"]
        yield Library(running, documents, other)


# --- modes


async def test_each_leg_looks_alone_or_both_do(library: Library) -> None:
    question = "What does a pilot cost?"
    for mode, legs in (("hybrid", {"dense", "lexical"}), ("dense", {"dense"}), ("lexical", {"lexical"})):
        found = await library.explained(question, mode=mode)
        assert "40 crowns" in found["passages"][0]["text"], mode
        said = found["explanation"]
        assert said["mode"] == mode
        assert {leg for leg in ("dense", "lexical") if said["found"][leg]} == legs
        assert bool(said["queries"][0]["terms"]) == ("lexical" in legs)
        assert any(c["dense"] > 0 for c in said["candidates"]) == ("dense" in legs)
        assert any(c["lexical"] > 0 for c in said["candidates"]) == ("lexical" in legs)


async def test_words_find_what_says_them_and_meaning_what_says_it_otherwise(library: Library) -> None:
    assert await search(library.running, "Weihnachtsgans", mode="lexical") == []
    assert await search(library.running, "What is the fee for a guide of ships?", mode="lexical", top_k=1) == []
    (found,) = await search(library.running, "What is the fee for a guide of ships?", mode="dense", top_k=1)
    assert "40 crowns" in found["text"]


@pytest.mark.parametrize("fields", [{"mode": "sparse"}, {"mode": ""}, {"mode": None}, {"budget_chars": 49}])
async def test_a_mode_or_a_budget_that_there_is_not_is_422(library: Library, fields: dict[str, Any]) -> None:
    problem(await library.running.client.post("/search", json={"query": "x", **fields}), 422, "invalid_request")


# --- budgets and passages


@pytest.mark.parametrize("budget", [50, 173, 500, 2_000])
async def test_a_budget_bounds_the_characters_of_all_passages(library: Library, budget: int) -> None:
    found = await search(library.running, "What did the captain of the zeppelin do?", budget_chars=budget, top_k=100)
    assert sum(p["end"] - p["start"] for p in found) <= budget
    assert sum(len(p["text"]) for p in found) > budget / 2 if budget > 100 else found
    assert await sliced(library, found)


async def test_passages_of_a_long_document_are_slices_apart_and_reach_over_chunks(library: Library) -> None:
    found = await library.explained("Who unloaded the crates of the zeppelin?", top_k=10)
    passages = found["passages"]
    assert await sliced(library, passages)
    assert all(p["end"] - p["start"] <= 1_000 for p in passages)
    spans = sorted((p["document_id"], p["start"], p["end"]) for p in passages)
    assert all(a[0] != b[0] or a[2] <= b[1] for a, b in pairwise(spans))
    assert "in_passage" in {c["outcome"] for c in found["explanation"]["candidates"]}, "over two chunks"
    # A chunk has 500 characters.
    assert max(p["end"] - p["start"] for p in passages) > 500


async def sliced(library: Library, passages: list[dict[str, Any]]) -> bool:
    """Whether each passage is the text of its document from its start to its end."""
    for p in passages:
        response = await library.running.client.get(f"/documents/{p['document_id']}/text")
        assert response.json()["text"][p["start"] : p["end"]] == p["text"]
        assert p["text"] == p["text"].strip() != ""
    return bool(passages)


# --- where to look


async def test_collections_restrict_a_search(library: Library) -> None:
    question = "When does the icebreaker leave, and where did the zeppelin land?"
    assert set(await library.found(question, top_k=50)) >= {"port.md", "log.txt"}
    assert set(await library.found(question, top_k=50, collections=[library.other])) == {"log.txt"}
    port = library.documents["port.md"]
    assert await library.found(question, collections=[library.other], documents=[port]) == []
    assert set(await library.found(question, documents=[port, library.documents["log.txt"]])) == {"port.md", "log.txt"}
    assert await library.found(question, collections=[]) == await library.found(question, documents=[]) == []
    body = {"query": question, "collections": [library.other, "col_unknown"]}
    assert "col_unknown" in problem(await library.running.client.post("/search", json=body), 404, "not_found")["detail"]


async def test_an_empty_collection_has_nothing(library: Library) -> None:
    empty = (await library.running.client.post("/collections", json={"name": "empty"})).json()["id"]
    found = await library.explained("When does the icebreaker leave?", collections=[empty])
    assert found["passages"] == []
    assert found["explanation"]["candidates_in_all"] == 0
    assert await library.found("When does the icebreaker leave?", collections=[empty, library.other])


async def test_the_same_bytes_in_two_collections_are_found_once_in_each(fresh: Running) -> None:
    twin = (await fresh.client.post("/collections", json={"name": "twin"})).json()["id"]
    one = await fresh.upload("port.md", PORT.encode())
    params, files = {"collection": twin, "wait": "true"}, {"file": ("port.md", PORT.encode())}
    two = (await fresh.client.post("/documents/upload", params=params, files=files)).json()
    for fields, expected in (
        ({"collections": [twin]}, [two["id"]]),
        ({"documents": [one["id"]]}, [one["id"]]),
        ({"collections": [twin, twin]}, [two["id"]]),
        ({"documents": [one["id"], one["id"]]}, [one["id"]]),
        ({}, [one["id"], two["id"]]),
    ):
        found = await search(fresh, "What does a pilot cost?", top_k=50, **fields)
        assert sorted({p["document_id"] for p in found}) == sorted(expected)
        assert sum("40 crowns" in p["text"] for p in found) == len(expected)


# --- conversations


async def test_a_follow_up_finds_what_the_talk_was_about(library: Library) -> None:
    history = [
        {"role": "user", "content": "Who was the first master of the port?"},
        {"role": "assistant", "content": "Jonas Berg was the first master of the port."},
    ]
    question = "And when did he come?"
    assert "Jonas Berg" in (await search(library.running, question, history=history, top_k=1))[0]["text"]
    said = (await library.explained(question, history=history))["explanation"]["queries"]
    assert [(q["text"], q["weight"]) for q in said] == [
        (question, 1.0),
        (f"{history[0]['content']} {question}", 1.0),
        (history[1]["content"], 0.3),
    ]
    assert "berg" in said[2]["terms"]


@pytest.mark.parametrize(
    "history",
    [[{"role": "system", "content": "x"}], [{"role": "user"}], ["x"], [{"role": "user", "content": "x"}] * 101],
    ids=lambda h: str(h)[:30],
)
async def test_a_wrong_history_is_422(library: Library, history: list[Any]) -> None:
    body = {"query": "x", "history": history}
    problem(await library.running.client.post("/search", json=body), 422, "invalid_request")


# --- explanations


async def test_an_explanation_tells_what_became_of_each_candidate(library: Library) -> None:
    assert (await library.running.client.post("/search", json={"query": "pilot"})).json()["explanation"] is None
    found = await library.explained("What does a pilot cost?", top_k=2)
    said, passages = found["explanation"], found["passages"]
    candidates = said["candidates"]
    assert [c["place"] for c in candidates] == list(range(1, len(candidates) + 1))
    assert said["candidates_in_all"] >= len(candidates) <= 30
    by_chunk = {c["chunk_id"]: c["outcome"] for c in candidates}
    for p in passages:
        if p["chunk_id"] in by_chunk:
            assert by_chunk[p["chunk_id"]] == ("passage" if p["relevant"] else "below_floor")
    assert sum(outcome in ("passage", "below_floor") for outcome in by_chunk.values()) <= len(passages) == 2
    assert set(said["milliseconds"]) == {"embed", "legs", "read", "rank", "passages"}
    assert all(spent >= 0 for spent in said["milliseconds"].values())


async def test_an_answer_keeps_how_its_passages_were_found(library: Library) -> None:
    client = library.running.client
    events = await library.running.events({"message": "What does a pilot cost?"})
    (sources,) = (e["items"] for e in events if e["type"] == "sources")
    message = events[0]["message_id"]
    kept = (await client.get(f"/messages/{message}/retrieval")).json()
    assert kept["message_id"] == message
    assert kept["retrieval"]["queries"] == [
        {"text": "What does a pilot cost?", "weight": 1.0, "terms": kept["retrieval"]["queries"][0]["terms"]}
    ]
    given = {c["chunk_id"] for c in kept["retrieval"]["candidates"] if c["outcome"] == "passage"}
    assert given
    assert len(given) <= len(sources)
    alone = await library.running.events({"message": "What does a pilot cost?", "documents": False})
    message = alone[0]["message_id"]
    assert (await client.get(f"/messages/{message}/retrieval")).json() == {"message_id": message, "retrieval": None}
    problem(await client.get("/messages/msg_unknown/retrieval"), 404, "not_found")


async def test_nobody_sees_how_somebody_elses_answer_was_found(keyed: Running) -> None:
    alice, bob = bearer(ALICE), bearer(BOB)
    files = {"file": ("port.md", PORT.encode())}
    await keyed.client.post("/documents/upload", params={"wait": "true"}, files=files, headers=alice)
    events = await keyed.events({"message": "What does a pilot cost?"}, headers=alice)
    path = f"/messages/{events[0]['message_id']}/retrieval"
    assert (await keyed.client.get(path, headers=alice)).json()["retrieval"]["candidates"]
    problem(await keyed.client.get(path, headers=bob), 404, "not_found")
    body = {"query": "What does a pilot cost?", "explain": True}
    found = (await keyed.client.post("/search", json=body, headers=bob)).json()
    assert (found["passages"], found["explanation"]["candidates_in_all"]) == ([], 0)


# --- relevance


@pytest.mark.parametrize("query", ["qwxz vbrk plfj", "ζζζ", "🦑🦑", "Ottoman tax reforms of the Tanzimat"])
async def test_nonsense_and_what_nobody_wrote_about_is_not_relevant(library: Library, query: str) -> None:
    found = await library.explained(query)
    assert found["passages"]
    assert not any(p["relevant"] for p in found["passages"]), [p["relevance"] for p in found["passages"]]
    floor = found["explanation"]["relevance_floor"]
    assert all(p["relevance"] < floor for p in found["passages"])
    assert "passage" not in {c["outcome"] for c in found["explanation"]["candidates"]}


async def test_a_question_that_is_answered_is_relevant_and_says_by_how_much(library: Library) -> None:
    found = await library.explained("When does the icebreaker leave?")
    best = found["passages"][0]
    assert best["relevant"] and found["explanation"]["relevance_floor"] <= best["relevance"] <= 1.5
    for p in found["passages"]:
        assert p["relevant"] == (p["relevance"] >= found["explanation"]["relevance_floor"])


# --- languages


@pytest.mark.parametrize(
    ("question", "document", "quote"),
    [
        ("Wann wurde der Leuchtturm gebaut?", "leuchtturm.txt", "1871"),
        ("Was kosten Brötchen in einer Bäckerei?", "leuchtturm.txt", "zwanzig Pfennige"),
        ("Когда построили маяк?", "mayak.txt", "1871"),
        ("Сколько книг может взять читатель?", "mayak.txt", "пять книг"),
        ("灯台はいつ建てられましたか", "todai.txt", "一八七一年"),
        ("図書館は何時に開きますか", "todai.txt", "午前九時"),
        ("पाठक कितनी किताबें ले सकता है?", "dvip.txt", "पाँच किताबें"),
        ("max retry count", "transport.py", "maxRetryCount"),
        ("maxRetryCount", "transport.py", "maxRetryCount"),
        ("MAXRETRYCOUNT", "transport.py", "maxRetryCount"),
    ],
)
@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
async def test_documents_are_found_in_their_language(
    library: Library, question: str, document: str, quote: str, mode: str
) -> None:
    assert (await library.found(question, mode=mode, top_k=1)) == [document]
    (found,) = await search(library.running, question, mode=mode, top_k=1)
    assert quote in found["text"]


async def test_accents_and_their_spelling_make_no_difference(library: Library) -> None:
    for question in ("Brötchen", "Bro\u0308tchen", "brotchen", "BRÖTCHEN"):
        assert (await library.found(question, mode="lexical"))[:1] == ["leuchtturm.txt"], question
