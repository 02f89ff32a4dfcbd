"""The main job, whole, over real sockets."""

import asyncio
import shutil
from pathlib import Path

from tests.scenarios.support import rows
from tests.support.harness import Running, read_events, serving, text_of
from tests.support.provider_protocol import answer
from tests.support.provider_server import ProviderServer

CONTRACT = b"""# Supply agreement

This agreement between Acme and Borealis begins on 1 March 2025.

## Termination

Either party may terminate this agreement with a notice period of 45 days. Notice must be given in writing.

## Payment

Invoices are due within 30 days of receipt. Late payments bear interest of 8 percent a year.
"""


async def test_upload_ask_cite(server: Running) -> None:
    document = await server.upload("contract.md", CONTRACT)
    assert document["status"] == "ready"
    events = await server.events({"message": "How long is the notice period?"})
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "run.started"
    assert events[-1]["type"] == "run.completed"
    citation = next(e for e in events if e["type"] == "citation")
    assert "45 days" in citation["quote"]
    place = citation["document"]
    params = {"version": place["version"], "start": place["start"], "end": place["end"]}
    text = (await server.client.get(f"/documents/{document['id']}/text", params=params)).json()
    assert text["text"] == citation["quote"]


async def test_a_question_that_nothing_answers(server: Running) -> None:
    await server.upload("contract.md", CONTRACT)
    events = await server.events({"message": "Who painted the Mona Lisa?"})
    assert "no answer" in text_of(events)
    assert not [e for e in events if e["type"] == "citation"]


async def test_cut_and_resumed_it_is_whole(server: Running) -> None:
    await server.upload("contract.md", CONTRACT)
    body = {"message": "When are invoices due?"}
    async with server.client.stream("POST", "/chat", json=body) as response:
        first = await read_events(response, stop_after=3)
        path = response.headers["location"]
    async with server.client.stream("GET", path, headers={"Last-Event-ID": first[-1]["_id"]}) as response:
        rest = await read_events(response)
    async with server.client.stream("GET", path) as response:
        whole = await read_events(response)
    assert first + rest == whole


async def test_a_model_of_openais_api_cites(with_provider: Running, provider: ProviderServer) -> None:
    await with_provider.upload("contract.md", CONTRACT)
    provider.script(answer("The notice period is 45 days [1]. It must be written.", chunk_by=3))
    events = await with_provider.events({"message": "How long is the notice period?"})
    assert text_of(events) == "The notice period is 45 days. It must be written."
    (citation,) = [e for e in events if e["type"] == "citation"]
    assert "45 days" in citation["quote"]
    assert (citation["start"], citation["end"]) == (0, 29)
    assert "passage-" in provider.requests[-1].json["messages"][-1]["content"]


async def test_a_follow_up_is_understood_without_a_model(server: Running) -> None:
    await server.upload("contract.md", CONTRACT)
    first = await server.events({"message": "What is the notice period?"})
    session_id = first[0]["session_id"]
    second = await server.events({"message": "and how long is it?", "session_id": session_id})
    assert any("45 days" in e["quote"] for e in second if e["type"] == "citation")


async def test_several_quotes_stand_apart(server: Running) -> None:
    await server.upload("contract.md", CONTRACT)
    body = {"message": "Invoices due within 30 days of receipt and late payments bear interest of 8 percent a year"}
    events = await server.events(body)
    citations = [e for e in events if e["type"] == "citation"]
    assert len(citations) >= 2, text_of(events)
    assert text_of(events) == " ".join(c["quote"] for c in citations)
    for citation in citations:
        assert text_of(events)[citation["start"] : citation["end"]] == citation["quote"]


async def test_vectors_that_were_lost_are_made_again(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        await server.upload("contract.md", CONTRACT)
    shutil.rmtree(tmp_path / "data" / "vectors")
    async with serving(tmp_path / "data") as server:
        while rows(server, "SELECT stage FROM jobs") != [("ready",)]:
            await asyncio.sleep(0.02)
        events = await server.events({"message": "How long is the notice period?"})
        assert any(e["type"] == "citation" for e in events)


async def test_a_session_id_that_looks_like_a_key_blocks_nothing(server: Running) -> None:
    body = {"message": "x", "session_id": "key local K9"}
    response = await server.client.post("/chat", json=body, headers={"Idempotency-Key": "K9"}, timeout=10)
    assert response.status_code == 404


async def test_a_stored_file_that_was_lost_comes_back_with_the_next_upload(server: Running, tmp_path: Path) -> None:
    document = await server.upload("contract.md", CONTRACT)
    (tmp_path / "data" / "files" / document["version"]).unlink()
    path = f"/documents/{document['id']}/content"
    assert (await server.client.get(path)).status_code == 404
    again = await server.upload("contract.md", CONTRACT)
    assert again["id"] == document["id"]
    assert (await server.client.get(path)).content == CONTRACT
