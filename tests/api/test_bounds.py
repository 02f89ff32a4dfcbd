"""Every text, list and number of a request has a bound where it enters."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.app import create_app
from tests.api.helpers import problem, stored
from tests.support.harness import ALL_ON, Running, settings

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOUNDED_ELSEWHERE = {
    "message": "by MAX_MESSAGE_CHARS",
    "response_schema": "as a whole, in its validator",
    "documents": "to 100 ids, in its validator",
    "file": "by MAX_UPLOAD_FILES and MAX_UPLOAD_MB",
    "messages": "by the limits of a session's file, see tests/api/test_sessions_hostile_files.py",
}
"""Fields whose bound is no part of their schema, and where it is."""


def unbounded(document: dict[str, Any]) -> Iterator[str]:
    """The fields of requests, in an OpenAPI document, that may be of any size."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            place = f"{method.upper()} {path}"
            # An id in a path only looks something up: if it is too long, there is no such thing.
            for parameter in (p for p in operation.get("parameters", ()) if p["in"] != "path"):
                yield from walk(document, parameter["schema"], f"{place} {parameter['name']}", ())
            for content in operation.get("requestBody", {}).get("content", {}).values():
                yield from walk(document, content["schema"], place, ())


def walk(document: dict[str, Any], schema: dict[str, Any], path: str, parents: tuple[str, ...]) -> Iterator[str]:
    if (name := schema.get("$ref", "").rpartition("/")[2]) != "":
        if name not in parents:
            yield from walk(document, document["components"]["schemas"][name], path, (*parents, name))
        return
    if "enum" in schema or "const" in schema:
        return
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from walk(document, part, path, parents)
    match schema.get("type"):
        case "string":
            is_moment = schema.get("format") in ("date", "date-time", "binary")
            if "maxLength" not in schema and "pattern" not in schema and not is_moment:
                yield path
        case "integer" | "number":
            if not schema.keys() & {"minimum", "exclusiveMinimum"} or not schema.keys() & {
                "maximum",
                "exclusiveMaximum",
            }:
                yield path
        case "array":
            if "maxItems" not in schema:
                yield path
            yield from walk(document, schema.get("items", {}), path, parents)
        case "object":
            values = schema.get("additionalProperties")
            if values is True or (isinstance(values, dict) and "maxProperties" not in schema):
                yield path
            if isinstance(values, dict):
                yield from walk(document, values, path, parents)
        case _:
            pass
    for name, field in schema.get("properties", {}).items():
        if name not in BOUNDED_ELSEWHERE:
            yield from walk(document, field, f"{path} {name}", parents)


async def test_no_field_of_a_request_may_be_of_any_size(tmp_path: Path) -> None:
    document = create_app(settings(tmp_path / "data", **ALL_ON)).openapi()
    assert sorted(set(unbounded(document))) == []


LONG = "x" * 300
PLACES = [f"/sessions?cursor={LONG * 2}", f"/usage?cursor={LONG * 2}", f"/documents?collection={LONG}"]


@pytest.mark.parametrize("path", PLACES, ids=["sessions", "usage", "documents"])
async def test_a_long_parameter_is_refused(api: Running, path: str) -> None:
    response = await api.client.get(path)
    assert "at most" in problem(response, 422, "invalid_request")["detail"]
    assert len(response.content) < 1_000


FIELDS: list[dict[str, Any]] = [
    {"model": LONG},
    {"session_id": LONG},
    {"session_id": "ses_1", "parent_id": LONG},
    {"session_id": "ses_1", "expect_head": LONG},
    {"documents": [LONG]},
    {"collections": [LONG]},
    {"fallbacks": [LONG]},
    {"prompt": {"name": "p", "variables": {"n": 10**30}}},
    {"prompt": {"name": "p", "variables": {"n": 1e300}}},
    {"prompt": {"name": "p", "variables": {"n": "x" * 60_000}}},
    {"seed": 2**63},
    {"max_tokens": 10**12},
]


@pytest.mark.parametrize("fields", FIELDS, ids=lambda fields: "-".join(fields))
async def test_a_field_beyond_its_bound_is_refused_and_stores_nothing(api: Running, fields: dict[str, Any]) -> None:
    before = await stored(api)
    response = await api.client.post("/chat", json={"message": "hi", **fields})
    problem(response, 422, "invalid_request")
    assert len(response.content) < 3_000
    assert await stored(api) == before


@pytest.mark.parametrize("header", ["Idempotency-Key", "Last-Event-ID"])
async def test_a_long_header_is_refused(api: Running, header: str) -> None:
    response = await api.client.post("/chat", json={"message": "hi"}, headers={header: f"{LONG}:1"})
    assert (response.status_code, response.json()["code"]) in ((422, "invalid_request"), (400, "bad_cursor"))


@pytest.mark.parametrize("query", ["from=0001-01-01T00:00:00%2B14:00", "to=9999-12-31T23:59:59-14:00"])
async def test_a_moment_at_the_edge_of_time_is_no_fault_of_ours(api: Running, query: str) -> None:
    response = await api.client.get(f"/usage?{query}")
    assert response.status_code in (200, 422)
