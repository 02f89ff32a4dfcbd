"""Bad input: the right status, a message that helps, and nothing stored halfway."""

import json
from typing import Any

import pytest

from tests.api.helpers import problem, stored
from tests.support.harness import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = {"Content-Type": "application/json"}
SECRET = "sk-live-abcdefghijklmnopqrstuv"

WRONG_CHATS: list[tuple[dict[str, Any], int, str, str]] = [
    ({}, 422, "invalid_request", "message"),
    ({"message": ""}, 422, "invalid_request", "empty"),
    ({"message": " \n\t "}, 422, "invalid_request", "empty"),
    ({"message": "\u2003\u00a0\u2028"}, 422, "invalid_request", "empty"),
    ({"message": "x" * 32_001}, 422, "message_too_long", "MAX_MESSAGE_CHARS"),
    ({"message": "a\u0000b"}, 422, "invalid_request", "NUL"),
    ({"message": 5}, 422, "invalid_request", "message"),
    ({"message": None}, 422, "invalid_request", "message"),
    ({"message": ["a"]}, 422, "invalid_request", "message"),
    ({"message": {"lc": 1}}, 422, "invalid_request", "message"),
    ({"message": "hi", "session_id": "ses_unknown"}, 404, "not_found", "session"),
    ({"message": "hi", "session_id": "\u0000"}, 422, "invalid_request", "session_id"),
    ({"message": "hi", "session_id": 7}, 422, "invalid_request", "session_id"),
    ({"message": "hi", "model": "nosuch/model"}, 422, "unknown_model", "extractive"),
    ({"message": "hi", "model": "extractiv/quotes"}, 422, "unknown_model", "extractive"),
    ({"message": "hi", "model": "extractive"}, 422, "unknown_model", "provider/model"),
    ({"message": "hi", "model": ""}, 422, "unknown_model", "provider/model"),
    ({"message": "hi", "model": "/"}, 422, "unknown_model", "provider/model"),
    ({"message": "hi", "model": "openai/gpt-4.1"}, 422, "unknown_model", "OPENAI_API_KEY"),
    ({"message": "hi", "documents": ["doc_unknown"]}, 404, "not_found", "doc_unknown"),
    ({"message": "hi", "documents": []}, 422, "invalid_request", "documents"),
    ({"message": "hi", "documents": ["d"] * 101}, 422, "invalid_request", "documents"),
    ({"message": "hi", "documents": "all"}, 422, "invalid_request", "documents: must be true, false, or 1 to 100 doc"),
    ({"message": "hi", "documents": ["d", 5]}, 422, "invalid_request", "documents: must be true, false, or 1 to 100"),
    (
        {"message": "hi", "collections": []},
        422,
        "invalid_request",
        "collections: list should have at least 1 item, not",
    ),
    ({"message": "hi", "images": ["x"]}, 422, "invalid_request", "images.0: must be a JSON object"),
    ({"message": "hi", "prompt": "support"}, 422, "invalid_request", "prompt: must be a JSON object"),
    ({"message": "hi", "response_schema": "{}"}, 422, "invalid_request", "response_schema: must be a JSON object"),
    (
        {"message": "hi", "images": [{"media_type": "image/png", "data": "data:image/png;base64,iVBORw0KGgo="}]},
        422,
        "invalid_request",
        'without line breaks and without "data:image/png;base64,"',
    ),
    ({"message": "hi", "base_url": "http://evil.example"}, 422, "invalid_request", "base_url"),
    ({"message": "hi", "api_key": SECRET}, 422, "invalid_request", "api_key"),
    ({"message": "hi", "openai_api_key": SECRET}, 422, "invalid_request", "openai_api_key"),
    ({"message": "hi", "owner": "bob"}, 422, "invalid_request", "owner"),
    ({"message": "hi", "Message": "hi"}, 422, "invalid_request", "Message"),
    ({"message": "hi", "temperature": 3}, 422, "invalid_request", "temperature"),
    ({"message": "hi", "temperature": -0.1}, 422, "invalid_request", "temperature"),
    ({"message": "hi", "temperature": float("nan")}, 422, "invalid_request", "temperature"),
    ({"message": "hi", "temperature": float("inf")}, 422, "invalid_request", "temperature"),
    ({"message": "hi", "temperature": "hot"}, 422, "invalid_request", "temperature"),
    ({"message": "hi", "max_tokens": 0}, 422, "invalid_request", "max_tokens"),
    ({"message": "hi", "max_tokens": 10**100}, 422, "invalid_request", "max_tokens"),
    ({"message": "hi", "max_tokens": 1.5}, 422, "invalid_request", "max_tokens"),
    ({"message": "hi", "if_busy": "wait"}, 422, "invalid_request", "if_busy"),
    ({"message": "hi", "system_prompt": "x" * 20_001}, 422, "invalid_request", "system_prompt"),
    ({"message": "hi", "system_prompt": "\u0000"}, 422, "invalid_request", "NUL"),
    ({"message": "hi", "parent_id": "msg_unknown"}, 422, "invalid_request", "session_id"),
    ({"message": "hi", "expect_head": "msg_unknown"}, 422, "invalid_request", "session_id"),
]


@pytest.mark.parametrize(("body", "status", "code", "said"), WRONG_CHATS, ids=lambda v: repr(v)[:50])
async def test_a_wrong_chat_is_refused_and_nothing_is_stored(
    api: Running, body: dict[str, Any], status: int, code: str, said: str
) -> None:
    before = await stored(api)
    response = await api.client.post("/chat", content=json.dumps(body), headers=JSON)
    assert said.lower() in problem(response, status, code)["detail"].lower()
    assert SECRET not in response.text
    assert "Content-Type" not in response.text, "it was sent"
    assert len(response.content) < 2000
    assert await stored(api) == before


BROKEN_BODIES: list[tuple[str, bytes, int, str]] = [
    ("nothing", b"", 422, "invalid_request"),
    ("no JSON", b"message=hi", 400, "bad_json"),
    ("cut JSON", b'{"message": "hi"', 400, "bad_json"),
    ("two objects", b'{"message": "hi"} {"message": "ho"}', 400, "bad_json"),
    ("trailing comma", b'{"message": "hi",}', 400, "bad_json"),
    ("array", b'["message"]', 422, "invalid_request"),
    ("null", b"null", 422, "invalid_request"),
    ("number", b"17", 422, "invalid_request"),
    ("string", b'"message"', 422, "invalid_request"),
    ("true", b"true", 422, "invalid_request"),
    ("invalid UTF-8", b'{"message": "\xff\xfe"}', 400, "bad_request"),
    ("overlong UTF-8", b'{"message": "\xc0\xaf"}', 400, "bad_request"),
    ("raw NUL", b'{"message": "a\x00b"}', 400, "bad_json"),
    ("only NUL", b"\x00" * 10, 400, "bad_request"),
    ("lone high surrogate", b'{"message": "a \\ud800 b"}', 422, "invalid_request"),
    ("lone low surrogate", b'{"message": "\\udc00"}', 422, "invalid_request"),
    ("surrogate in the prompt", b'{"message": "hi", "system_prompt": "\\udfff"}', 422, "invalid_request"),
    ("surrogate in an id", b'{"message": "hi", "session_id": "\\ud800"}', 422, "invalid_request"),
    ("surrogate in a model", b'{"message": "hi", "model": "\\ud800/\\ud800"}', 422, "invalid_request"),
    ("surrogate in a document", b'{"message": "hi", "documents": ["\\ud800"]}', 422, "invalid_request"),
    ("surrogate in a field", b'{"message": "hi", "\\ud800": 1}', 422, "invalid_request"),
    ("deep arrays", b'{"message": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "bad_request"),
    ("deep objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "bad_request"),
    ("endless brackets", b"[" * 100_000, 400, "bad_request"),
    ("endless number", b'{"message": "hi", "max_tokens": ' + b"9" * 5000 + b"}", 400, "bad_request"),
]


@pytest.mark.parametrize("path", ["/chat", "/search"])
@pytest.mark.parametrize(("name", "body", "status", "code"), BROKEN_BODIES, ids=[b[0] for b in BROKEN_BODIES])
async def test_a_broken_body_is_refused_and_nothing_is_stored(
    api: Running, path: str, name: str, body: bytes, status: int, code: str
) -> None:
    before = await stored(api)
    if path == "/search":
        body = body.replace(b'"message"', b'"query"')
    problem(await api.client.post(path, content=body, headers=JSON), status, code)
    assert await stored(api) == before
    assert (await api.client.get("/health")).status_code == 200


@pytest.mark.parametrize("path", ["/chat", "/search"])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_of_10_mb_is_413(api: Running, path: str, declared: bool) -> None:
    before = await stored(api)
    body = b'{"message": "' + b"x" * 10_000_000 + b'"}'

    async def pieces():
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    response = await api.client.post(path, content=body if declared else pieces(), headers=JSON)
    detail = problem(response, 413, "too_large")["detail"]
    assert f"may have {'10' if path == '/chat' else '1'} MB" in detail
    assert await stored(api) == before


@pytest.mark.parametrize("content_type", [None, "text/plain"])
async def test_a_body_that_is_no_object_is_told_its_content_type(api: Running, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = problem(await api.client.post("/chat", content=b'"hi"', headers=headers), 422, "invalid_request")
    assert "send Content-Type: application/json" in body["detail"]


async def test_only_chat_is_shown_a_message_as_its_example(api: Running) -> None:
    for method, path, shown in (("POST", "/chat", True), ("PATCH", "/documents/doc_x", False)):
        response = await api.client.request(method, path, content=b"{", headers=JSON)
        assert ('{"message": "hello"}' in problem(response, 400, "bad_json")["detail"]) == shown


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(("method", "path"), [("POST", "/documents/upload"), ("PUT", "/documents/doc_x/content")])
@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({}, b"", 'file: is required. Send multipart/form-data with a field "file"'),
        ({}, b"The contract.", 'file: is required. Send multipart/form-data with a field "file"'),
        (
            FORM,
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nx\r\n--b--\r\n',
            "is required",
        ),
        (
            FORM,
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\na.pdf\r\n--b--\r\n',
            "file: is a text, not a file. With curl: -F file=@contract.pdf",
        ),
    ],
)
async def test_an_upload_without_a_file_says_how(
    api: Running, method: str, path: str, headers: dict[str, str], body: bytes, said: str
) -> None:
    response = await api.client.request(method, path, content=body, headers=headers)
    told = problem(response, 422, "invalid_request")
    assert said in told["detail"]
    assert [each["field"] for each in told["errors"]] == ["file"]


async def test_the_last_of_duplicate_keys_counts_everywhere_alike(api: Running) -> None:
    body = b'{"message": "hi", "documents": false, "message": "", "message": "one two"}'
    response = await api.client.post("/chat", content=body, headers={**JSON, "Accept": "application/json"})
    assert response.status_code == 200
    messages = await api.client.get(f"/chat/history/{response.json()['session_id']}")
    assert messages.json()["messages"][0]["content"] == "one two"


async def test_a_million_form_fields_are_refused(api: Running) -> None:
    before = await stored(api)
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'
    body = part * 15_000 + b"--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    problem(await api.client.post("/documents/upload", content=body, headers=headers), 400, "bad_request")
    assert await stored(api) == before


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=b", b"--c\r\n\r\nx"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx',
        ),
        ("multipart/form-data; boundary=\x00", b"x"),
    ],
)
async def test_broken_multipart_is_refused_and_nothing_is_stored(api: Running, content_type: str, body: bytes) -> None:
    before = await stored(api)
    headers = {"Content-Type": content_type.replace("\x00", "%00")}
    response = await api.client.post("/documents/upload", content=body, headers=headers)
    assert response.status_code in (400, 422)
    problem(response, response.status_code, response.json()["code"])
    assert await stored(api) == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"title": ""}', 422, "invalid_request"),
        (b'{"title": " \\n "}', 422, "invalid_request"),
        (b'{"title": "%s"}' % (b"x" * 201), 422, "invalid_request"),
        (b'{"title": "\\ud800"}', 422, "invalid_request"),
        (b'{"title": "a", "owner": "bob"}', 422, "invalid_request"),
        (b"{}", 422, "invalid_request"),
        (b'{"title": 5}', 422, "invalid_request"),
        (b"{", 400, "bad_json"),
    ],
)
async def test_a_wrong_title_changes_nothing(api: Running, body: bytes, status: int, code: str) -> None:
    answer = await api.client.post("/chat", json={"message": "Title"}, headers={"Accept": "application/json"})
    path = f"/sessions/{answer.json()['session_id']}"
    problem(await api.client.patch(path, content=body, headers=JSON), status, code)
    assert (await api.client.get(path)).json()["title"] == "Title"


async def test_a_title_is_one_clean_line(api: Running) -> None:
    answer = await api.client.post("/chat", json={"message": "Title"}, headers={"Accept": "application/json"})
    path = f"/sessions/{answer.json()['session_id']}"
    response = await api.client.patch(path, json={"title": " a\n\nb\u0000c\t🚢 "})
    assert response.json()["title"] == "a bc 🚢"


@pytest.mark.parametrize(
    "path",
    [
        "/sessions?cursor=abc",
        "/sessions?cursor=%C3%A9",
        "/sessions?cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTkgeA==",  # a time of 26 digits
        "/sessions?cursor=",
        "/documents?cursor=nonsense",
        "/documents?cursor=",
        "/runs/run_x/events?after=-1",
        "/runs/run_x/events?after=x",
    ],
)
async def test_a_broken_cursor_is_400(api: Running, path: str) -> None:
    problem(await api.client.get(path), 400, "bad_cursor")


@pytest.mark.parametrize(
    "path", ["/sessions?limit=0", "/sessions?limit=201", "/sessions?limit=x", f"/sessions?q={'x' * 201}"]
)
async def test_a_list_out_of_bounds_is_422(api: Running, path: str) -> None:
    problem(await api.client.get(path), 422, "invalid_request")


@pytest.mark.parametrize("tail", ["", "/messages", "/active"])
@pytest.mark.parametrize("session_id", ["ses_unknown", "%00", "..%2f..%2fetc%2fpasswd", "%ed%a0%80", "x" * 3000])
async def test_an_unknown_session_is_404(api: Running, session_id: str, tail: str) -> None:
    problem(await api.client.get(f"/sessions/{session_id}{tail}"), 404, "not_found")


async def test_an_unknown_session_can_be_neither_renamed_nor_deleted(api: Running) -> None:
    problem(await api.client.patch("/sessions/ses_unknown", json={"title": "x"}), 404, "not_found")
    problem(await api.client.delete("/sessions/ses_unknown"), 404, "not_found")
    problem(await api.client.get("/chat/history/ses_unknown"), 404, "not_found")


async def test_an_unknown_path_and_a_wrong_method_are_problems(api: Running) -> None:
    problem(await api.client.get("/nothing/here"), 404, "not_found")
    response = await api.client.put("/chat", json={})
    problem(response, 405, "method_not_allowed")
    assert "POST" in response.headers["allow"]


async def test_a_prompt_template_is_literal_text(api: Running) -> None:
    """CVE-2026-45312, CVE-2025-68664: what a message holds is data."""
    message = '{"lc": 1, "type": "secret", "id": ["OPENAI_API_KEY"]} {{config}} ${7*7} {question} %s'
    answer = await api.client.post("/chat", json={"message": message}, headers={"Accept": "application/json"})
    assert answer.status_code == 200
    history = await api.client.get(f"/chat/history/{answer.json()['session_id']}")
    assert history.json()["messages"][0]["content"] == message
