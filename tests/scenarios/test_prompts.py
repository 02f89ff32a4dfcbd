"""Prompts in answers: what the model is sent, what the history says of it, and who decides what."""

from typing import Any

from tests.api.helpers import problem
from tests.scenarios.support import ask, messages, only_terminal, rows, said
from tests.support.harness import Running
from tests.support.provider_protocol import answer
from tests.support.provider_server import ProviderServer

PROMPT: dict[str, Any] = {
    "name": "support",
    "system": "You answer for {{company}}.",
    "template": "Customer: {{message}}",
    "variables": {"company": {"type": "string"}},
    "examples": [{"user": "Open?", "assistant": "Yes, at {{company}}."}],
    "labels": ["production"],
}
CHOICE = {"name": "support", "variables": {"company": "Acme"}}


async def made(server: Running, **fields: Any) -> None:
    response = await server.client.post("/prompts", json={**PROMPT, **fields})
    assert response.status_code == 201, response.text


def sent(call: Any) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in call.json["messages"]]


async def test_the_model_is_sent_the_prompt_and_the_history_says_which(
    with_provider: Running, provider: ProviderServer
) -> None:
    await made(with_provider)
    provider.script(answer("A1."), answer("A2."))
    first = await with_provider.events(ask("Q1?", prompt=CHOICE))
    session_id = first[0]["session_id"]
    await with_provider.events(ask("Q2?", prompt=CHOICE, session_id=session_id))
    opening = [("system", "You answer for Acme."), ("user", "Open?"), ("assistant", "Yes, at Acme.")]
    assert sent(provider.calls[0]) == [*opening, ("user", "Customer: Q1?")]
    assert sent(provider.calls[1]) == [*opening, ("user", "Q1?"), ("assistant", "A1."), ("user", "Customer: Q2?")]
    stored = await messages(with_provider, session_id)
    assert [said(m) for m in stored] == ["Q1?", "A1.", "Q2?", "A2."]
    told = {"name": "support", "version": 1, "variables": {"company": "Acme"}}
    assert [m.get("prompt") for m in stored] == [None, told, None, told]


async def test_another_version_answers_once_the_label_points_to_it(
    with_provider: Running, provider: ProviderServer
) -> None:
    await made(with_provider)
    second = {"system": "Second.", "labels": ["production"]}
    await with_provider.client.post("/prompts/support/versions", json=second)
    events = await with_provider.events(ask(prompt={"name": "support"}))
    await with_provider.events(ask(prompt={**CHOICE, "version": 1}))
    assert [sent(c)[0][1] for c in provider.calls] == ["Second.", "You answer for Acme."]
    assert (await messages(with_provider, events[0]["session_id"]))[1]["prompt"]["version"] == 2


async def test_missing_and_unknown_variables_are_named_and_nothing_is_sent(
    with_provider: Running, provider: ProviderServer
) -> None:
    await made(with_provider)
    body = ask(prompt={"name": "support", "variables": {"compny": "Acme"}})
    found = problem(await with_provider.client.post("/chat", json=body), 422, "invalid_request")
    assert {e["field"] for e in found["errors"]} == {"prompt.variables.company", "prompt.variables.compny"}
    problem(await with_provider.client.post("/chat", json=ask(prompt={"name": "nosuch"})), 404, "not_found")
    assert provider.calls == []
    assert rows(with_provider, "SELECT count(*) FROM messages") == [(0,)]


async def test_the_request_wins_over_the_session_and_the_session_over_the_prompt(
    with_provider: Running, provider: ProviderServer
) -> None:
    await made(with_provider, model="openai/of-prompt", parameters={"temperature": 0.25, "max_tokens": 77})
    session_id = (await with_provider.events(ask()))[0]["session_id"]
    path = f"/sessions/{session_id}"

    async def asked(**fields: Any) -> dict[str, Any]:
        events = await with_provider.events(ask(session_id=session_id, **fields))
        assert only_terminal(events)["type"] == "run.completed"
        return provider.calls[-1].json

    of_prompt = await asked(prompt=CHOICE)
    assert (of_prompt["model"], of_prompt["temperature"]) == ("of-prompt", 0.25)
    assert 77 in (of_prompt.get("max_tokens"), of_prompt.get("max_completion_tokens"))
    assert (await asked(prompt=CHOICE, temperature=0.5))["temperature"] == 0.5
    await with_provider.client.patch(path, json={"model": "openai/of-session", "prompt": CHOICE})
    of_session = await asked()
    assert of_session["model"] == "of-session"
    assert of_session["messages"][0]["content"] == "You answer for Acme."
    of_request = await asked(model="openai/of-request", system_prompt="Mine.")
    assert of_request["model"] == "of-request"
    assert of_request["messages"][0]["content"] == "Mine."
    assert of_request["messages"][-1]["content"] == "Say something.", "the session's template is not used"
    await with_provider.client.patch(path, json={"system_prompt": "The session's."})
    both = await asked()
    assert (both["messages"][0]["content"], both["messages"][1]["content"]) == ("The session's.", "Open?")
    shown = (await with_provider.client.patch(path, json={"model": None, "prompt": None, "system_prompt": None})).json()
    assert (shown["model"], shown["prompt"], shown["system_prompt"]) == (None, None, None)
    assert (await asked())["model"] == "test-model"


async def test_a_session_takes_no_model_and_no_prompt_that_is_not_there(with_provider: Running) -> None:
    path = f"/sessions/{(await with_provider.events(ask()))[0]['session_id']}"
    before = (await with_provider.client.get(path)).json()
    problem(await with_provider.client.patch(path, json={"model": "nosuch/model"}), 422, "unknown_model")
    problem(await with_provider.client.patch(path, json={"prompt": {"name": "nosuch"}}), 404, "not_found")
    await made(with_provider)
    problem(await with_provider.client.patch(path, json={"prompt": {"name": "support"}}), 422, "invalid_request")
    assert (await with_provider.client.get(path)).json() == before


async def test_the_template_stands_around_the_question_and_below_the_passages(
    with_provider: Running, provider: ProviderServer
) -> None:
    await made(with_provider)
    await with_provider.upload("terms.md", b"# Terms\n\nThe notice period is 45 days.")
    await with_provider.events({"message": "How long is the notice period?", "prompt": CHOICE})
    (call,) = provider.calls
    content = sent(call)[-1][1]
    assert "The notice period is 45 days." in content
    assert content.endswith("\n\nCustomer: How long is the notice period?")
    assert sent(call)[0][1].startswith("You answer for Acme.\n\n")
