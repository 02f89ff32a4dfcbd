"""JSON bodies that are large in another way than by their bytes: what is decoded, where, and what an error costs."""

import json
import threading
from typing import Any

import pytest

from backend.errors import BadRequest, Invalid
from backend.routers.edge import json_body
from backend.routers.edge.json_body import MAX_DEPTH, MAX_VALUES, decode
from tests.api.helpers import problem
from tests.support.harness import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        "[" + "1," * MAX_VALUES + "1]",
        "[" + "[]," * MAX_VALUES + "1]",
        "[" + '"",' * MAX_VALUES + "1]",
        "{" + ",".join(f'"{n}":1' for n in range(MAX_VALUES)) + "}",
        '"' * 10 * MAX_VALUES,
        '{"a":"\\\\"' + ',"b":1' * MAX_VALUES + "}",
    ],
)
async def test_too_many_values_are_refused(body: str) -> None:
    with pytest.raises(Invalid, match="at most 10,000 values"):
        decode(body.encode())


@pytest.mark.parametrize(
    "value",
    [
        {"text": ',:[]{}"\\' * 100_000},
        {"text": "\\" * 300_001},
        {"text": "é" * 300_000, "more": ["\n" * 1000] * 1000},
        [{"a": n, "b": [n]} for n in range(1500)],
    ],
)
async def test_what_is_within_strings_is_no_value(value: Any) -> None:
    assert decode(json.dumps(value).encode()) == value
    assert decode(json.dumps(value, ensure_ascii=False).encode()) == value


async def test_a_string_may_end_at_any_place_of_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"text": '\\"' * 15_000, "more": ["a\\", '"'] * 300}
    for size in (1, 2, 3, 7):
        monkeypatch.setattr(json_body, "_PIECE_BYTES", size)
        assert decode(json.dumps(value).encode()) == value


async def test_deep_bodies_are_refused_at_any_size() -> None:
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert decode(deepest.encode())
    for padding in ("", " " * 100_000):
        with pytest.raises(BadRequest, match="nested"):
            decode(f"[{deepest}{padding}]".encode())
    with pytest.raises(json.JSONDecodeError):
        decode(b"{" + b"]" * 100_000)


async def test_large_bodies_are_decoded_in_a_thread(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    original = json_body.decode

    def record(body: bytes) -> Any:
        threads.append(threading.current_thread())
        return original(body)

    monkeypatch.setattr(json_body, "decode", record)
    for size in (1000, 300_000):
        body = json.dumps({"query": "a" * size}).encode()
        await api.client.post("/search", content=body, headers=JSON)
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


@pytest.mark.parametrize("path", ["/chat", "/search", "/prompts", "/collections", "/documents/text"])
async def test_an_error_lists_the_first_twenty_fields(api: Running, path: str) -> None:
    body = {f"field{n}": n for n in range(3000)}
    answer = problem(await api.client.post(path, json=body), 422, "invalid_request")
    assert len(answer["errors"]) == 20 and len(answer["detail"]) < 2000
    many = b"[" + b"[]," * 300_000 + b"1]"
    answer = problem(
        await api.client.post(path, content=b'{"message":' + many + b"}", headers=JSON), 422, "invalid_request"
    )
    assert "10,000 values" in answer["detail"]
