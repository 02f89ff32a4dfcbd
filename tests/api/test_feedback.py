"""Feedback on answers, pinned and archived sessions, and the search in messages."""

import json
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import pytest

from backend.storage.migrations import upgrade
from tests.api.helpers import data_dir, problem, rows
from tests.api.test_messages import say
from tests.support.harness import Running, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

# --- feedback


async def test_feedback_is_kept_shown_exported_and_imported(api: Running) -> None:
    answer = await say(api, "Is it good?")
    url = f"/messages/{answer['message_id']}"
    rated = (await api.client.put(f"{url}/feedback", json={"rating": "up"})).json()
    assert (rated["rating"], rated["comment"]) == ("up", None)
    changed = {"rating": "down", "comment": "Too long. 🌍"}
    await api.client.put(f"{url}/feedback", json=changed)
    shown = (await api.client.get(url)).json()["feedback"]
    assert {name: shown[name] for name in changed} == changed
    listed = (await api.client.get(f"/sessions/{answer['session_id']}/messages")).json()["items"]
    assert [message["feedback"] is not None for message in listed] == [False, True]
    exported = (await api.client.get(f"/sessions/{answer['session_id']}/export")).json()
    assert exported["messages"][1]["feedback"] == changed
    copied = (await api.client.post("/sessions/import", json=exported)).json()["id"]
    copies = (await api.client.get(f"/sessions/{copied}/messages")).json()["items"]
    assert {name: copies[1]["feedback"][name] for name in changed} == changed


async def test_feedback_is_taken_back_and_goes_with_its_message(api: Running) -> None:
    answer = await say(api, "Is it still good?")
    url = f"/messages/{answer['message_id']}/feedback"
    await api.client.put(url, json={"rating": "up"})
    for _ in range(2):
        assert (await api.client.delete(url)).status_code == 204
    await api.client.put(url, json={"rating": "up"})
    await api.client.delete(f"/messages/{answer['user_message_id']}")
    assert rows(data_dir(api), "SELECT * FROM feedback WHERE message_id = ?", answer["message_id"]) == []


@pytest.mark.parametrize(
    "body", [{}, {"rating": "maybe"}, {"rating": "up", "stars": 5}, {"rating": "up", "comment": "x" * 4001}]
)
async def test_wrong_feedback_is_422(api: Running, body: dict[str, Any]) -> None:
    answer = await say(api, "Rate this?")
    problem(await api.client.put(f"/messages/{answer['message_id']}/feedback", json=body), 422, "invalid_request")


async def test_only_answers_are_rated(api: Running) -> None:
    answer = await say(api, "Rate me?")
    url = f"/messages/{answer['user_message_id']}/feedback"
    problem(await api.client.put(url, json={"rating": "up"}), 422, "invalid_request")
    file = {
        "title": "x",
        "created_at": "2026-01-01T00:00:00Z",
        "messages": [
            {"id": "a", "role": "user", "parts": [], "created_at": "2026-01-01T00:00:00Z", "feedback": {"rating": "up"}}
        ],
    }
    problem(await api.client.post("/sessions/import", json=file), 422, "invalid_request")


async def test_ratings_are_counted(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", metrics=True) as server:
        answer = await say(server, "Count this?")
        for rating in ("up", "down", "up"):
            await server.client.put(f"/messages/{answer['message_id']}/feedback", json={"rating": rating})
        text = (await server.client.get("/metrics")).text
    assert 'streamforge_feedback_total{rating="up"} 2.0' in text
    assert 'streamforge_feedback_total{rating="down"} 1.0' in text


# --- pinned and archived


async def listed(server: Running, **params: Any) -> list[str]:
    found: list[str] = []
    while True:
        page = (await server.client.get("/sessions", params=params)).json()
        found += [session["id"] for session in page["items"]]
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]


async def test_pinned_sessions_come_first_and_archived_ones_are_left_out(fresh: Running) -> None:
    made = [(await fresh.client.post("/sessions", json={"title": f"S{n}"})).json() for n in range(5)]
    ids = [session["id"] for session in made]
    before = (await fresh.client.get(f"/sessions/{ids[1]}")).json()["updated_at"]
    pinned = (await fresh.client.patch(f"/sessions/{ids[1]}", json={"pinned": True})).json()
    assert (pinned["pinned"], pinned["updated_at"]) == (True, before)
    await fresh.client.patch(f"/sessions/{ids[3]}", json={"archived": True})
    newest_first = [ids[4], ids[2], ids[0]]
    for limit in (1, 2, 50):
        assert await listed(fresh, limit=limit) == [ids[1], *newest_first]
        assert await listed(fresh, limit=limit, pinned=False) == newest_first
    assert await listed(fresh, pinned=True) == [ids[1]]
    assert await listed(fresh, archived=True) == [ids[3]]
    assert (await fresh.client.get(f"/sessions/{ids[3]}")).json()["archived"] is True
    await fresh.client.patch(f"/sessions/{ids[3]}", json={"archived": False})
    assert ids[3] in await listed(fresh)
    for wrong in ({"pinned": None}, {"archived": "perhaps"}, {"title": None}):
        problem(await fresh.client.patch(f"/sessions/{ids[0]}", json=wrong), 422, "invalid_request")


# --- search


def word() -> str:
    return f"zeppelin{uuid.uuid4().hex[:8]}"


async def search(server: Running, q: str, **params: Any) -> list[dict[str, Any]]:
    response = await server.client.get("/search/messages", params={"q": q, **params})
    assert response.status_code == 200, response.text
    return response.json()["items"]


async def test_messages_are_found_by_their_words(api: Running) -> None:
    name = word()
    answer = await say(api, f"Where is the Café of {name} — and why? 🌍")
    (found,) = await search(api, f"cafe {name[:12]}")
    assert (found["message_id"], found["session_id"]) == (answer["user_message_id"], answer["session_id"])
    assert found["role"] == "user"
    assert [found["snippet"][m["start"] : m["end"]] for m in found["matches"]] == ["Café", name]
    assert await search(api, f"{name} nowhere") == [], "every word must be there"
    await api.client.patch(f"/sessions/{answer['session_id']}", json={"archived": True})
    assert len(await search(api, name)) == 1
    await api.client.delete(f"/messages/{answer['user_message_id']}")
    assert await search(api, name) == []


async def test_a_deleted_session_is_not_found(api: Running) -> None:
    name = word()
    answer = await say(api, f"About {name}.")
    assert await search(api, name)
    await api.client.delete(f"/sessions/{answer['session_id']}")
    assert await search(api, name) == []
    left = rows(data_dir(api), "SELECT count(*) FROM message_texts WHERE text LIKE ?", f"%{name}%")
    assert left == [(0,)]


async def test_pages_of_a_search(api: Running) -> None:
    name = word()
    session_id = (await say(api, f"{name} 0"))["session_id"]
    for n in range(1, 5):
        await say(api, f"{name} {n}", session_id=session_id)
    whole = [item["message_id"] for item in await search(api, name, limit=100)]
    found: list[str] = []
    params: dict[str, Any] = {"q": name, "limit": 2}
    while True:
        page = (await api.client.get("/search/messages", params=params)).json()
        found += [item["message_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert found == whole
    assert len(whole) >= 5


@pytest.mark.parametrize(
    "q", ['"', "*", "a OR b", "NEAR(x y)", "text:x", "(", "x AND NOT", "^x", "🌍", "-x", "x" * 200, "a\x00b"]
)
async def test_no_query_is_syntax(api: Running, q: str) -> None:
    response = await api.client.get("/search/messages", params={"q": q})
    assert response.status_code in (200, 422), response.text


async def test_a_snippet_is_short_however_long_a_word_is(api: Running) -> None:
    name = word()
    await say(api, f"{name}{'x' * 20_000} end {'y' * 5000}")
    (found,) = [item for item in await search(api, name) if item["role"] == "user"]
    assert len(found["snippet"]) <= 400
    assert found["snippet"][found["matches"][0]["start"] :].startswith(name)


async def test_marks_in_a_text_do_no_harm(api: Running) -> None:
    name = word()
    await say(api, f"\x02 a \x03\x03 {name} \x02")
    (found,) = [item for item in await search(api, name) if item["role"] == "user"]
    assert name in found["snippet"]


async def test_messages_of_an_earlier_version_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    upgrade(folder / "streamforge.db", "0004")
    text = json.dumps([{"type": "reasoning", "text": "hidden"}, {"type": "text", "text": "The pier of Saltburn."}])
    conn = sqlite3.connect(folder / "streamforge.db")
    conn.execute("INSERT INTO sessions VALUES ('ses_1', 'local', 'Old talk', 'msg_700', '{}', 1, 1)")
    columns = "id, owner, session_id, parent_id, role, status, parts, created_at"
    for n in range(701):
        parts = text if n == 700 else json.dumps([{"type": "text", "text": f"Message {n}"}])
        parent = f"msg_{n - 1}" if n else None
        values = (f"msg_{n}", "local", "ses_1", parent, "user", "complete", parts, n // 3)
        conn.execute(f"INSERT INTO messages ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    conn.commit()
    conn.close()
    async with serving(folder) as server:
        assert [item["message_id"] for item in await search(server, "pier saltburn")] == ["msg_700"]
        assert await search(server, "hidden") == []
        assert len(await search(server, "message", limit=100)) == 100
        session = (await server.client.get("/sessions/ses_1")).json()
        assert (session["pinned"], session["archived"]) == (False, False)
        assert (await server.client.get("/sessions/ses_1/messages")).json()["total"] == 701
        deleted = (await server.client.delete("/messages/msg_0")).json()
        assert deleted["messages"] == 701
        assert await search(server, "message") == []
