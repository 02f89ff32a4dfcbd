"""Prompts over the API: versions that never change, labels, differences, and whose they are."""

import json
from typing import Any

import pytest

from tests.api.helpers import ALICE, BOB, bearer, problem, rows, stored
from tests.api.helpers import data_dir as folder_of
from tests.support.harness import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONTENT: dict[str, Any] = {
    "system": "You answer for {{company}}.\nBe {{tone}}.",
    "variables": {
        "company": {"type": "string"},
        "tone": {"type": "enum", "values": ["brief", "kind"], "default": "brief"},
    },
    "examples": [{"user": "Open on Sundays?", "assistant": "No."}],
}


async def make(api: Running, name: str, **fields: Any) -> dict[str, Any]:
    response = await api.client.post("/prompts", json={"name": name, **CONTENT, **fields})
    assert response.status_code == 201, response.text
    return response.json()


async def test_a_prompt_is_made_with_its_first_version(api: Running) -> None:
    made = await make(api, "first", labels=["production"], note="The beginning.")
    assert (made["versions"], made["labels"]) == (1, {"production": 1})
    one = (await api.client.get("/prompts/first/versions/1")).json()
    assert one["note"] == "The beginning."
    assert one["content"]["system"] == CONTENT["system"]
    assert one["content"]["examples"] == CONTENT["examples"]
    assert made["name"] in [p["name"] for p in (await api.client.get("/prompts")).json()["items"]]
    assert problem(await api.client.post("/prompts", json={"name": "first", **CONTENT}), 409, "prompt_exists")


async def test_a_version_never_changes_and_labels_move(api: Running) -> None:
    await make(api, "moving", labels=["production"])
    before = (await api.client.get("/prompts/moving/versions/1")).json()
    second = await api.client.post("/prompts/moving/versions", json={"system": "Be kind.", "labels": ["staging"]})
    assert second.status_code == 201
    assert second.json()["version"] == 2
    assert (await api.client.get("/prompts/moving/versions/1")).json() == before
    details = (await api.client.get("/prompts/moving")).json()
    assert details["labels"] == {"production": 1, "staging": 2}
    assert [v["version"] for v in details["items"]] == [2, 1]
    moved = await api.client.put("/prompts/moving/labels/production", json={"version": 2})
    assert moved.json()["labels"] == {"production": 2, "staging": 2}
    assert (await api.client.delete("/prompts/moving/labels/staging")).status_code == 204
    assert (await api.client.get("/prompts/moving")).json()["labels"] == {"production": 2}
    problem(await api.client.delete("/prompts/moving/labels/staging"), 404, "not_found")
    problem(await api.client.put("/prompts/moving/labels/production", json={"version": 3}), 404, "not_found")
    for method in ("PUT", "PATCH", "DELETE"):
        response = await api.client.request(method, "/prompts/moving/versions/1", json=CONTENT)
        problem(response, 405, "method_not_allowed")


async def test_render_shows_what_would_be_sent(api: Running) -> None:
    await make(api, "shown", template="Customer: {{message}}", model="simulated/words", parameters={"max_tokens": 5})
    body = {"variables": {"company": "Acme {{tone}}"}, "message": "Hello {{company}}"}
    shown = (await api.client.post("/prompts/shown/render", json=body)).json()
    assert shown["system"] == "You answer for Acme {{tone}}.\nBe brief."
    assert shown["message"] == "Customer: Hello {{company}}"
    assert shown["examples"] == CONTENT["examples"]
    assert shown["variables"] == {"company": "Acme {{tone}}", "tone": "brief"}
    assert shown["model"] == "simulated/words"
    assert shown["parameters"]["max_tokens"] == 5
    missing = problem(await api.client.post("/prompts/shown/render", json={}), 422, "invalid_request")
    assert missing["errors"] == [{"field": "prompt.variables.company", "problem": "is required"}]
    both = {"version": 1, "label": "production", "variables": {"company": "x"}}
    problem(await api.client.post("/prompts/shown/render", json=both), 422, "invalid_request")


async def test_without_a_version_the_production_label_counts_else_the_newest(api: Running) -> None:
    await make(api, "chosen")
    await api.client.post("/prompts/chosen/versions", json={"system": "Two."})
    await api.client.post("/prompts/chosen/versions", json={"system": "Three."})
    assert (await api.client.post("/prompts/chosen/render", json={})).json()["system"] == "Three."
    await api.client.put("/prompts/chosen/labels/production", json={"version": 2})
    assert (await api.client.post("/prompts/chosen/render", json={})).json()["system"] == "Two."
    by_number = await api.client.post("/prompts/chosen/render", json={"version": 3})
    assert by_number.json()["system"] == "Three."
    problem(await api.client.post("/prompts/chosen/render", json={"label": "nosuch"}), 404, "not_found")
    problem(await api.client.post("/prompts/chosen/render", json={"version": 9}), 404, "not_found")


async def test_the_difference_of_two_versions_is_told_by_field(api: Running) -> None:
    await make(api, "differs")
    changed = {**CONTENT, "system": "You answer for {{company}}.\nBe kind.", "model": "simulated/words"}
    await api.client.post("/prompts/differs/versions", json=changed)
    found = (await api.client.get("/prompts/differs/diff", params={"from": 1, "to": 2})).json()["fields"]
    assert set(found) == {"system", "model"}
    assert found["system"].split("\n")[:2] == ["--- version 1", "+++ version 2"]
    assert found["system"].split("\n")[-2:] == ["-Be {{tone}}.", "+Be kind."]
    assert "+simulated/words" in found["model"]
    same = await api.client.get("/prompts/differs/diff", params={"from": 2, "to": 2})
    assert same.json()["fields"] == {}
    problem(await api.client.get("/prompts/differs/diff", params={"from": 1, "to": 3}), 404, "not_found")
    problem(await api.client.get("/prompts/differs/diff", params={"from": 1}), 422, "invalid_request")


async def test_labels_come_to_an_end(api: Running) -> None:
    await make(api, "labelled", labels=[f"l{n}" for n in range(20)])
    for n in range(20, 100):
        assert (await api.client.put(f"/prompts/labelled/labels/l{n}", json={"version": 1})).status_code == 200
    problem(await api.client.put("/prompts/labelled/labels/more", json={"version": 1}), 409, "too_many_prompts")
    refused = await api.client.post("/prompts/labelled/versions", json={**CONTENT, "labels": ["more"]})
    problem(refused, 409, "too_many_prompts")
    told = (await api.client.get("/prompts/labelled")).json()
    assert (len(told["labels"]), told["versions"]) == (100, 1)
    assert (await api.client.put("/prompts/labelled/labels/l0", json={"version": 1})).status_code == 200


async def test_a_deleted_prompt_is_gone(api: Running) -> None:
    await make(api, "gone", labels=["production"])
    assert (await api.client.delete("/prompts/gone")).status_code == 204
    for path in ("/prompts/gone", "/prompts/gone/versions/1"):
        problem(await api.client.get(path), 404, "not_found")
    problem(await api.client.delete("/prompts/gone"), 404, "not_found")
    problem(await api.client.post("/prompts/gone/versions", json=CONTENT), 404, "not_found")
    counted = "SELECT count(*) FROM prompt_{} v LEFT JOIN prompts p ON p.id = v.prompt_id WHERE p.id IS NULL"
    assert [rows(folder_of(api), counted.format(table)) for table in ("versions", "labels")] == [[(0,)], [(0,)]]


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", ".x", "x" * 65, "ä", "a\n"])
async def test_a_name_is_plain(api: Running, name: str) -> None:
    body = problem(await api.client.post("/prompts", json={"name": name, **CONTENT}), 422, "invalid_request")
    assert body["detail"].startswith("name: may hold letters, digits, . _ - (64 at most)")


async def test_what_is_unknown_is_refused(api: Running) -> None:
    body = problem(await api.client.post("/prompts", json={"name": "x", "sytem": "hi"}), 422, "invalid_request")
    assert "sytem" in body["detail"]
    raw = b'{"name": "x", "system": "\\ud800"}'
    response = await api.client.post("/prompts", content=raw, headers={"Content-Type": "application/json"})
    problem(response, 422, "invalid_request")


@pytest.mark.parametrize(("name", "bad"), [("lone", "\\ud800"), ("nul", "\\u0000"), ("long", "x" * 100_000)])
async def test_what_cannot_be_kept_is_refused_wherever_a_prompt_is_chosen(api: Running, name: str, bad: str) -> None:
    """Names of variables come back in what the refusal says."""
    await make(api, name)
    session_id = (await api.events({"message": "hi", "model": "simulated/words", "documents": False}))[0]["session_id"]
    before = await stored(api)
    named = f'{{"name": "{name}", '
    for chosen in (
        f'{named}"variables": {{"{bad}": "x"}}}}',
        f'{named}"variables": {{"tone": "{bad}"}}}}',
        f'{named}"label": "{bad}"}}',
        f'{{"name": "{bad}"}}',
    ):
        for method, path, sent in (
            ("POST", "/chat", f'{{"message": "hi", "prompt": {chosen}}}'),
            ("PATCH", f"/sessions/{session_id}", f'{{"prompt": {chosen}}}'),
            ("POST", f"/prompts/{name}/render", chosen.replace(named, "{")),
        ):
            headers = {"Content-Type": "application/json"}
            response = await api.client.request(method, path, content=sent, headers=headers)
            problem(response, 422, "invalid_request")
            assert len(response.content) < 2000
    assert await stored(api) == before


async def test_nobody_sees_the_prompts_of_others(keyed: Running) -> None:
    alice, bob = bearer(ALICE), bearer(BOB)
    body = {"name": "secret", "system": "Alice's.", "labels": ["production"]}
    assert (await keyed.client.post("/prompts", json=body, headers=alice)).status_code == 201
    assert (await keyed.client.get("/prompts", headers=bob)).json()["items"] == []
    for method, path, sent in (
        ("GET", "/prompts/secret", None),
        ("GET", "/prompts/secret/versions/1", None),
        ("GET", "/prompts/secret/diff?from=1&to=1", None),
        ("POST", "/prompts/secret/render", {}),
        ("POST", "/prompts/secret/versions", {"system": "Bob's."}),
        ("PUT", "/prompts/secret/labels/production", {"version": 1}),
        ("DELETE", "/prompts/secret/labels/production", None),
        ("DELETE", "/prompts/secret", None),
    ):
        problem(await keyed.client.request(method, path, json=sent, headers=bob), 404, "not_found")
    chat = {"message": "hi", "documents": False, "prompt": {"name": "secret"}}
    problem(await keyed.client.post("/chat", json=chat, headers=bob), 404, "not_found")
    own = await keyed.client.post("/prompts", json={**body, "system": "Bob's."}, headers=bob)
    assert own.status_code == 201
    kept = await keyed.client.get("/prompts/secret/versions/1", headers=alice)
    assert kept.json()["content"]["system"] == "Alice's."


async def test_curl_needs_no_header(api: Running) -> None:
    body = json.dumps({"name": "curled", "system": "Hi."})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await api.client.post("/prompts", content=body, headers=headers)).status_code == 201
    body = json.dumps({"system": "Hello."})
    assert (await api.client.post("/prompts/curled/versions", content=body, headers=headers)).status_code == 201
    body = json.dumps({"version": 2})
    assert (await api.client.put("/prompts/curled/labels/best", content=body, headers=headers)).status_code == 200
