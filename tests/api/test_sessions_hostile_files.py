"""Files made to do harm: each is refused with a reason, or taken and then harmless wherever it is read."""

import asyncio
import json
import re
from typing import Any

import pytest

from backend.kit import yielding
from backend.services.conversations.files.session_file import read_file
from tests.api.helpers import problem, stored
from tests.support.harness import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = {"Content-Type": "application/json"}
TIME = "2026-01-02T03:04:05.678Z"
PLACE = {"document_id": "d", "version": "v", "start": 0, "end": 1}
CITATION = {"source_id": "s1", "n": 1, "start": 0, "end": 4, "quote": "x", "document": PLACE}
SOURCE = {"source_id": "s1", "n": 1, "title": "T", "document_id": "d", "version": "v", "chunk_id": "c", "score": 0.5}


def text(said: str, *citations: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": said, "citations": list(citations)}


def sources(*items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "sources", "items": [{"snippet": "…", **item} for item in items]}


def message(id: str, parent: str | None = None, role: str = "user", *parts: Any, **more: Any) -> dict[str, Any]:
    return {"id": id, "parent_id": parent, "role": role, "parts": list(parts), "created_at": TIME, **more}


def asked(*parts: Any, **more: Any) -> list[dict[str, Any]]:
    """A question, and an answer with these parts and fields."""
    return [message("q", None, "user", text("Hello?")), message("a", "q", "assistant", *parts, **more)]


def file(messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"title": "Hostile", "created_at": TIME, "messages": messages, **more}


def told(variables: Any) -> list[dict[str, Any]]:
    return asked(text("Hi."), prompt={"name": "p", "version": 1, "variables": variables})


def raw(part: str) -> bytes:
    """A file with this as the only part, as it stands."""
    return json.dumps(file([message("q", None, "user", "PART")])).replace('"PART"', part).encode()


async def sent(api: Running, body: bytes | dict[str, Any]) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body)
    return await api.client.post("/sessions/import", content=content, headers=JSON)


REFUSED: list[tuple[str, bytes | dict[str, Any], str]] = [
    ("a variable that is null", file(told({"v": None})), "messages[1].prompt.variables"),
    ("a variable that is NaN", file(told({"v": float("nan")})), "JSON is malformed"),
    ("a variable without bounds", file(told({"v": float("-inf")})), "JSON is malformed"),
    ("a number that is none", json.dumps(file(told({"v": "#"}))).replace('"#"', "1e999").encode(), "out of range"),
    ("a large float", file(told({"v": 1e300})), "messages[1].prompt.variables"),
    ("a large integer", file(told({"v": 10**30})), "messages[1].prompt.variables"),
    ("an endless integer", json.dumps(file(told({"v": "#"}))).replace('"#"', "9" * 5000).encode(), "out of range"),
    ("a list for a variable", file(told({"v": ["a"]})), "messages[1].prompt.variables"),
    ("long variables", file(told({"v": "x" * 30_000, "w": "x" * 30_000})), "50000 characters"),
    ("many variables", file(told({f"v{n}": 1 for n in range(51)})), "messages[1].prompt.variables"),
    ("a long name of a variable", file(told({"v" * 51: 1})), "messages[1].prompt.variables"),
    ("variables that are none", file(told(None)), "messages[1].prompt.variables"),
    ("NUL in a variable", file(told({"v": "a\0"})), "NUL"),
    ("NUL in a variable's name", file(told({"a\0": 1})), "NUL"),
    ("a version that is none", file(asked(prompt={"name": "p", "version": 10**12})), "messages[1].prompt.version"),
    ("a prompt's unknown field", file(asked(prompt={"name": "p", "version": 1, "x": 1})), "unknown field `x`"),
    ("a circle of two", file([message("a", "b"), message("b", "a")]), "circle"),
    ("201 roots", file([message(f"m{n}") for n in range(201)]), "more than 200"),
    ("201 answers", file([message("q"), *[message(f"m{n}", "q", "assistant") for n in range(201)]]), "more than 200"),
    ("a citation before its text", file(asked(text("abcd", {**CITATION, "start": -1}))), "outside its text"),
    ("a citation that is turned", file(asked(text("abcd", {**CITATION, "start": 3, "end": 1}))), "outside its text"),
    ("many citations", file(asked(text("abcd", *[CITATION] * 2_001))), "2000 citations"),
    ("many sources", file(asked(sources(*[SOURCE] * 2_001))), "2000 citations or sources"),
    ("many braces", file(asked(text("{" * 20_001))), "braces"),
    ("a long quote", file(asked(text("abcd", {**CITATION, "quote": "*" * 20_001}))), "quote"),
    ("many parts", file(asked(*[text("")] * 1_001)), "messages[1].parts"),
    ("a long id", file([message("x" * 101)]), "messages[0].id"),
    ("no id", file([message("")]), "messages[0].id"),
    ("a time beyond all", file([message("a", created_at="10000-01-01T00:00:00Z")]), "messages[0].created_at"),
    ("a time that is a number", file([message("a", created_at=1)]), "messages[0].created_at"),
    ("a message that is none", file([None]), "messages[0]"),  # type: ignore[list-item]
    ("no list of messages", {**file([]), "messages": {}}, "messages"),
    ("a field of any length", {**file([]), "x" * 100_000: 1}, "unknown field"),
    ("a score that is none", file(asked(sources({**SOURCE, "score": None}))), "messages[1].parts[0].items[0].score"),
    ("bytes that are no text", raw('{"type":"text","text":"#"}').replace(b"#", b"\xff"), "messages[0]: can't be read"),
    ("an overlong character", raw('{"type":"text","text":"#"}').replace(b"#", b"\xc0\xaf"), "can't be read"),
    ("a low surrogate", raw('{"type":"text","text":"\\udc00 and more"}'), "can't be read"),
    ("deep arrays", raw("[" * 100_000 + "]" * 100_000), "sane depth"),
    ("deep nonsense", raw('{"type":"text","text":"","x":' + "[" * 100_000 + "]" * 100_000 + "}"), "sane depth"),
    (
        "deep usage",
        json.dumps(file(asked(usage="#"))).replace('"#"', '{"a":' * 9999 + "1" + "}" * 9999).encode(),
        "depth",
    ),
    ("half a file", json.dumps(file([])).encode()[:-1], "can't be read"),
    ("nothing", b"", "can't be read"),
    ("a list", b"[]", "object"),
]


@pytest.mark.parametrize(("body", "said"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
async def test_it_is_refused_whole_with_a_reason(api: Running, body: bytes | dict[str, Any], said: str) -> None:
    before = await stored(api)
    response = await sent(api, body)
    code = response.json()["code"]
    assert (response.status_code, code) in {(422, "invalid_request"), (400, "bad_json"), (400, "bad_request")}
    assert said in problem(response, response.status_code, code)["detail"]
    assert len(response.content) < 2000
    assert await stored(api) == before


async def test_another_page_cannot_send_one_unasked(api: Running) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=json", ""):
        # What every browser says of a request, and no page can leave out.
        headers = {"Content-Type": content_type, "Sec-Fetch-Site": "cross-site"}
        response = await api.client.post("/sessions/import", content=json.dumps(file([])), headers=headers)
        assert "Content-Type: application/json" in problem(response, 422, "invalid_request")["detail"]


TAKEN: list[tuple[str, bytes | dict[str, Any]]] = [
    ("no messages", file([])),
    ("messages without parts", file(asked())),
    ("200 roots", file([message(f"m{n}") for n in range(200)])),
    ("a long chain", file([message(f"m{n}", f"m{n - 1}" if n else None) for n in range(5_000)])),
    ("ids like paths", file([message("../../x?y=1#z", None, "user", text("a")), message("%00/é", "../../x?y=1#z")])),
    (
        "control characters",
        file([message("a", None, "user", text("\x01\x1b[31m\x7f\u202e\u2028\ufffe"))], title="\x01\x1b"),
    ),
    ("a title of blanks", file([], title=" \u2003\n")),
    ("a model of several lines", file(asked(text("Hi."), model="m\n\n# Injected\n\n[^1]: no"))),
    ("the first and the last moment", file([message("a", created_at="0001-01-01T00:00:00+23:59")])),
    ("far from now", file([message("a", created_at="9999-12-31T23:59:59-23:59")], created_at="0001-01-01T00:00:00Z")),
    ("a quote beyond its document", file(asked(text("abcd", {**CITATION, "document": {**PLACE, "end": 10**18}})))),
    ("large numbers", file(asked(text("abcd", {**CITATION, "n": 10**40, "document": {**PLACE, "start": -(10**40)}})))),
    ("a citation of no source", file(asked(text("abcd", {**CITATION, "source_id": "none"})))),
    ("citations of the same place", file(asked(text("abcd", *[CITATION] * 2_000)))),
    (
        "a title that each footnote repeats",
        file(asked(sources({**SOURCE, "title": "*" * 9_000}), text("abcd", *[CITATION] * 2_000))),
    ),
    ("usage of any form", file(asked(text("a"), usage=[1, {"a": None}]))),
    ("text that looks like an escape", file([message("a", None, "user", text("\\u0000 \\\\u0000 \\ud800"))])),
    ("unknown fields of a part", file(asked({"type": "text", "text": "a", "x": [[1]]}))),
]


@pytest.mark.parametrize("body", [t[1] for t in TAKEN], ids=[t[0] for t in TAKEN])
async def test_what_is_taken_can_be_read_everywhere_and_taken_again(api: Running, body: bytes | dict[str, Any]) -> None:
    response = await sent(api, body)
    assert response.status_code == 201, response.text
    session = f"/sessions/{response.json()['id']}"
    for path in (session, f"{session}/messages", f"{session}/messages?branches=true", "/sessions", f"{session}/active"):
        assert (await api.client.get(path)).status_code == 200, path
    assert (await api.client.get(f"/chat/history{session.removeprefix('/sessions')}")).status_code == 200
    markdown = await api.client.get(f"{session}/export", params={"format": "markdown"})
    assert markdown.status_code == 200
    assert len(markdown.content) < 2_000_000
    assert not re.search(r"^# Injected", markdown.text, re.MULTILINE)
    exported = await api.client.get(f"{session}/export")
    again = await sent(api, exported.content)
    assert again.status_code == 201, again.text
    second = await api.client.get(f"/sessions/{again.json()['id']}/export")
    assert without_ids(second.json()) == without_ids(exported.json())


def without_ids(exported: dict[str, Any]) -> dict[str, Any]:
    """An export with places instead of ids."""
    place = {each["id"]: n for n, each in enumerate(exported["messages"])}
    for each in exported["messages"]:
        each.update(id=place[each["id"]], parent_id=place.get(each.get("parent_id")))
        each.pop("usage", None)
    return {**exported, "head_message_id": place.get(exported.get("head_message_id"))}


async def test_every_millisecond_comes_back_as_it_was(api: Running) -> None:
    """Floats would lose some."""
    times = [f"2026-01-02T03:04:05.{n:03}Z" for n in range(1000)]
    chain = [message(f"m{n}", f"m{n - 1}" if n else None, created_at=time) for n, time in enumerate(times)]
    session_id = (await sent(api, file(chain))).json()["id"]
    exported = (await api.client.get(f"/sessions/{session_id}/export")).json()
    assert [each["created_at"] for each in exported["messages"]] == times


async def test_all_that_begin_a_session_share_one_list(api: Running) -> None:
    session_id = (await sent(api, file([message(f"m{n}") for n in range(200)]))).json()["id"]
    items = (await api.client.get(f"/sessions/{session_id}/messages", params={"branches": True})).json()["items"]
    assert all(each["siblings"] == [m["id"] for m in items] for each in items)


async def test_a_message_without_text_is_not_answered_once_more(api: Running) -> None:
    for parts in ([], [text(" \n")], [sources(SOURCE)]):
        body = file([message("q", None, "user", *parts), message("a", "q", "assistant", text("Hi."))])
        session_id = (await sent(api, body)).json()["id"]
        items = (await api.client.get(f"/sessions/{session_id}/messages")).json()["items"]
        before = await stored(api)
        for each in items:
            refused = await api.client.post(f"/messages/{each['id']}/regenerate", json={"documents": False})
            assert "no text" in problem(refused, 422, "invalid_request")["detail"]
        assert await stored(api) == before


async def test_others_have_their_turn_between_two_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yielding, "_PIECE_SECONDS", 0.0)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    read = await read_file(json.dumps(file([message(f"m{n}") for n in range(300)])).encode())
    task.cancel()
    assert len(read.messages) == 300
    assert turns >= 300
