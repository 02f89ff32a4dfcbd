"""A picture stays a part of its message: for the next question, another answer, another wording, after a crash."""

import asyncio
import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from backend.storage.conversations.images import Images
from tests.api.helpers import problem
from tests.scenarios.processes import process, using
from tests.scenarios.support import ask, gated, messages, only_terminal, rows, said, watch
from tests.scenarios.test_branches import streamed
from tests.scenarios.test_titles import background
from tests.scenarios.test_usage import priced
from tests.support.harness import Running, read_events, serving
from tests.support.provider_protocol import Stall, answer, chunk, error
from tests.support.provider_server import Call, ProviderServer

PNG = b"\x89PNG\r\n\x1a\n"
NOTE = "[1 picture, not shown here]"
BLIND = "openai/gpt-3.5-turbo"


def png(n: int, size: int = 20) -> bytes:
    """A picture that is told from others."""
    return PNG + b"%0*d" % (size, n)


def shown(*pictures: bytes) -> list[dict[str, str]]:
    """Pictures as a request has them."""
    return [{"media_type": "image/png", "data": base64.b64encode(data).decode()} for data in pictures]


def told(call: Call) -> list[tuple[str, str, list[bytes]]]:
    """Role, text and pictures of each message that OpenAI's protocol was sent."""
    found: list[tuple[str, str, list[bytes]]] = []
    for message in call.json["messages"]:
        content = message["content"]
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(p["text"] for p in parts if p["type"] == "text")
        urls = [p["image_url"]["url"] for p in parts if p["type"] == "image_url"]
        pictures = [base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True) for url in urls]
        if message["role"] != "system":
            found.append((message["role"], text, pictures))
    return found


def images(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in message["parts"] if part["type"] == "image"]


async def talk(server: Running, *turns: tuple[str, Sequence[bytes]], **more: Any) -> str:
    """A session with these messages and pictures: its id."""
    session_id = more.pop("session_id", None)
    for message, pictures in turns:
        body = ask(message, **more, **({"images": shown(*pictures)} if pictures else {}))
        events = await server.events(body | ({"session_id": session_id} if session_id else {}))
        assert only_terminal(events)["type"] == "run.completed"
        session_id = events[0]["session_id"]
    assert session_id is not None
    return session_id


async def test_a_message_has_its_pictures_and_they_can_be_had(with_provider: Running) -> None:
    session_id = await talk(with_provider, ("Which is larger?", (png(1), png(2, 50))))
    user, assistant = await messages(with_provider, session_id)
    one, two = images(user)
    assert {name: one[name] for name in ("type", "media_type", "bytes")} == {
        "type": "image",
        "media_type": "image/png",
        "bytes": 28,
    }
    assert (said(user), two["bytes"], images(assistant)) == ("Which is larger?", 58, [])
    response = await with_provider.client.get(f"/images/{two['image_id']}")
    assert (response.status_code, response.content) == (200, png(2, 50))
    headers = response.headers
    assert (headers["content-type"], headers["x-content-type-options"]) == ("image/png", "nosniff")
    assert headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert "private" in headers["cache-control"] and "immutable" in headers["cache-control"]
    again = {"If-None-Match": headers["etag"]}
    kept = await with_provider.client.get(f"/images/{two['image_id']}", headers=again)
    assert (kept.status_code, kept.content, kept.headers["etag"]) == (304, b"", headers["etag"])
    other = await with_provider.client.get(f"/images/{one['image_id']}", headers=again)
    assert (other.status_code, other.content) == (200, png(1))


async def test_it_goes_with_its_session(with_provider: Running) -> None:
    session_id = await talk(with_provider, ("What is it?", (png(1),)))
    stays = await talk(with_provider, ("And this?", (png(2),)))
    (gone,) = images((await messages(with_provider, session_id))[0])
    assert (await with_provider.client.delete(f"/sessions/{session_id}")).status_code == 204
    problem(await with_provider.client.get(f"/images/{gone['image_id']}"), 404, "not_found")
    assert rows(with_provider, "SELECT session_id FROM images") == [(stays,)]


async def test_another_answer_sees_it_again(with_provider: Running, provider: ProviderServer) -> None:
    session_id = await talk(with_provider, ("What is it?", (png(1),)))
    asked, answered = await messages(with_provider, session_id)
    for message in (asked, answered):
        await streamed(with_provider, f"/messages/{message['id']}/regenerate", {"documents": False})
        assert told(provider.calls[-1]) == [("user", "What is it?", [png(1)])]
    assert (await messages(with_provider, session_id))[0]["parts"] == asked["parts"]
    assert rows(with_provider, "SELECT count(*) FROM images") == [(1,)]


@pytest.mark.parametrize(
    ("asked", "seen"),
    [({}, [png(1), png(2)]), ({"images": []}, []), ({"images": shown(png(3))}, [png(3)])],
    ids=["as before", "none", "another"],
)
async def test_said_otherwise_it_has_the_pictures_of_the_one_before_unless_told(
    with_provider: Running, provider: ProviderServer, asked: dict[str, Any], seen: list[bytes]
) -> None:
    session_id = await talk(with_provider, ("What is it?", (png(1), png(2))))
    (before, _) = await messages(with_provider, session_id)
    body = {"message": "What are these?", "documents": False, **asked}
    await streamed(with_provider, f"/messages/{before['id']}/edit", body)
    assert told(provider.calls[-1]) == [("user", "What are these?", seen)]
    now = (await messages(with_provider, session_id))[0]
    found = [await with_provider.client.get(f"/images/{part['image_id']}") for part in images(now)]
    assert [each.content for each in found] == seen
    await talk(with_provider, ("And?", ()), session_id=session_id)
    assert told(provider.calls[-1])[0] == ("user", "What are these?", seen)
    (still,) = [m for m in await messages(with_provider, session_id, branches=True) if m["id"] == before["id"]]
    assert still["parts"] == before["parts"], "the one before keeps its own"


async def test_a_branch_knows_its_own_pictures_only(with_provider: Running, provider: ProviderServer) -> None:
    session_id = await talk(with_provider, ("Hello.", ()), ("What is it?", (png(1),)))
    first = (await messages(with_provider, session_id))[1]
    await talk(with_provider, ("Another way.", ()), session_id=session_id, parent_id=first["id"])
    assert [pictures for _, _, pictures in told(provider.calls[-1])] == [[], [], []]


async def test_the_newest_of_many_are_shown(with_provider: Running, provider: ProviderServer) -> None:
    session_id = await talk(with_provider, *((f"Q{n}?", [png(10 * n + i) for i in range(4)]) for n in range(4)))
    asked = [(text, len(pictures)) for role, text, pictures in told(provider.calls[-1]) if role == "user"]
    left_out = "[4 pictures, not shown here]"
    assert asked == [(f"Q0?\n{left_out}", 0), (f"Q1?\n{left_out}", 0), ("Q2?", 4), ("Q3?", 4)]
    await talk(with_provider, ("Q4?", [png(90)]), session_id=session_id)
    seen = [pictures for role, _, pictures in told(provider.calls[-1]) if role == "user"]
    assert seen == [[], [], [png(20), png(21), png(22)], [png(30 + i) for i in range(4)], [png(90)]]


async def test_large_ones_are_shown_while_they_fit(with_provider: Running, provider: ProviderServer) -> None:
    one, two, three = (png(n, 5_000_000) for n in range(3))
    session_id = await talk(with_provider, ("Q0?", [one]), ("Q1?", [two]), ("Q2?", ()))
    assert [each[1:] for each in told(provider.calls[-1])][::2] == [(f"Q0?\n{NOTE}", []), ("Q1?", [two]), ("Q2?", [])]
    await talk(with_provider, ("Q3?", [three]), session_id=session_id)
    assert [pictures for _, _, pictures in told(provider.calls[-1])][::2] == [[], [], [], [three]]


async def test_a_small_history_has_few(tmp_path: Path, provider: ProviderServer) -> None:
    async with serving(tmp_path / "data", **wired(provider), llm_history_tokens=1_000) as server:
        await talk(server, ("Q0?", [png(n) for n in range(3)]), ("Q1?", ()))
    (_, words, pictures), *_ = told(provider.calls[-1])
    assert (words, pictures) == (f"Q0?\n{NOTE}", [png(0), png(1)])


def wired(provider: ProviderServer) -> dict[str, Any]:
    return {"openai_api_key": "sk-1", "openai_base_url": provider.base_url, "llm_model": "openai/test-model"}


# --- models that can't see


async def test_one_that_cannot_see_is_told_that_there_was_a_picture(
    with_provider: Running, provider: ProviderServer
) -> None:
    session_id = await talk(with_provider, ("What is it?", (png(1),)))
    (asked, _) = await messages(with_provider, session_id)
    await talk(with_provider, ("And in its corner?", ()), session_id=session_id, model=BLIND)
    assert told(provider.calls[-1])[0] == ("user", f"What is it?\n{NOTE}", [])
    for path, body in (("regenerate", {}), ("edit", {"message": "What is it?"})):
        body = {**body, "documents": False, "model": BLIND}
        events = await streamed(with_provider, f"/messages/{asked['id']}/{path}", body)
        assert only_terminal(events)["type"] == "run.completed"
        assert told(provider.calls[-1]) == [("user", f"What is it?\n{NOTE}", [])]
    new = ask("And this?", session_id=session_id, model=BLIND, images=shown(png(2)))
    problem(await with_provider.client.post("/chat", json=new), 422, "unsupported_parameter")
    edited = {"message": "And this?", "model": BLIND, "images": shown(png(2))}
    refused = await with_provider.client.post(f"/messages/{asked['id']}/edit", json=edited)
    problem(refused, 422, "unsupported_parameter")
    assert rows(with_provider, "SELECT count(*) FROM images") == [(1,)], "a refusal stores nothing"


async def test_a_fallback_that_cannot_see_is_told_so(with_provider: Running, provider: ProviderServer) -> None:
    session_id = await talk(with_provider, ("What is it?", (png(1),)))
    provider.script([error(500, "no", "x", None)], answer("I can't see it."))
    await talk(with_provider, ("And in its corner?", ()), session_id=session_id, fallbacks=[BLIND])
    sees, cannot = provider.calls[-2:]
    assert told(sees)[0] == ("user", "What is it?", [png(1)])
    assert told(cannot)[0] == ("user", f"What is it?\n{NOTE}", [])


async def test_one_that_quotes_answers_all_the_same(with_provider: Running) -> None:
    session_id = await talk(with_provider, ("What is it?", (png(1),)))
    await talk(with_provider, ("And?", ()), session_id=session_id, model="simulated/words")


# --- what only reads the conversation


async def test_what_a_follow_up_means_and_a_summary_are_asked_without_it(
    tmp_path: Path, provider: ProviderServer
) -> None:
    provider.default = lambda call: answer(f"A. {'x' * 400}", chunk_by=1000)
    more = {"summaries": True, "llm_history_tokens": 500}
    async with serving(tmp_path / "data", **wired(provider), **more) as server:
        await server.upload("bridge.txt", b"The bridge at Elsmere was painted in 1921.")
        session_id = await talk(server, ("What is it?", (png(1),)))
        await server.events({"message": "When was it painted?", "session_id": session_id})
        condense = next(c for c in provider.calls if "standalone" in c.json["messages"][0]["content"])
        assert told(condense)[0][1].startswith(f"Conversation:\nuser: What is it?\n{NOTE}\nassistant: A. ")
        for n in range(3):
            await talk(server, (f"Q{n}?", ()), session_id=session_id)
            await background(server)
    summary = next(c for c in provider.calls if "Sum up" in c.json["messages"][0]["content"])
    assert told(summary)[0][1].startswith(f"Conversation:\nuser: What is it?\n{NOTE}\n\nassistant: A. ")
    assert all(not pictures for call in (condense, summary) for _, _, pictures in told(call))
    assert all(not pictures for _, _, pictures in told(provider.calls[-1])), "the summary stands for it now"


async def test_a_summary_of_the_message_that_was_just_answered_tells_of_its_picture(
    tmp_path: Path, provider: ProviderServer
) -> None:
    provider.default = lambda call: answer("x" * 2_000, chunk_by=1000)
    async with serving(tmp_path / "data", **wired(provider), summaries=True, llm_history_tokens=500) as server:
        await talk(server, ("What is it?", (png(1),)))
        await background(server)
    assert told(provider.calls[1])[0][1] == f"Conversation:\nuser: What is it?\n{NOTE}"


async def test_a_conversation_without_pictures_asks_for_none(
    with_provider: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the pictures were looked for")

    for name in ("get", "find", "count"):
        monkeypatch.setattr(Images, name, read)
    await talk(with_provider, ("Hello.", ()), ("And?", ()))


# --- budgets


async def reserved(server: Running, provider: ProviderServer, **asked: Any) -> int:
    """What is put aside while the answer is written."""
    gate = asyncio.Event()
    provider.script(gated("One ", gate, "two."))
    async with watch(server.client, body=ask("And?", max_tokens=10, **asked)) as client:
        await client.text("One ")
        ((amount,),) = rows(server, "SELECT sum(amount) FROM reservations")
        gate.set()
        await client.all()
    return amount


@pytest.mark.usefixtures("within_a_day")
async def test_a_budget_holds_for_the_pictures_of_the_conversation(tmp_path: Path, provider: ProviderServer) -> None:
    a_picture = 2 * 50_000
    async with serving(tmp_path / "data", **priced(tmp_path, provider, budgets="local=9/day")) as server:
        none = await talk(server, ("What is it?", ()))
        two = await talk(server, ("What is it?", (png(1), png(2))))
        many = await talk(server, *(("What is it?", [png(n) for n in range(6)]),) * 2)
        bare = await reserved(server, provider, session_id=none)
        assert await reserved(server, provider, session_id=two) - bare == 2 * a_picture
        assert await reserved(server, provider, session_id=many) - bare == 8 * a_picture
        assert sum(len(pictures) for _, _, pictures in told(provider.calls[-1])) == 8


@pytest.mark.usefixtures("within_a_day")
async def test_a_picture_that_came_meanwhile_is_not_shown_at_the_budgets_cost(
    tmp_path: Path, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stored between the reservation and the answer."""

    async def nothing_yet(*_: object) -> int:
        return 0

    async with serving(tmp_path / "data", **priced(tmp_path, provider, budgets="local=9/day")) as server:
        session_id = await talk(server, ("What is it?", (png(1),)))
        monkeypatch.setattr(Images, "count", nothing_yet)
        await talk(server, ("And?", ()), session_id=session_id)
    assert told(provider.calls[-1])[0] == ("user", f"What is it?\n{NOTE}", [])


# --- out and in


async def test_an_export_has_them_and_an_import_takes_them(with_provider: Running, provider: ProviderServer) -> None:
    session_id = await talk(with_provider, ("What is it?", (png(1, 100_000), png(2))), ("And?", ()))
    response = await with_provider.client.get(f"/sessions/{session_id}/export")
    part = response.json()["messages"][0]["parts"][1]
    assert base64.b64decode(part["data"]) == png(1, 100_000)
    headers = {"Content-Type": "application/json"}
    made = await with_provider.client.post("/sessions/import", content=response.content, headers=headers)
    assert made.status_code == 201, made.text
    assert (await with_provider.client.delete(f"/sessions/{session_id}")).status_code == 204
    imported = made.json()["id"]
    found = images((await messages(with_provider, imported))[0])
    assert [each["bytes"] for each in found] == [100_008, 28]
    await talk(with_provider, ("And in its corner?", ()), session_id=imported)
    assert told(provider.calls[-1])[0] == ("user", "What is it?", [png(1, 100_000), png(2)])
    bare = await with_provider.client.get(f"/sessions/{imported}/export", params={"pictures": "false"})
    assert [p["type"] for p in bare.json()["messages"][0]["parts"]] == ["text"]
    text = (await with_provider.client.get(f"/sessions/{imported}/export", params={"format": "markdown"})).text
    assert [f"![picture](/images/{each['image_id']})" for each in found] == re.findall(r"^!\[.*", text, re.M)


def one_message(*parts: dict[str, Any], role: str = "user") -> dict[str, Any]:
    moment = "2026-11-25T12:00:00.000Z"
    first = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hi"}], "created_at": moment}
    second = {"id": "m2", "parent_id": "m1", "role": role, "parts": list(parts), "created_at": moment}
    return {"title": "By hand", "created_at": moment, "messages": [first, second]}


async def test_a_message_may_be_a_picture_alone(with_provider: Running, provider: ProviderServer) -> None:
    file = one_message({"type": "image", **shown(png(1))[0]})
    made = await with_provider.client.post("/sessions/import", json=file)
    assert made.status_code == 201, made.text
    await talk(with_provider, ("What is it?", ()), session_id=made.json()["id"])
    assert told(provider.calls[-1]) == [("user", "Hi\n\nWhat is it?", [png(1)])], "messages in a row are one"
    await talk(with_provider, ("What is it?", ()), session_id=made.json()["id"], model=BLIND)
    assert told(provider.calls[-1])[0] == ("user", f"Hi\n\nWhat is it?\n{NOTE}", [])


@pytest.mark.parametrize(
    ("part", "role", "words"),
    [
        ({"type": "image", "image_id": "img_x", "media_type": "image/png", "bytes": 9}, "user", "messages[1].parts[0]"),
        ({"type": "image", **shown(PNG)[0], "x": 1}, "assistant", "messages of the user"),
        ({"type": "image", "media_type": "text/html", "data": "PGI+"}, "user", "must be a PNG"),
        (
            {"type": "image", **shown(PNG)[0], "media_type": "image/gif"},
            "user",
            "image/png, not image/gif",
        ),
        ({"type": "image", "media_type": "image/png", "data": 7}, "user", "messages[1].parts[0].data"),
    ],
)
async def test_an_import_takes_pictures_only(
    with_provider: Running, part: dict[str, Any], role: str, words: str
) -> None:
    refused = await with_provider.client.post("/sessions/import", json=one_message(part, role=role))
    problem(refused, 422, "invalid_request")
    assert words in refused.json()["detail"]
    assert rows(with_provider, "SELECT count(*) FROM images") == [(0,)]


async def test_an_import_has_a_bound(with_provider: Running) -> None:
    picture = {"type": "image", **shown(png(1))[0]}
    file = one_message(*[picture] * 8)
    first = {**file["messages"][0], "parts": [picture] * 8}
    file["messages"] = [{**first, "id": f"m{n}"} for n in range(126)]
    refused = await with_provider.client.post("/sessions/import", json=file)
    problem(refused, 422, "invalid_request")
    assert "1000 pictures" in refused.json()["detail"]


async def test_a_message_of_an_import_has_no_more_pictures_than_one_that_is_sent(with_provider: Running) -> None:
    """Else another answer to it would show them all."""
    for count, status in ((8, 201), (9, 422)):
        file = one_message(*[{"type": "image", **shown(png(1))[0]}] * count)
        assert (await with_provider.client.post("/sessions/import", json=file)).status_code == status


# --- bad input, crashes


@pytest.mark.parametrize(
    ("media_type", "data", "words"),
    [
        ("image/png", b"\xff\xd8\xff\xe0 JFIF", "data is image/jpeg, not image/png"),
        ("image/jpeg", b"GIF89a....", "data is image/gif, not image/jpeg"),
        ("image/gif", b"RIFF....WEBPVP8 ", "data is image/webp, not image/gif"),
        ("image/webp", PNG, "data is image/png, not image/webp"),
        ("image/png", b"<svg onload=alert(1)>", "it begins like none of them"),
        ("image/png", b"RIFF....WAVEfmt ", "it begins like none of them"),
    ],
)
async def test_a_picture_must_be_what_it_says(server: Running, media_type: str, data: bytes, words: str) -> None:
    images = [{"media_type": media_type, "data": base64.b64encode(data).decode()}]
    refused = await server.client.post("/chat", json=ask(images=images))
    problem(refused, 422, "invalid_request")
    assert words in json.dumps(refused.json())


async def test_a_picture_must_be_base64(server: Running) -> None:
    for data in ("iVBOR\nw0KGgo=", "iVBORw0KGg", "!!!!"):
        refused = await server.client.post("/chat", json=ask(images=[{"media_type": "image/png", "data": data}]))
        problem(refused, 422, "invalid_request")
        assert "base64" in json.dumps(refused.json())


async def test_another_answer_takes_no_pictures(with_provider: Running) -> None:
    session_id = await talk(with_provider, ("What is it?", (png(1),)))
    path = f"/messages/{(await messages(with_provider, session_id))[0]['id']}/regenerate"
    problem(await with_provider.client.post(path, json={"images": shown(png(2))}), 422, "invalid_request")


async def test_a_key_stands_for_one_picture(with_provider: Running) -> None:
    headers = {"Idempotency-Key": "k-1"}
    asked = [ask("What is it?", images=shown(png(n))) for n in (1, 2)]
    first = await with_provider.events(asked[0], headers=headers)
    again = await with_provider.events(asked[0], headers=headers)
    assert again[0]["run_id"] == first[0]["run_id"]
    other = await with_provider.client.post("/chat", json=asked[1], headers=headers)
    problem(other, 422, "idempotency_key_reused")
    assert rows(with_provider, "SELECT count(*) FROM images") == [(1,)]


async def test_it_is_there_after_a_kill(tmp_path: Path, provider: ProviderServer) -> None:
    provider.script([chunk({"content": "One "}), Stall()])
    async with process(tmp_path / "data", using(provider)) as running:
        async with watch(running.client, body=ask("What is it?", images=shown(png(1)))) as client:
            await client.text("One ")
            await running.stored(client.run_id, 4)
            running.server.kill()
            started = client.events[0]
        await running.start()
        stored = (await running.client.get(f"/sessions/{started['session_id']}/messages")).json()["items"]
        (counted,) = rows(running.database, "SELECT input_tokens FROM calls")
        assert 1_000 < counted[0] < 1_100, "what was read, the picture too, is paid for"
        (part,) = images(stored[0])
        assert (await running.client.get(f"/images/{part['image_id']}")).content == png(1)
        body = ask("And in its corner?", session_id=started["session_id"])
        async with running.client.stream("POST", "/chat", json=body) as response:
            events = await read_events(response)
    assert only_terminal(events)["type"] == "run.completed", events[-1]
    assert told(provider.calls[-1])[0] == ("user", "What is it?", [png(1)])
