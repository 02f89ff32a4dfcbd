"""/openapi.json is whole: a client can be generated from it."""

import copy
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator

from backend import events as ev
from backend.chains.history.images import read_image
from tests.api.helpers import references
from tests.api.routes import PRIVATE, PUBLIC, Endpoint, make_app
from tests.api.test_authentication import BODIES
from tests.architecture.test_docs import documented
from tests.support.harness import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return make_app().openapi()


def operations(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(m.upper(), p, op) for p, ops in schema["paths"].items() for m, op in ops.items() if m in METHODS]


async def test_it_is_served_as_it_is_made(api: Running, schema: dict[str, Any]) -> None:
    assert (await api.client.get("/openapi.json")).json() == schema


async def test_every_reference_resolves(schema: dict[str, Any]) -> None:
    found = set(references(schema))
    assert found
    for reference in found:
        at: Any = schema
        assert reference.startswith("#/")
        for step in reference[2:].split("/"):
            assert step in at, reference
            at = at[step]


async def test_it_holds_every_endpoint_and_no_other(schema: dict[str, Any]) -> None:
    hidden = {("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/docs/static")}
    assert {(m, p) for m, p, _ in operations(schema)} == {tuple(e) for e in PRIVATE | PUBLIC} - hidden


async def test_every_operation_has_a_summary_a_description_and_a_tag(schema: dict[str, Any]) -> None:
    for method, path, operation in operations(schema):
        assert operation.get("summary"), (method, path)
        assert operation.get("description"), (method, path)
        assert operation.get("tags"), (method, path)
    ids = [operation["operationId"] for _, _, operation in operations(schema)]
    assert len(ids) == len(set(ids))
    assert [id for id in ids if not re.fullmatch(r"[a-z]+(_[a-z]+){0,3}", id)] == [], (
        "name the function as a verb and its object"
    )
    described = {tag["name"] for tag in schema["tags"] if tag.get("description")}
    assert {tag for _, _, operation in operations(schema) for tag in operation["tags"]} == described


async def test_every_private_operation_names_its_errors_as_problems(schema: dict[str, Any]) -> None:
    for method, path, operation in operations(schema):
        if (method, path) not in PRIVATE:
            continue
        errors = {status: r for status, r in operation["responses"].items() if int(status) >= 400}
        assert "401" in errors, (method, path)
        if "{" in path:
            assert "404" in errors, (method, path)
        if method != "GET":
            assert "403" in errors, (method, path)
        for status, response in errors.items():
            assert list(response["content"]) == ["application/problem+json"], (method, path, status)


async def test_every_problem_has_an_example_that_is_valid(schema: dict[str, Any]) -> None:
    problem = Draft202012Validator({**schema["components"]["schemas"]["Problem"], "components": schema["components"]})
    for method, path, operation in operations(schema):
        for status, response in operation["responses"].items():
            if content := response.get("content", {}).get("application/problem+json"):
                problem.validate(content["example"])
                assert str(content["example"]["status"]) == status, (method, path)
                assert content["example"]["code"] in documented(), (method, path)


@pytest.mark.parametrize("endpoint", sorted(e for e in PRIVATE if "{" in e.path), ids=" ".join)
async def test_the_example_of_404_is_what_the_endpoint_says(
    api: Running, schema: dict[str, Any], endpoint: Endpoint
) -> None:
    method, path = endpoint
    problem = schema["paths"][path][method.lower()]["responses"]["404"]["content"]["application/problem+json"]
    response = await api.client.request(method, endpoint.url, **BODIES.get((method, path), {}))
    assert response.status_code == 404, response.text
    assert {key: problem["example"][key] for key in ("code", "detail")} == {
        key: response.json()[key] for key in ("code", "detail")
    }


async def test_the_example_of_409_is_about_the_endpoints_own_subject(schema: dict[str, Any]) -> None:
    for method, path, operation in operations(schema):
        if (response := operation["responses"].get("409")) is None:
            continue
        example = response["content"]["application/problem+json"]["example"]
        assert example["code"] in CONFLICTS[(method, path)], (method, path, example)


CONFLICTS = {
    ("POST", "/chat"): {"session_busy"},
    ("POST", "/messages/{message_id}/regenerate"): {"session_busy"},
    ("POST", "/messages/{message_id}/edit"): {"session_busy"},
    ("DELETE", "/messages/{message_id}"): {"session_busy"},
    ("GET", "/runs/{run_id}/events"): {"cursor_ahead"},
    ("PATCH", "/documents/{document_id}"): {"document_busy"},
    ("GET", "/documents/{document_id}/text"): {"document_not_ready"},
    ("PUT", "/documents/{document_id}/content"): {"document_duplicate"},
    ("POST", "/documents/text"): {"embedding_mismatch"},
    ("POST", "/documents/url"): {"embedding_mismatch"},
    ("POST", "/documents/upload"): {"embedding_mismatch"},
    ("POST", "/search"): {"embedding_mismatch"},
    ("POST", "/prompts"): {"prompt_exists"},
    ("POST", "/prompts/{name}/versions"): {"too_many_prompts"},
    ("PUT", "/prompts/{name}/labels/{label}"): {"too_many_prompts"},
    ("POST", "/collections"): {"collection_exists"},
    ("PATCH", "/collections/{collection_id}"): {"collection_exists"},
    ("POST", "/collections/{collection_id}/embed"): {"embedding_running"},
}
"""What each endpoint can conflict with. A new endpoint with a 409 needs its line."""


async def test_uploads_offer_files(schema: dict[str, Any]) -> None:
    """Swagger UI shows a file chooser for `format: binary` alone."""
    forms = {
        path: schema["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]["properties"]["file"]
        for _, path, operation in operations(schema)
        if (content := operation.get("requestBody", {}).get("content", {}).get("multipart/form-data"))
    }
    many, one = forms["/documents/upload"], forms["/documents/{document_id}/content"]
    assert (many["type"], many["items"]) == ("array", {"type": "string", "format": "binary"})
    assert (one["type"], one["format"]) == ("string", "binary")
    assert "contentMediaType" not in str(forms)


def untyped(node: Any, path: str = "", *, is_named: bool = False) -> Iterator[str]:
    """Where a schema says nothing of what it holds. `is_named`: the node's keys are names of properties or schemas."""
    if isinstance(node, list):
        for child in node:
            yield from untyped(child, path)
        return
    if not isinstance(node, dict):
        return
    if not is_named:
        is_open = not node.get("properties") and not isinstance(node.get("additionalProperties"), dict)
        if (
            not node
            or (node.get("type") == "object" and is_open)
            or (node.get("type") == "array" and not node["items"])
        ):
            yield path
    for key, child in node.items():
        if is_named or key not in ("examples", "example", "default"):
            is_names = not is_named and key in ("properties", "schemas", "$defs")
            yield from untyped(child, f"{path}/{key}", is_named=is_names)


async def test_nothing_is_untyped(schema: dict[str, Any]) -> None:
    assert list(untyped(schema["components"]["schemas"], is_named=True)) == []
    for _, path, operation in operations(schema):
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                assert list(untyped(content["schema"], path)) == []


async def test_what_reads_a_body_or_an_answer_names_what_can_go_wrong_with_it(schema: dict[str, Any]) -> None:
    for method, path, operation in operations(schema):
        if "requestBody" in operation:
            assert "400" in operation["responses"], (method, path)
        if "Answer" in str(operation["responses"].get("200")):
            assert {"429", "502", "504"} <= set(operation["responses"]), (method, path)


async def test_every_part_of_a_path_is_described(schema: dict[str, Any]) -> None:
    for method, path, operation in operations(schema):
        named = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path" and p.get("description")}
        assert named == set(re.findall(r"{(\w+)}", path)), f"{method} {path}: describe each with Path(description=...)"


async def test_the_picture_of_the_examples_is_one(schema: dict[str, Any]) -> None:
    examples = schema["components"]["schemas"]["ChatRequest"]["examples"]
    shown = [image for example in examples for image in example.get("images", ())]
    assert [read_image(**image).media_type for image in shown] == ["image/png"]


async def test_every_json_request_has_examples_that_are_valid(schema: dict[str, Any]) -> None:
    checked = 0
    for method, path, operation in operations(schema):
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" not in content:
            continue
        name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        model = schema["components"]["schemas"][name]
        assert model.get("examples"), (method, path)
        whole = {**copy.deepcopy(model), "components": schema["components"]}
        for example in model["examples"]:
            Draft202012Validator(whole).validate(example)
        assert model["additionalProperties"] is False
        checked += 1
    assert checked >= 3


async def test_no_request_takes_a_providers_address_or_key(schema: dict[str, Any]) -> None:
    """CVE-2024-6587."""
    for name in ("ChatRequest", "SearchRequest", "SessionChange"):
        fields = schema["components"]["schemas"][name]["properties"]
        assert not {f for f in fields if "url" in f or "key" in f or "secret" in f}


async def test_the_events_discriminator_covers_every_event(schema: dict[str, Any]) -> None:
    tags = {e.__struct_config__.tag for e in get_args(ev.AnyEvent)}
    event = schema["components"]["schemas"]["Event"]
    assert event["discriminator"]["propertyName"] == "type"
    assert set(event["discriminator"]["mapping"]) == tags
    assert len(event["anyOf"]) == len(tags)


async def test_a_real_stream_is_as_described(api: Running, schema: dict[str, Any]) -> None:
    document = await api.upload("described.txt", b"The bridge at Elsmere was painted green in 1911.")
    body = {"message": "Which colour has the bridge at Elsmere?", "documents": [document["id"]]}
    events = await api.events(body)
    assert {"run.started", "sources", "citation", "run.completed"} <= {e["type"] for e in events}
    whole = {**schema["components"]["schemas"]["Event"], "components": schema["components"]}
    validator = Draft202012Validator(whole)
    for event in events:
        del event["_id"]
        validator.validate(event)


async def test_real_answers_are_as_described(api: Running, schema: dict[str, Any]) -> None:
    document = await api.upload("described.txt", b"The bridge at Elsmere was painted green in 1911.")
    headers = {"Accept": "application/json"}
    body = {"message": "Which colour has the bridge at Elsmere?", "documents": [document["id"]]}
    answer = (await api.client.post("/chat", json=body, headers=headers)).json()
    prompt = {"name": "described", "system": "Be {{how}}.", "variables": {"how": {"default": "brief"}}}
    made = await api.client.post("/prompts", json=prompt)
    session = f"/sessions/{answer['session_id']}"
    head = {"message_id": answer["message_id"]}
    calls = {
        "Answer": answer,
        "Prompt": made.json(),
        "PromptList": (await api.client.get("/prompts")).json(),
        "PromptDetails": (await api.client.get("/prompts/described")).json(),
        "PromptVersion": (await api.client.get("/prompts/described/versions/1")).json(),
        "PromptDiff": (await api.client.get("/prompts/described/diff?from=1&to=1")).json(),
        "RenderedPrompt": (await api.client.post("/prompts/described/render", json={})).json(),
        "Session": (await api.client.put(f"{session}/head", json=head)).json(),
        "SessionFile": (await api.client.get(f"{session}/export")).json(),
        "Document": document,
        "DocumentList": (await api.client.get("/documents")).json(),
        "SearchResult": (await api.client.post("/search", json={"query": "bridge"})).json(),
        "SessionList": (await api.client.get("/sessions")).json(),
        "MessageList": (await api.client.get(f"/sessions/{answer['session_id']}/messages")).json(),
        "CollectionList": (await api.client.get("/collections")).json(),
        "VersionList": (await api.client.get(f"/documents/{document['id']}/versions")).json(),
        "SweepResult": (await api.client.post("/documents/sweep")).json(),
        "RunInfo": (await api.client.get(f"/runs/{answer['run_id']}")).json(),
        "ModelList": (await api.client.get("/models")).json(),
        "Problem": (await api.client.get("/runs/run_unknown")).json(),
    }
    for name, value in calls.items():
        whole = {**schema["components"]["schemas"][name], "components": schema["components"]}
        Draft202012Validator(whole).validate(value)


async def test_bearer_is_swaggers_authorize(schema: dict[str, Any]) -> None:
    schemes = schema["components"]["securitySchemes"]
    (name,) = [n for n, s in schemes.items() if (s["type"], s["scheme"]) == ("http", "bearer")]
    for method, path, operation in operations(schema):
        wanted = (method, path) in PRIVATE
        assert bool(operation.get("security")) == wanted, (method, path)
        if wanted:
            assert {name: []} in operation["security"]
