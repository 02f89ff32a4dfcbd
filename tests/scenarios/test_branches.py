"""Branches: answered once more, said otherwise, switched between; every sibling stays."""

import asyncio
from typing import Any

import pytest

from backend.storage.runs import turns
from tests.api.helpers import problem
from tests.scenarios.support import ask, gated, messages, only_terminal, ordered, rows, said, watch
from tests.support.harness import Running, read_events, text_of
from tests.support.provider_protocol import answer, error
from tests.support.provider_server import ProviderServer


async def streamed(server: Running, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    async with server.client.stream("POST", path, json=body) as response:
        assert response.status_code == 200, await response.aread()
        return await read_events(response)


def sent(call: Any) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in call.json["messages"] if m["role"] != "system"]


async def talk(server: Running, *questions: str) -> tuple[str, list[dict[str, Any]]]:
    session_id = None
    for question in questions:
        more = {"session_id": session_id} if session_id else {}
        session_id = (await server.events(ask(question, **more)))[0]["session_id"]
    assert session_id is not None
    return session_id, await messages(server, session_id)


async def test_an_answer_is_given_once_more_beside_the_first(with_provider: Running, provider: ProviderServer) -> None:
    provider.script(answer("A1."), answer("A2."), answer("B2."), answer("A3."))
    session_id, before = await talk(with_provider, "Q1?", "Q2?")
    again = {"documents": False, "model": "openai/other", "temperature": 0.5}
    events = await streamed(with_provider, f"/messages/{before[3]['id']}/regenerate", again)
    ordered(events)
    assert text_of(events) == "B2."
    assert events[0]["user_message_id"] == before[2]["id"]
    assert sent(provider.calls[2]) == [("user", "Q1?"), ("assistant", "A1."), ("user", "Q2?")]
    assert (provider.calls[2].json["model"], provider.calls[2].json["temperature"]) == ("other", 0.5)
    now = await messages(with_provider, session_id)
    assert [said(m) for m in now] == ["Q1?", "A1.", "Q2?", "B2."]
    assert now[3]["siblings"] == [before[3]["id"], now[3]["id"]]
    assert now[3]["model"] == "openai/other"
    assert [m["siblings"] for m in now[:3]] == [[m["id"]] for m in now[:3]]
    all_of_it = await messages(with_provider, session_id, branches=True)
    assert [(said(m), m["active"]) for m in all_of_it] == [
        ("Q1?", True),
        ("A1.", True),
        ("Q2?", True),
        ("A2.", False),
        ("B2.", True),
    ]
    await with_provider.events(ask("Q3?", session_id=session_id))
    assert sent(provider.calls[3])[-2:] == [("assistant", "B2."), ("user", "Q3?")]


async def test_the_users_message_can_be_named_instead_of_its_answer(
    with_provider: Running, provider: ProviderServer
) -> None:
    provider.script(answer("A1."), answer("B1."))
    session_id, before = await talk(with_provider, "Q1?")
    await streamed(with_provider, f"/messages/{before[0]['id']}/regenerate", {"documents": False})
    now = await messages(with_provider, session_id)
    assert [said(m) for m in now] == ["Q1?", "B1."]
    assert len(now[1]["siblings"]) == 2
    assert sent(provider.calls[1]) == [("user", "Q1?")]
    assert rows(with_provider, "SELECT count(*) FROM messages WHERE role = 'user'") == [(1,)]


async def test_a_message_is_said_otherwise_also_the_first(with_provider: Running, provider: ProviderServer) -> None:
    provider.script(answer("A1."), answer("A2."), answer("B2."), answer("C1."))
    session_id, before = await talk(with_provider, "Q1?", "Q2?")
    body = {"message": "Q2 otherwise?", "documents": False}
    await streamed(with_provider, f"/messages/{before[2]['id']}/edit", body)
    assert sent(provider.calls[2]) == [("user", "Q1?"), ("assistant", "A1."), ("user", "Q2 otherwise?")]
    now = await messages(with_provider, session_id)
    assert [said(m) for m in now] == ["Q1?", "A1.", "Q2 otherwise?", "B2."]
    assert now[2]["siblings"] == [before[2]["id"], now[2]["id"]]
    body = {"message": "Q1 otherwise?", "documents": False}
    await streamed(with_provider, f"/messages/{before[0]['id']}/edit", body)
    assert sent(provider.calls[3]) == [("user", "Q1 otherwise?")]
    now = await messages(with_provider, session_id)
    assert [said(m) for m in now] == ["Q1 otherwise?", "C1."]
    assert now[0]["parent_id"] is None
    assert len(await messages(with_provider, session_id, branches=True)) == 8
    refused = await with_provider.client.post(f"/messages/{before[1]['id']}/edit", json={"message": "x"})
    problem(refused, 422, "invalid_request")


async def test_the_active_path_can_be_switched_and_goes_on_from_there(
    with_provider: Running, provider: ProviderServer
) -> None:
    provider.script(answer("A1."), answer("A2."), answer("B1."), answer("B2."), answer("A3."))
    session_id, before = await talk(with_provider, "Q1?", "Q2?")
    await streamed(with_provider, f"/messages/{before[1]['id']}/regenerate", {"documents": False})
    await with_provider.events(ask("Q2 of B?", session_id=session_id))
    assert [said(m) for m in await messages(with_provider, session_id)] == ["Q1?", "B1.", "Q2 of B?", "B2."]
    head = f"/sessions/{session_id}/head"
    moved = await with_provider.client.put(head, json={"message_id": before[1]["id"]})
    assert moved.json()["head_message_id"] == before[1]["id"]
    assert [said(m) for m in await messages(with_provider, session_id)] == ["Q1?", "A1."]
    moved = await with_provider.client.put(head, json={"message_id": before[1]["id"], "leaf": True})
    assert moved.json()["head_message_id"] == before[3]["id"]
    assert [said(m) for m in await messages(with_provider, session_id)] == ["Q1?", "A1.", "Q2?", "A2."]
    moved = await with_provider.client.put(head, json={"message_id": before[0]["id"], "leaf": True})
    assert [said(m) for m in await messages(with_provider, session_id)][-1] == "B2.", "the newest branch"
    await with_provider.client.put(head, json={"message_id": before[3]["id"]})
    await with_provider.events(ask("Q3?", session_id=session_id))
    assert [text for _, text in sent(provider.calls[4])] == ["Q1?", "A1.", "Q2?", "A2.", "Q3?"]


async def test_the_head_is_a_message_of_the_session(with_provider: Running) -> None:
    session_id, before = await talk(with_provider, "Q1?")
    _, others = await talk(with_provider, "Another?")
    head = f"/sessions/{session_id}/head"
    for message_id in (others[0]["id"], "msg_unknown"):
        for leaf in (False, True):
            body = {"message_id": message_id, "leaf": leaf}
            problem(await with_provider.client.put(head, json=body), 404, "not_found")
    problem(await with_provider.client.put("/sessions/ses_x/head", json={"message_id": "m"}), 404, "not_found")
    assert [m["id"] for m in await messages(with_provider, session_id)] == [m["id"] for m in before]


async def test_an_answer_that_fails_is_a_sibling_too(with_provider: Running, provider: ProviderServer) -> None:
    provider.script(answer("A1."), [error(400, "no", "invalid_request_error", None)], answer("C1."))
    session_id, before = await talk(with_provider, "Q1?")
    again = f"/messages/{before[1]['id']}/regenerate"
    assert only_terminal(await streamed(with_provider, again, {"documents": False}))["type"] == "run.failed"
    await streamed(with_provider, again, {"documents": False})
    now = await messages(with_provider, session_id)
    assert said(now[1]) == "C1."
    assert len(now[1]["siblings"]) == 3


async def test_a_busy_session_answers_once_more_only_where_it_is_told_to(
    with_provider: Running, provider: ProviderServer
) -> None:
    gate = asyncio.Event()
    provider.script(answer("A1."), gated("A2", gate, " done."), answer("B1."))
    session_id, before = await talk(with_provider, "Q1?")
    again = f"/messages/{before[1]['id']}/regenerate"
    async with watch(with_provider.client, body=ask("Q2?", session_id=session_id)) as live:
        await live.text("A2")
        problem(await with_provider.client.post(again, json={"documents": False}), 409, "session_busy")
        queued = {"documents": False, "if_busy": "queue"}
        async with watch(with_provider.client, again, queued) as waiting:
            await waiting.until("status")
            gate.set()
            await live.all()
            await waiting.all()
    assert sent(provider.calls[2]) == [("user", "Q1?")]
    assert [said(m) for m in await messages(with_provider, session_id)] == ["Q1?", "B1."]


async def test_a_key_is_for_one_answer(with_provider: Running, provider: ProviderServer) -> None:
    session_id, before = await talk(with_provider, "Q1?")
    again = f"/messages/{before[1]['id']}/regenerate"
    headers = {"Idempotency-Key": "again", "Accept": "application/json"}
    runs = [
        (await with_provider.client.post(again, json={"documents": False}, headers=headers)).json()["run_id"]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(provider.calls) == 2
    assert len((await messages(with_provider, session_id))[1]["siblings"]) == 2
    other = await with_provider.client.post(again, json={"documents": False, "seed": 1}, headers=headers)
    problem(other, 422, "idempotency_key_reused")


async def test_what_is_not_there_can_not_be_answered(with_provider: Running) -> None:
    problem(await with_provider.client.post("/messages/msg_x/regenerate", json={}), 404, "not_found")
    problem(await with_provider.client.post("/messages/msg_x/edit", json={"message": "hi"}), 404, "not_found")
    problem(await with_provider.client.post("/messages/msg_x/edit", json={"message": " "}), 422, "invalid_request")


async def test_no_more_branches_than_there_may_be(
    with_provider: Running, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MAX_BRANCHES", 3)
    session_id, before = await talk(with_provider, "Q1?")
    question, answered = (m["id"] for m in before)
    asked = {"documents": False}
    for _ in range(2):
        await streamed(with_provider, f"/messages/{answered}/regenerate", asked)
        await streamed(with_provider, f"/messages/{question}/edit", {"message": "Otherwise?", **asked})
    more = ask("Q2?", session_id=session_id, parent_id=answered)
    for _ in range(3):
        await with_provider.events(more)
    count = len(await messages(with_provider, session_id, branches=True))
    refused = [
        await with_provider.client.post(f"/messages/{answered}/regenerate", json=asked),
        await with_provider.client.post(f"/messages/{question}/regenerate", json={"if_busy": "replace", **asked}),
        await with_provider.client.post(f"/messages/{question}/edit", json={"message": "x", **asked}),
        await with_provider.client.post("/chat", json=more),
    ]
    assert [problem(each, 409, "too_many_branches")["retryable"] for each in refused] == [False] * 4
    assert len(await messages(with_provider, session_id, branches=True)) == count
    await with_provider.events(ask("Q3?", session_id=session_id))


async def test_answers_that_are_being_written_count_as_branches(
    with_provider: Running, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MAX_BRANCHES", 3)
    gate = asyncio.Event()
    provider.script(answer("A1."), gated("B1", gate, "."), answer("C1."))
    session_id, before = await talk(with_provider, "Q1?")
    again, body = f"/messages/{before[1]['id']}/regenerate", {"documents": False, "if_busy": "queue"}
    async with watch(with_provider.client, again, body) as live, watch(with_provider.client, again, body) as waiting:
        await live.text("B1")
        await waiting.until("status")
        problem(await with_provider.client.post(again, json=body), 409, "too_many_branches")
        body["if_busy"] = "replace"
        problem(await with_provider.client.post(again, json=body), 409, "too_many_branches")
        gate.set()
        await live.all()
        await waiting.all()
    assert len((await messages(with_provider, session_id))[1]["siblings"]) == 3
