"""Empty sessions, single messages, their deletion, paging, runs, and who is asking."""

import asyncio
from typing import Any

import pytest

from tests.api.helpers import ALICE, BOB, bearer, data_dir, problem, rows
from tests.support.harness import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = {"Accept": "application/json"}


async def say(server: Running, message: str, **more: Any) -> dict[str, Any]:
    body = {"message": message, "documents": False, "model": "simulated/words", **more}
    response = await server.client.post("/chat", json=body, headers=JSON)
    assert response.status_code == 200, response.text
    return response.json()


async def path_of(server: Running, session_id: str) -> list[str]:
    listed = await server.client.get(f"/sessions/{session_id}/messages")
    return [message["id"] for message in listed.json()["items"]]


# --- empty sessions


async def test_an_empty_session_is_made_and_used(api: Running) -> None:
    made = await api.client.post("/sessions", json={})
    assert made.status_code == 201
    session = made.json()
    assert (session["title"], session["head_message_id"]) == ("New session", None)
    listed = (await api.client.get(f"/sessions/{session['id']}/messages")).json()
    assert (listed["items"], listed["total"]) == ([], 0)
    answer = await say(api, "How deep is the well at Cleeve?", session_id=session["id"])
    assert answer["session_id"] == session["id"]
    assert (await api.client.get(f"/sessions/{session['id']}")).json()["title"] == "How deep is the well at Cleeve?"


async def test_a_session_may_be_made_without_a_body_and_with_options(api: Running) -> None:
    assert (await api.client.post("/sessions")).status_code == 201
    options = {"title": "Wells", "model": "simulated/words", "system_prompt": "Be brief.", "pinned": True}
    session = (await api.client.post("/sessions", json=options)).json()
    assert {name: session[name] for name in options} == options
    answer = await say(api, "And now?", session_id=session["id"])
    assert (await api.client.get(f"/sessions/{answer['session_id']}")).json()["title"] == "Wells"


@pytest.mark.parametrize(
    ("body", "status"),
    [({"colour": 1}, 422), ({"title": " "}, 422), ({"collections": ["nowhere"]}, 404), ({"model": "no/such"}, 422)],
)
async def test_a_wrong_session_is_not_made(api: Running, body: dict[str, Any], status: int) -> None:
    before = rows(data_dir(api), "SELECT count(*) FROM sessions")
    assert (await api.client.post("/sessions", json=body)).status_code == status
    assert rows(data_dir(api), "SELECT count(*) FROM sessions") == before


# --- one message


async def test_a_message_is_read_as_in_its_session(api: Running) -> None:
    answer = await say(api, "Who built the mill?")
    listed = (await api.client.get(f"/sessions/{answer['session_id']}/messages")).json()["items"]
    for message in listed:
        assert (await api.client.get(f"/messages/{message['id']}")).json() == message
    assert listed[1]["session_id"] == answer["session_id"]
    problem(await api.client.get("/messages/msg_unknown"), 404, "not_found")


async def test_a_deleted_message_takes_with_it_all_that_follows(api: Running) -> None:
    first = await say(api, "One?")
    session_id = first["session_id"]
    second = await say(api, "Two?", session_id=session_id)
    third = await say(api, "Three?", session_id=session_id)
    receipt = (await api.client.delete(f"/messages/{second['user_message_id']}")).json()
    assert receipt == {"message_id": second["user_message_id"], "messages": 4}
    assert await path_of(api, session_id) == [first["user_message_id"], first["message_id"]]
    for answer in (second, third):
        problem(await api.client.get(f"/messages/{answer['message_id']}"), 404, "not_found")
        problem(await api.client.get(f"/runs/{answer['run_id']}"), 404, "not_found")
        assert rows(data_dir(api), "SELECT * FROM run_events WHERE run_id = ?", answer["run_id"]) == []
    assert (await api.client.get(f"/runs/{first['run_id']}")).status_code == 200
    booked = rows(data_dir(api), "SELECT count(*) FROM calls WHERE session_id = ?", session_id)
    assert booked == [(3,)], "what was used is still booked"
    again = await say(api, "Two again?", session_id=session_id)
    assert (await path_of(api, session_id))[-1] == again["message_id"]


async def test_deleting_one_of_two_answers_shows_the_other(api: Running) -> None:
    first = await say(api, "Pick one?")
    regenerated = await api.client.post(
        f"/messages/{first['message_id']}/regenerate",
        json={"documents": False, "model": "simulated/words"},
        headers=JSON,
    )
    second = regenerated.json()
    follow = await say(api, "Go on?", session_id=first["session_id"])
    await api.client.delete(f"/messages/{second['message_id']}")
    assert await path_of(api, first["session_id"]) == [first["user_message_id"], first["message_id"]]
    assert (await api.client.get(f"/runs/{first['run_id']}")).status_code == 200
    problem(await api.client.get(f"/messages/{follow['user_message_id']}"), 404, "not_found")


async def test_deleting_another_branch_leaves_the_active_path(api: Running) -> None:
    first = await say(api, "Stay here?")
    other = await say(api, "Aside?", session_id=first["session_id"], parent_id=first["message_id"])
    back = await say(api, "Straight on?", session_id=first["session_id"], parent_id=first["message_id"])
    path = await path_of(api, first["session_id"])
    await api.client.delete(f"/messages/{other['user_message_id']}")
    assert await path_of(api, first["session_id"]) == path
    assert path[-1] == back["message_id"]


async def test_deleting_the_first_message_empties_the_session(api: Running) -> None:
    first = await say(api, "Gone?")
    await api.client.delete(f"/messages/{first['user_message_id']}")
    session = (await api.client.get(f"/sessions/{first['session_id']}")).json()
    assert session["head_message_id"] is None
    await say(api, "Back?", session_id=first["session_id"])
    assert len(await path_of(api, first["session_id"])) == 2


async def test_while_the_session_answers_nothing_is_deleted(api: Running) -> None:
    first = await say(api, "Quiet?")
    slow = {
        "message": "word " * 4000,
        "documents": False,
        "model": "simulated/words",
        "session_id": first["session_id"],
    }
    async with api.client.stream("POST", "/chat", json=slow) as response:
        run_id = response.headers["content-location"].removeprefix("/runs/")
        refused = await api.client.delete(f"/messages/{first['user_message_id']}")
        if (await api.client.get(f"/runs/{run_id}")).json()["status"] == "running":
            assert problem(refused, 409, "session_busy")["run_id"] == run_id
        await api.client.post(f"/runs/{run_id}/cancel")
    assert (await api.client.delete(f"/messages/{first['user_message_id']}")).status_code == 200


# --- paging


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_of_messages_are_the_whole_list(api: Running, order: str) -> None:
    session_id = (await say(api, "0?"))["session_id"]
    for n in range(1, 4):
        await say(api, f"{n}?", session_id=session_id)
    url, whole = f"/sessions/{session_id}/messages", await path_of(api, session_id)
    found: list[str] = []
    params: dict[str, Any] = {"limit": 3, "order": order}
    while True:
        page = (await api.client.get(url, params=params)).json()
        assert page["total"] == 8
        found += [message["id"] for message in page["items"]]
        if page["next_cursor"] is None:
            break
        assert len(page["items"]) == 3
        params["cursor"] = page["next_cursor"]
    assert found == (whole if order == "asc" else whole[::-1])


async def test_a_cursor_whose_message_is_gone_is_400(api: Running) -> None:
    answer = await say(api, "Here?")
    url = f"/sessions/{answer['session_id']}/messages"
    cursor = (await api.client.get(url, params={"limit": 1})).json()["next_cursor"]
    await api.client.delete(f"/messages/{answer['user_message_id']}")
    problem(await api.client.get(url, params={"limit": 1, "cursor": cursor}), 400, "bad_cursor")
    problem(await api.client.get(url, params={"cursor": "nonsense"}), 400, "bad_cursor")


# --- runs


async def test_runs_are_listed_by_session_and_status(api: Running) -> None:
    answers = [await say(api, "A?")]
    answers += [await say(api, f"{n}?", session_id=answers[0]["session_id"]) for n in range(2)]
    params: dict[str, Any] = {"session_id": answers[0]["session_id"], "limit": 2}
    first = (await api.client.get("/runs", params=params)).json()
    rest = (await api.client.get("/runs", params={**params, "cursor": first["next_cursor"]})).json()
    assert [run["id"] for run in first["items"] + rest["items"]] == [answer["run_id"] for answer in answers[::-1]]
    assert rest["next_cursor"] is None
    assert first["items"][0] == (await api.client.get(f"/runs/{answers[-1]['run_id']}")).json()
    done = (await api.client.get("/runs", params={**params, "status": "completed", "limit": 9})).json()["items"]
    assert len(done) == 3
    assert (await api.client.get("/runs", params={**params, "status": "failed"})).json()["items"] == []
    problem(await api.client.get("/runs", params={"status": "odd"}), 422, "invalid_request")
    assert (await api.client.get("/runs", params={"session_id": "ses_unknown"})).json()["items"] == []


# --- who is asking


async def test_me_without_keys(api: Running) -> None:
    me = (await api.client.get("/me")).json()
    assert (me["name"], me["keys"], me["budget"]) == ("local", False, None)
    settings = api.services.settings
    assert me["limits"] == {
        "message_chars": settings.runs.max_message_chars,
        "upload_mb": settings.library.max_upload_mb,
        "upload_files": settings.library.max_upload_files,
        "live_runs": settings.runs.max_runs,
    }


async def test_me_with_keys(keyed: Running) -> None:
    for name, key in (("alice", ALICE), ("bob", BOB)):
        me = (await keyed.client.get("/me", headers=bearer(key))).json()
        assert (me["name"], me["keys"], me["admin"]) == (name, True, False)


async def test_lists_of_runs_and_messages_are_of_the_owner(keyed: Running) -> None:
    body = {"message": "Where is the quicksilver?", "documents": False, "model": "simulated/words"}
    answer = (await keyed.client.post("/chat", json=body, headers={**bearer(ALICE), **JSON})).json()
    await asyncio.sleep(0)
    params = {"session_id": answer["session_id"]}
    assert (await keyed.client.get("/runs", params=params, headers=bearer(BOB))).json()["items"] == []
    assert len((await keyed.client.get("/runs", params=params, headers=bearer(ALICE))).json()["items"]) == 1
    query = {"q": "quicksilver"}
    assert (await keyed.client.get("/search/messages", params=query, headers=bearer(BOB))).json()["items"] == []
    found = (await keyed.client.get("/search/messages", params=query, headers=bearer(ALICE))).json()["items"]
    assert answer["user_message_id"] in {item["message_id"] for item in found}
