"""Sessions out and in: what is exported comes back as it was, what is broken is refused whole."""

import copy
from typing import Any

import pytest

from tests.api.helpers import ALICE, BOB, bearer, problem, rows, stored
from tests.api.helpers import data_dir as folder_of
from tests.support.harness import Running, read_events

pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = {"model": "simulated/words", "documents": False}


async def talked(api: Running) -> str:
    """A session with a citation, a second answer beside the first, and a turn after it: its id."""
    document = await api.upload("Terms [v2] *draft*.md", b"# Terms\n\nThe notice period is 45 days for <tenants>.")
    body = {"message": "How long is the notice period for tenants?", "documents": [document["id"]]}
    events = await api.events(body)
    assert [e for e in events if e["type"] == "citation"]
    session_id, answered = events[0]["session_id"], events[0]["message_id"]
    async with api.client.stream("POST", f"/messages/{answered}/regenerate", json=WORDS) as response:
        await read_events(response)
    await api.client.put(f"/sessions/{session_id}/head", json={"message_id": answered})
    await api.events({"message": "Thanks.", "session_id": session_id, **WORDS})
    return session_id


def shape(messages: list[dict[str, Any]]) -> list[Any]:
    """Messages without their ids: what an import must keep."""
    place = {m["id"]: n for n, m in enumerate(messages)}
    return [
        (place.get(m.get("parent_id")), m["role"], m["status"], m["parts"], m.get("model"), m["created_at"])
        for m in messages
    ]


async def all_messages(api: Running, session_id: str) -> list[dict[str, Any]]:
    return (await api.client.get(f"/sessions/{session_id}/messages", params={"branches": True})).json()["items"]


async def test_what_is_exported_can_be_imported(api: Running) -> None:
    session_id = await talked(api)
    response = await api.client.get(f"/sessions/{session_id}/export")
    assert response.headers["content-disposition"] == f'attachment; filename="{session_id}.json"'
    exported = response.json()
    assert exported["format"] == "streamforge.session"
    assert [m["role"] for m in exported["messages"]] == ["user", "assistant", "assistant", "user", "assistant"]
    assert exported["messages"][1]["parts"][1]["citations"][0]["quote"].startswith("The notice period is 45 days")
    assert exported["messages"][2]["model"] == "simulated/words"
    assert exported["messages"][2]["usage"]["output_tokens"] > 10
    headers = {"Content-Type": "application/json"}
    made = await api.client.post("/sessions/import", content=response.content, headers=headers)
    assert made.status_code == 201, made.text
    imported = made.json()
    assert imported["id"] != session_id
    assert imported["title"] == exported["title"]
    before, after = await all_messages(api, session_id), await all_messages(api, imported["id"])
    assert shape(after) == shape(before)
    assert {m["id"] for m in after}.isdisjoint(m["id"] for m in before)
    assert [m["active"] for m in after] == [m["active"] for m in before] == [True, True, False, True, True]
    again = (await api.client.get(f"/sessions/{imported['id']}/export")).json()
    assert shape(again["messages"]) == shape(exported["messages"])
    events = await api.events({"message": "Go on.", "session_id": imported["id"], **WORDS})
    assert events[-1]["type"] == "run.completed"


async def test_an_imported_answer_can_be_given_once_more(api: Running) -> None:
    made = (await api.client.post("/sessions/import", json=EXAMPLE)).json()
    before = await all_messages(api, made["id"])
    async with api.client.stream("POST", f"/messages/{before[1]['id']}/regenerate", json=WORDS) as response:
        events = await read_events(response)
    assert events[-1]["type"] == "run.completed"
    assert len((await all_messages(api, made["id"]))[1]["siblings"]) == 2


async def test_markdown_has_the_active_path_with_footnotes(api: Running) -> None:
    session_id = await talked(api)
    response = await api.client.get(f"/sessions/{session_id}/export", params={"format": "markdown"})
    assert response.headers["content-type"] == "text/markdown; charset=utf-8"
    text = response.text
    assert text.startswith("# How long is the notice period for tenants?\n\n## User\n\nHow long")
    assert "## Assistant (extractive/quotes)\n\nThe notice period is 45 days for <tenants>.[^1]" in text
    assert (
        "[^1]: Terms \\[v2\\] \\*draft\\*.md: “The notice period is 45 days for \\<tenants\\>.”" in text
        or "[^1]: Terms: “The notice period is 45 days for \\<tenants\\>.”" in text
    )
    assert text.count("This is a simulated answer.") == 1, "the other branch is left out"


EXAMPLE: dict[str, Any] = {
    "title": "From elsewhere",
    "created_at": "2026-01-02T03:04:05.678Z",
    "messages": [
        {
            "id": "a",
            "role": "user",
            "parts": [{"type": "text", "text": "Hello"}],
            "created_at": "2026-01-02T03:04:05.678Z",
        },
        {
            "id": "b",
            "parent_id": "a",
            "role": "assistant",
            "parts": [{"type": "text", "text": "Hi."}],
            "prompt": {"name": "greeter", "version": 3, "variables": {"tone": "kind"}},
            "created_at": "2026-01-02T03:04:06Z",
        },
    ],
}


async def test_a_file_by_hand_is_enough(api: Running) -> None:
    made = (await api.client.post("/sessions/import", json=EXAMPLE)).json()
    assert made["created_at"] == "2026-01-02T03:04:05.678Z"
    messages = await all_messages(api, made["id"])
    assert [m["parts"][0]["text"] for m in messages] == ["Hello", "Hi."]
    assert messages[1]["prompt"] == EXAMPLE["messages"][1]["prompt"]
    assert made["head_message_id"] == messages[1]["id"]


async def test_times_to_come_are_now(api: Running) -> None:
    later = copy.deepcopy(EXAMPLE)
    later["created_at"] = later["messages"][0]["created_at"] = "2999-01-01T00:00:00Z"
    made = (await api.client.post("/sessions/import", json=later)).json()
    assert made["created_at"] <= made["updated_at"]


def broken(*path: Any, to: Any) -> dict[str, Any]:
    """The example with something else at this place."""
    made = copy.deepcopy(EXAMPLE)
    at: Any = made
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = to
    return made


CITATION = {
    "source_id": "s1",
    "n": 1,
    "start": 0,
    "end": 4,
    "quote": "x",
    "document": {"document_id": "d", "version": "v", "start": 0, "end": 1},
}
BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("another format", {**EXAMPLE, "format": "other"}, "format"),
    ("another version", {**EXAMPLE, "version": 2}, "version"),
    ("an unknown field", {**EXAMPLE, "owner": "bob"}, "owner"),
    ("an unknown field of a message", broken("messages", 0, "run_id", to="run_x"), "run_id"),
    ("an unknown parent", broken("messages", 1, "parent_id", to="x"), "follows a message that isn't there"),
    ("an id twice", broken("messages", 1, "id", to="a"), "occurs twice"),
    ("an unknown head", {**EXAMPLE, "head_message_id": "x"}, "head_message_id"),
    ("a circle", broken("messages", 0, "parent_id", to="b"), "circle"),
    ("an answer to nothing", broken("messages", 0, "role", to="assistant"), "answer"),
    ("no title", {k: v for k, v in EXAMPLE.items() if k != "title"}, "title: is required"),
    ("a day", {**EXAMPLE, "created_at": "2026-01-01"}, "created_at: must be a moment like 2026-01-01T00:00:00Z"),
    ("a strange role", broken("messages", 0, "role", to="system"), "messages[0].role: must be user or assistant"),
    ("a strange status", broken("messages", 0, "status", to="running"), "status"),
    ("a strange part", broken("messages", 0, "parts", 0, "type", to="tool"), "messages[0].parts[0].type: "),
    (
        "a part without text",
        broken("messages", 0, "parts", to=[{"type": "text"}]),
        "messages[0].parts[0].text: is required",
    ),
    ("text that is none", broken("messages", 0, "parts", 0, "text", to=5), "messages[0].parts[0].text: "),
    ("NUL", broken("messages", 0, "parts", 0, "text", to="a\0b"), "NUL"),
    ("NUL in a name", broken("messages", 1, "model", to="a\0b"), "NUL"),
    (
        "a citation beyond the text",
        broken("messages", 1, "parts", 0, "citations", to=[CITATION]),
        "messages[1]: a citation lies outside",
    ),
    ("no time", broken("messages", 0, "created_at", to="yesterday"), "messages[0].created_at: must be a moment"),
    (
        "a time of nowhere",
        broken("messages", 0, "created_at", to="2026-01-01T00:00:00"),
        "created_at: must be a moment",
    ),
    ("too many", {**EXAMPLE, "messages": EXAMPLE["messages"] * 2501}, "messages"),
]


@pytest.mark.parametrize(("body", "said"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
async def test_a_broken_file_is_refused_whole(api: Running, body: dict[str, Any], said: str) -> None:
    before = await stored(api)
    assert said in problem(await api.client.post("/sessions/import", json=body), 422, "invalid_request")["detail"]
    assert await stored(api) == before


async def test_lone_surrogates_are_refused(api: Running) -> None:
    before = await stored(api)
    raw = b'{"title":"t","created_at":"2026-01-01T00:00:00Z","messages":[{"id":"a","role":"user","parts":[{"type":'
    raw += b'"text","text":"\\ud800"}],"created_at":"2026-01-01T00:00:00Z"}]}'
    response = await api.client.post("/sessions/import", content=raw, headers={"Content-Type": "application/json"})
    problem(response, 400, "bad_json")
    assert await stored(api) == before


async def test_a_file_may_be_larger_than_a_message_but_not_endless(api: Running) -> None:
    large = broken("messages", 0, "parts", 0, "text", to="x" * 2_000_000)
    assert (await api.client.post("/sessions/import", json=large)).status_code == 201
    endless = broken("messages", 0, "parts", 0, "text", to="x" * 11_000_000)
    problem(await api.client.post("/sessions/import", json=endless), 413, "too_large")


async def test_an_import_is_the_callers_own(keyed: Running) -> None:
    made = (await keyed.client.post("/sessions/import", json=EXAMPLE, headers=bearer(ALICE))).json()
    for tail in ("", "/export", "/messages"):
        problem(await keyed.client.get(f"/sessions/{made['id']}{tail}", headers=bearer(BOB)), 404, "not_found")
    owners = rows(folder_of(keyed), "SELECT DISTINCT owner FROM messages WHERE session_id = ?", made["id"])
    assert owners == [("alice",)]
