"""Two messages at once in a session, the same POST twice, branches, and the limit on runs."""

import asyncio
from typing import Any

import pytest

from backend.errors import Conflict
from backend.services.answers.request import AnswerRequest
from tests.scenarios.support import ask, gated, messages, only_terminal, ordered, rows, said, watch
from tests.support.harness import Running, serving, text_of
from tests.support.provider_protocol import Stall, answer, chunk, error
from tests.support.provider_server import ProviderServer


def contents(call: Any) -> list[tuple[str, str]]:
    """What the provider was sent, without the system prompt."""
    return [(m["role"], m["content"]) for m in call.json["messages"] if m["role"] != "system"]


async def test_a_second_message_is_refused_with_the_live_run(with_provider: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("Hello", gate, " you"))
    async with watch(with_provider.client, body=ask()) as client:
        await client.text("Hello")
        refused = await with_provider.client.post("/chat", json=ask("And?", session_id=client.session_id))
        assert refused.status_code == 409
        assert (refused.json()["code"], refused.json()["run_id"]) == ("session_busy", client.run_id)
        gate.set()
        await client.all()
    assert rows(with_provider, "SELECT count(*) FROM messages") == [(2,)]
    events = await with_provider.events(ask("And?", session_id=client.session_id))
    assert only_terminal(events)["type"] == "run.completed"


async def test_two_at_once_in_a_session_one_runs(with_provider: Running, provider: ProviderServer) -> None:
    provider.script(answer("First."), [chunk({"content": "Half"}), Stall()])
    session_id = (await with_provider.events(ask()))[0]["session_id"]
    body = ask(session_id=session_id)

    async def post() -> int:
        async with with_provider.client.stream("POST", "/chat", json=body) as response:
            return response.status_code

    statuses = await asyncio.gather(*(post() for _ in range(8)))
    assert sorted(statuses) == [200] + [409] * 7
    assert rows(with_provider, "SELECT count(*) FROM runs") == [(2,)]
    assert len(provider.calls) <= 2


async def test_started_in_one_breath_in_a_session_one_runs(with_provider: Running, provider: ProviderServer) -> None:
    """Straight at the service, so that all of them look whether the session is free before any of them is stored."""
    session_id = (await with_provider.events(ask()))[0]["session_id"]
    provider.script([chunk({"content": "Half"}), Stall()])
    turn = AnswerRequest("Hello?", session_id=session_id, documents=False)
    tries = (with_provider.services.answers.start("local", turn, None) for _ in range(8))
    results = await asyncio.gather(*tries, return_exceptions=True)
    (started,) = [r for r in results if isinstance(r, str)]
    refused = [r for r in results if isinstance(r, Conflict)]
    assert [r.extra["run_id"] for r in refused] == [started] * 7


async def test_a_queued_message_is_answered_after_the_first_and_knows_it(
    with_provider: Running, provider: ProviderServer
) -> None:
    gate = asyncio.Event()
    provider.script(gated("One is", gate, " one."), answer("Two is two."), answer("Three."))
    async with watch(with_provider.client, body=ask("What is one?")) as first:
        await first.text("is")
        queue = ask("And two?", session_id=first.session_id, if_busy="queue")
        async with watch(with_provider.client, body=queue) as second:
            assert (await second.until("status"))["phase"] == "queued"
            third_body = ask("And three?", session_id=first.session_id, if_busy="queue")
            async with watch(with_provider.client, body=third_body) as third:
                assert (await third.until("status"))["phase"] == "queued"
                assert len(provider.calls) == 1
                gate.set()
                for client in (first, second, third):
                    ordered(await client.all())
    assert contents(provider.calls[2]) == [
        ("user", "What is one?"),
        ("assistant", "One is one."),
        ("user", "And two?"),
        ("assistant", "Two is two."),
        ("user", "And three?"),
    ]
    stored = await messages(with_provider, first.session_id)
    assert [said(m) for m in stored] == [
        "What is one?",
        "One is one.",
        "And two?",
        "Two is two.",
        "And three?",
        "Three.",
    ]
    assert [m["parent_id"] for m in stored] == [None, *(m["id"] for m in stored[:-1])]


async def test_while_a_message_waits_the_conversation_is_all_there(
    with_provider: Running, provider: ProviderServer
) -> None:
    gate = asyncio.Event()
    provider.script(answer("Zero."), gated("One", gate, " one."), answer("Two."))
    session_id = (await with_provider.events(ask("Zero?")))[0]["session_id"]
    async with watch(with_provider.client, body=ask("One?", session_id=session_id)) as first:
        await first.text("One")
        body = ask("Two?", session_id=session_id, if_busy="queue")
        async with watch(with_provider.client, body=body) as second:
            await second.until("status")
            shown = [said(m) for m in await messages(with_provider, session_id)]
            assert shown == ["Zero?", "Zero.", "One?", "Two?"]
            gate.set()
            await second.all()


async def test_a_queued_message_goes_on_after_a_failure(with_provider: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script([*gated("Half", gate, "")[:-3], error(500, "no", "server_error", None)], answer("Two."))
    async with watch(with_provider.client, body=ask("One?")) as first:
        await first.text("Half")
        body = ask("Two?", session_id=first.session_id, if_busy="queue")
        async with watch(with_provider.client, body=body) as second:
            await second.until("status")
            gate.set()
            assert only_terminal(await first.all())["type"] == "run.failed"
            assert only_terminal(await second.all())["type"] == "run.completed"
    assert contents(provider.calls[1]) == [("user", "One?"), ("assistant", "Half"), ("user", "Two?")]


async def test_a_waiting_message_can_be_cancelled(with_provider: Running, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("One", gate, " one."))
    async with watch(with_provider.client, body=ask("One?")) as first:
        await first.text("One")
        body = ask("Two?", session_id=first.session_id, if_busy="queue")
        async with watch(with_provider.client, body=body) as second:
            await second.until("status")
            await with_provider.client.post(f"/runs/{second.run_id}/cancel")
            assert only_terminal(await second.all())["type"] == "run.cancelled"
        gate.set()
        assert only_terminal(await first.all())["type"] == "run.completed"
    assert len(provider.calls) == 1
    stored = await messages(with_provider, first.session_id)
    assert [(said(m), m["status"]) for m in stored] == [
        ("One?", "complete"),
        ("One one.", "complete"),
        ("Two?", "complete"),
        ("", "cancelled"),
    ]


async def test_replace_cancels_the_live_run_and_those_that_wait(
    with_provider: Running, provider: ProviderServer
) -> None:
    provider.script([chunk({"content": "Half"}), Stall()], answer("Instead."))
    async with watch(with_provider.client, body=ask("One?")) as first:
        await first.text("Half")
        session = first.session_id
        async with watch(with_provider.client, body=ask("Two?", session_id=session, if_busy="queue")) as second:
            await second.until("status")
            events = await with_provider.events(ask("Three?", session_id=session, if_busy="replace"))
            for client in (first, second):
                end = only_terminal(await client.all())
                assert (end["type"], end["by"]) == ("run.cancelled", "replaced")
    assert text_of(events) == "Instead."
    await provider.calls[0].disconnected()
    assert len(provider.calls) == 2, "the one that waited must not begin"
    stored = await messages(with_provider, session)
    assert [m["parent_id"] for m in stored] == [None, *(m["id"] for m in stored[:-1])]


@pytest.mark.parametrize("wrong", [{"expect_head": "msg_none"}, {"parent_id": "msg_none"}])
async def test_a_replacement_that_is_refused_replaces_nothing(
    with_provider: Running, provider: ProviderServer, wrong: dict[str, str]
) -> None:
    gate = asyncio.Event()
    provider.script(gated("Half", gate, " and whole."))
    async with watch(with_provider.client, body=ask("One?")) as first:
        await first.text("Half")
        body = ask("Two?", session_id=first.session_id, if_busy="replace", **wrong)
        assert (await with_provider.client.post("/chat", json=body)).status_code in (404, 409)
        gate.set()
        assert only_terminal(await first.all())["type"] == "run.completed"


async def test_replace_with_the_head_that_the_client_sees(with_provider: Running, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "Half"}), Stall()], answer("Instead."))
    async with watch(with_provider.client, body=ask("One?")) as first:
        await first.text("Half")
        head = (await with_provider.client.get(f"/sessions/{first.session_id}")).json()["head_message_id"]
        body = ask("Two?", session_id=first.session_id, if_busy="replace", expect_head=head)
        assert text_of(await with_provider.events(body)) == "Instead."


# -- the same POST again ---------------------------------------------------------------------------

KEY = {"Idempotency-Key": "key-1"}


async def test_the_same_key_and_body_is_the_same_run(with_provider: Running, provider: ProviderServer) -> None:
    first = await with_provider.events(ask(), headers=KEY)
    again = await with_provider.events(ask(), headers=KEY)
    assert again == first
    assert len(provider.calls) == 1


async def test_the_same_key_and_another_body_is_422(with_provider: Running, provider: ProviderServer) -> None:
    await with_provider.events(ask(), headers=KEY)
    for other in (ask("Something else."), ask(temperature=0.1), ask(model="simulated/words")):
        response = await with_provider.client.post("/chat", json=other, headers=KEY)
        assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")
    assert len(provider.calls) == 1


@pytest.mark.parametrize("in_session", [False, True])
async def test_the_same_post_ten_times_at_once_is_one_run(
    with_provider: Running, provider: ProviderServer, in_session: bool
) -> None:
    body = ask()
    if in_session:
        body["session_id"] = (await with_provider.events(ask()))[0]["session_id"]
    before = len(provider.calls)
    provider.script(answer("Only once."))
    answers = await asyncio.gather(*(with_provider.events(body, headers=KEY) for _ in range(10)))
    assert all(events == answers[0] for events in answers)
    assert text_of(answers[0]) == "Only once."
    assert len(provider.calls) == before + 1


async def test_the_same_turn_started_in_one_breath_is_one_run(with_provider: Running, provider: ProviderServer) -> None:
    """Straight at the service, so that all ten look for the key before any of them is stored."""
    gate = asyncio.Event()
    session_id = (await with_provider.events(ask()))[0]["session_id"]
    provider.script(gated("Only", gate, " once."))
    turn = AnswerRequest("Hello?", session_id=session_id, documents=False, idempotency_key="key-1")
    started = await asyncio.gather(*(with_provider.services.answers.start("local", turn, None) for _ in range(10)))
    gate.set()
    assert len(set(started)) == 1
    assert rows(with_provider, "SELECT count(*) FROM runs") == [(2,)]


async def test_the_same_key_at_once_with_other_bodies_runs_one(
    with_provider: Running, provider: ProviderServer
) -> None:
    """And gives no place back that nobody took."""
    posts = [with_provider.client.post("/chat", json=ask(f"Question {n}"), headers=KEY) for n in range(10)]
    statuses = sorted(r.status_code for r in await asyncio.gather(*posts))
    assert statuses == [200] + [422] * 9
    assert len(provider.calls) == 1
    assert with_provider.services.runs.hub._run_count == 0


async def test_a_retry_does_not_need_a_place(tmp_path, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    provider.script(gated("Hello", gate, " you."))
    options = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url, "max_runs": 1}
    async with serving(tmp_path / "data", llm_model="openai/m", **options) as server:
        tasks = [asyncio.create_task(server.events(ask(), headers=KEY)) for _ in range(5)]
        await provider.call(0)
        gate.set()
        answers = await asyncio.gather(*tasks)
    assert all(text_of(events) == "Hello you." for events in answers)


# -- branches --------------------------------------------------------------------------------------


async def test_parent_id_branches(with_provider: Running, provider: ProviderServer) -> None:
    provider.script(answer("A1."), answer("A2."), answer("B2."))
    first = await with_provider.events(ask("Q1?"))
    session_id = first[0]["session_id"]
    await with_provider.events(ask("Q2?", session_id=session_id))
    await with_provider.events(ask("Q2 again?", session_id=session_id, parent_id=first[0]["message_id"]))
    assert contents(provider.calls[2]) == [("user", "Q1?"), ("assistant", "A1."), ("user", "Q2 again?")]
    assert [said(m) for m in await messages(with_provider, session_id)] == ["Q1?", "A1.", "Q2 again?", "B2."]
    every = await messages(with_provider, session_id, branches=True)
    assert sorted(said(m) for m in every) == sorted(["Q1?", "A1.", "Q2?", "A2.", "Q2 again?", "B2."])


async def test_an_unknown_parent_is_404_and_stores_nothing(with_provider: Running) -> None:
    session_id = (await with_provider.events(ask()))[0]["session_id"]
    for body in (ask(session_id=session_id, parent_id="msg_none"), ask(session_id="ses_none"), ask(parent_id="msg_no")):
        response = await with_provider.client.post("/chat", json=body)
        assert response.status_code in (404, 422), response.text
    assert rows(with_provider, "SELECT count(*) FROM messages") == [(2,)]
    assert rows(with_provider, "SELECT count(*) FROM sessions") == [(1,)]


async def test_expect_head_is_409_when_the_session_moved_on(with_provider: Running) -> None:
    first = (await with_provider.events(ask()))[0]
    body = ask(session_id=first["session_id"], expect_head=first["message_id"])
    second = (await with_provider.events(body))[0]
    response = await with_provider.client.post("/chat", json=body)
    assert (response.status_code, response.json()["code"]) == (409, "head_moved")
    assert response.json()["head_message_id"] == second["message_id"]
    assert rows(with_provider, "SELECT count(*) FROM messages") == [(4,)]


# -- the limit -------------------------------------------------------------------------------------


async def test_over_max_runs_is_429_and_nothing_is_stored(tmp_path, provider: ProviderServer) -> None:
    options = {"openai_api_key": "sk-test-0123456789", "openai_base_url": provider.base_url, "max_runs": 2}
    async with serving(tmp_path / "data", llm_model="openai/m", **options) as server:
        gate = asyncio.Event()
        provider.script(gated("One", gate, "."), [chunk({"content": "Two"}), Stall()])
        async with watch(server.client, body=ask()) as one, watch(server.client, body=ask()) as two:
            await asyncio.gather(one.text("One"), two.text("Two"))
            refused = await server.client.post("/chat", json=ask())
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_runs")
            assert int(refused.headers["retry-after"]) >= 1
            assert rows(server, "SELECT count(*) FROM runs") == [(2,)]
            assert rows(server, "SELECT count(*) FROM sessions") == [(2,)]
            gate.set()
            await one.all()
            await server.client.post(f"/runs/{two.run_id}/cancel")
        # Completion and cancel gave both places back; so do failures and refusals.
        provider.script(*[[error(400, "no", "invalid_request_error", None)]] * 3)
        for _ in range(3):
            assert only_terminal(await server.events(ask()))["type"] == "run.failed"
        for _ in range(3):
            assert (await server.client.post("/chat", json=ask(session_id="ses_none"))).status_code == 404
            assert (await server.client.post("/chat", json=ask(model="nobody/x"))).status_code == 422
        both = await asyncio.gather(server.events(ask()), server.events(ask()))
        assert [only_terminal(events)["type"] for events in both] == ["run.completed"] * 2
        assert server.services.runs.hub._run_count == 0
