"""Citations over real sockets: the same in the stream, the JSON answer, the snapshot and the history."""

from pathlib import Path
from typing import Any

from backend.kit.times import now_ms
from tests.scenarios.support import messages, only_terminal, ordered
from tests.support.harness import Running, read_events, serving, text_of
from tests.support.provider_protocol import answer
from tests.support.provider_server import ProviderServer

CONTRACT = (
    b"# Terms\n\nEither party may terminate with a notice period of 45 days. Invoices are due within 30 days of "
    b"receipt.\n\nLate payments bear interest of 8 percent a year.\n"
)
QUESTION = {"message": "How long is the notice period, and when are invoices due?"}


def cited(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The citations of a stream, as the other forms hold them."""
    inner = ("type", "seq", "_id", "part_id")
    return [{k: v for k, v in e.items() if k not in inner} for e in events if e["type"] == "citation"]


async def test_every_form_of_a_run_holds_the_same_citations(tmp_path: Path, provider: ProviderServer) -> None:
    options = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url}
    async with serving(tmp_path / "data", llm_model="openai/test-model", **options) as server:
        await server.upload("contract.md", CONTRACT)
        said = "🌍 The notice period is 45 days [1]. Cats sleep all day [1]. Invoices are due within 30 days [1]【9】."
        provider.script(answer(said, chunk_by=3))
        events = await server.events(QUESTION)
        ordered(events)
        counts = {"given": 2, "dropped": 2}
        assert only_terminal(events)["citation_counts"] == counts
        assert len(cited(events)) == 2
        started = events[0]

        path = f"/runs/{started['run_id']}"
        async with server.client.stream("GET", f"{path}/events") as response:
            assert await read_events(response) == events
        accept = {"Accept": "application/json"}
        folded = (await server.client.get(f"{path}/events", headers=accept)).json()
        assert folded["citations"] == cited(events)
        assert folded["citation_counts"] == counts

        stored = (await messages(server, started["session_id"]))[1]
        (part,) = [p for p in stored["parts"] if p["type"] == "text"]
        assert part["text"] == text_of(events)
        assert part["citations"] == cited(events)
        assert part["dropped"] == 2

        await server.services.runs.hub._archive.expire(now_ms() + 1_000)
        async with server.client.stream("GET", f"{path}/events") as response:
            snapshot, end = await read_events(response)
        assert cited(snapshot["citations"]) == cited(events)
        assert snapshot["parts"][0]["dropped"] == 2
        assert end["citation_counts"] == counts
        assert (await server.client.get(f"{path}/events", headers=accept)).json() == folded


async def test_an_answer_without_marks_is_matched_when_it_is_whole(
    with_provider: Running, provider: ProviderServer
) -> None:
    await with_provider.upload("contract.md", CONTRACT)
    provider.script(answer("Sure, happy to help. The notice period is 45 days. It is 90 days for Acme.", chunk_by=3))
    events = await with_provider.events(QUESTION)
    ordered(events)
    (citation,) = [e for e in events if e["type"] == "citation"]
    assert text_of(events)[citation["start"] : citation["end"]] == "The notice period is 45 days."
    assert citation["quote"].endswith("a notice period of 45 days.")
    assert citation["matched"] is True
    assert only_terminal(events)["citation_counts"] == {"matched": 1}
    stored = (await messages(with_provider, events[0]["session_id"]))[1]
    assert stored["parts"][-1]["citations"] == cited(events)


async def test_one_mark_is_enough_to_match_nothing(with_provider: Running, provider: ProviderServer) -> None:
    await with_provider.upload("contract.md", CONTRACT)
    provider.script(answer("The notice period is 45 days. Invoices are due within 30 days of receipt [1]."))
    events = await with_provider.events(QUESTION)
    assert [c["quote"] for c in cited(events)] == ["Invoices are due within 30 days of receipt."]


async def test_an_answer_without_citations_counts_none(with_provider: Running, provider: ProviderServer) -> None:
    await with_provider.upload("contract.md", CONTRACT)
    provider.script(answer("Happy to help!"))
    events = await with_provider.events(QUESTION)
    assert "citation_counts" not in only_terminal(events)


async def test_json_stays_as_it_is_and_its_values_are_cited(with_provider: Running, provider: ProviderServer) -> None:
    await with_provider.upload("contract.md", CONTRACT)
    text = '{"note": "The notice period is 45 days.", "pages": [1], "ids": [1, 2], "url": "https://evil.test/x"}'
    schema = {"type": "object", "properties": {"note": {"type": "string"}}}
    provider.script(answer(text, chunk_by=3))
    events = await with_provider.events({**QUESTION, "response_schema": schema})
    assert text_of(events) == text
    (citation,) = [e for e in events if e["type"] == "citation"]
    assert text[citation["start"] : citation["end"]] == "The notice period is 45 days."
    assert citation["matched"] is True
    path = f"/runs/{events[0]['run_id']}/events"
    for accept in ("application/json", "text/plain"):
        response = await with_provider.client.get(path, headers={"Accept": accept})
        assert (response.json()["text"] if accept == "application/json" else response.text.strip()) == text


async def test_a_thought_whose_beginning_was_in_the_prompt_is_reasoning_in_the_end(
    with_provider: Running, provider: ProviderServer
) -> None:
    provider.script(answer("Let me see [1].\n</think>\n\nIt is so.", chunk_by=3))
    events = await with_provider.events({"message": "Is it so?", "documents": False})
    ordered(events)
    first, second = [e for e in events if e["type"] == "text.end"]
    assert first["thought"] is True
    assert "thought" not in second
    session_id = events[0]["session_id"]
    stored = (await messages(with_provider, session_id))[1]
    assert [(p["type"], p["text"].strip()) for p in stored["parts"]] == [
        ("reasoning", "Let me see [1]."),
        ("text", "It is so."),
    ]
    provider.script(answer("Again.\n</think>\n\nStill so.", chunk_by=3))
    events = await with_provider.events({"message": "Still?", "documents": False, "session_id": session_id})
    assert text_of(events) == "Still so.", "the server has learned it"
    assert "".join(e["text"] for e in events if e["type"] == "reasoning.delta") == "Again."
    assert provider.calls[-1].json["messages"][2]["content"] == "It is so."
