"""Strict servers: what they refuse is asked differently, once, and that is remembered; quirks of MODELS_FILE."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import SharedServers
from tests.contract.protocols import KEY, PROTOCOLS, RAW, OpenAIProtocol, ProviderProtocol
from tests.scenarios.support import ask, only_terminal
from tests.support.harness import serving, text_of
from tests.support.provider_protocol import Script, Step, answer, chunk, done, error
from tests.support.provider_server import ProviderServer
from tests.support.provider_vendors import anthropic_error, cohere_error, google_error

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("used_protocols")]
every = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda w: w.name)
OPTIONS: dict[str, Any] = {"auto_title": False, "cooldown_seconds": 0}


def refusing(protocol: ProviderProtocol, message: str) -> list[Step]:
    """A 400 in the protocol's own form."""
    match protocol.name:
        case "anthropic":
            return anthropic_error(400, message, "invalid_request_error")
        case "google":
            return google_error(400, message, "INVALID_ARGUMENT")
        case "cohere":
            return cohere_error(400, message)
        case "ollama":
            body = json.dumps({"error": message}).encode()
            (step,) = protocol.refused(400)
            return [type(step)(400, {"Content-Type": "application/json"}, body)]  # type: ignore[call-arg,arg-type]
        case _:
            return [error(400, message, "invalid_request_error", None)]


def roles(sent: Sequence[tuple[str, str]]) -> list[str]:
    return [role.replace("model", "assistant") for role, _ in sent]


@every
@pytest.mark.parametrize("first", ["failed", "blank", "reasoning only"])
async def test_after_an_unanswered_message_roles_alternate(
    protocol: ProviderProtocol, first: str, provider: ProviderServer, shared: SharedServers
) -> None:
    server = await shared.with_settings(**OPTIONS, retry_seconds=0, **protocol.settings(provider))
    scripts: dict[str, list[Step]] = {
        "failed": protocol.refused(503),
        "blank": protocol.whole("\n\n"),
        "reasoning only": protocol.thinking("Hm.", ""),
    }
    provider.script(scripts[first])
    events = await server.events(ask("One?", system_prompt="Be brief."))
    follow_up = await server.events(ask("Two?", session_id=events[0]["session_id"], system_prompt="Be brief."))
    assert only_terminal(follow_up)["type"] == "run.completed"
    assert protocol.sent(provider.calls[-1]) == [("system", "Be brief."), ("user", "One?\n\nTwo?")]


@every
async def test_a_refused_parameter_is_left_out_and_that_is_remembered(
    protocol: ProviderProtocol, provider: ProviderServer, tmp_path: Path
) -> None:
    provider.script(refusing(protocol, "`temperature` is not supported by this model."))
    async with serving(tmp_path / "data", **OPTIONS, **protocol.settings(provider)) as server:
        assert only_terminal(await server.events(ask(temperature=0.5)))["type"] == "run.completed"
        assert only_terminal(await server.events(ask(temperature=0.5)))["type"] == "run.completed"
    assert ["temperature" in json.dumps(call.json) for call in provider.calls] == [True, False, False]


@every
async def test_a_system_prompt_that_is_refused_begins_the_first_message(
    protocol: ProviderProtocol, provider: ProviderServer, tmp_path: Path
) -> None:
    provider.script(refusing(protocol, "System role not supported"))
    async with serving(tmp_path / "data", **OPTIONS, **protocol.settings(provider)) as server:
        assert only_terminal(await server.events(ask("Hi.", system_prompt="Be brief.")))["type"] == "run.completed"
    assert protocol.sent(provider.calls[-1]) == [("user", "Be brief.\n\nHi.")]


@every
async def test_what_is_refused_again_is_not_asked_for_ever(
    protocol: ProviderProtocol, provider: ProviderServer, tmp_path: Path
) -> None:
    provider.script(*[refusing(protocol, "`temperature` is not supported by this model.")] * 9)
    async with serving(tmp_path / "data", **OPTIONS, **protocol.settings(provider)) as server:
        fault = only_terminal(await server.events(ask(temperature=0.5)))["error"]
    assert (fault["code"], fault["retryable"]) == ("provider_error", False)
    assert len(provider.calls) == 2


def strict(known: set[str]) -> Any:
    """A server that names the first field that it doesn't know."""

    def script(body: Any) -> Script:
        unknown = [name for name in body if name not in known]
        if unknown:
            found = [{"type": "extra_forbidden", "loc": ("body", unknown[0]), "msg": "Extra inputs are not permitted"}]
            return [error(400, str(found), "BadRequestError", None)]
        return answer("Here.")

    return script


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_a_strict_server_teaches_all_that_it_knows(limit: str, provider: ProviderServer, tmp_path: Path) -> None:
    script = strict({"model", "messages", "stream", limit})
    provider.script(*[script] * 6)
    async with serving(tmp_path / "data", **OPTIONS, **OpenAIProtocol().settings(provider)) as server:
        assert text_of(await server.events(ask(max_tokens=5, seed=1))) == "Here."
        count = len(provider.calls)
        assert text_of(await server.events(ask(max_tokens=5, seed=1))) == "Here."
    assert len(provider.calls) == count + 1
    assert provider.calls[-1].json[limit] == 5


async def test_a_stop_that_is_refused_is_kept_all_the_same(provider: ProviderServer, tmp_path: Path) -> None:
    provider.script([error(400, "Unsupported parameter: 'stop'", "x", None)], answer("One. END Two.", chunk_by=3))
    async with serving(tmp_path / "data", **OPTIONS, **OpenAIProtocol().settings(provider)) as server:
        events = await server.events(ask(stop=["END"]))
    assert (text_of(events), only_terminal(events)["finish_reason"]) == ("One. ", "stop")
    assert "stop" not in provider.calls[-1].json


async def test_a_schema_is_not_dropped(provider: ProviderServer, shared: SharedServers) -> None:
    """Without it, the answer would be another one than was asked for."""
    server = await shared.with_settings(**OPTIONS, **OpenAIProtocol().settings(provider))
    provider.script([error(400, f"This response_format type is unavailable now {RAW}", "x", None)])
    fault = only_terminal(await server.events(ask(response_schema={"type": "object"})))["error"]
    assert "response_schema" in fault["message"]
    assert len(provider.calls) == 1


class TestModelsFile:
    """Quirks that are known beforehand."""

    async def sent(self, provider: ProviderServer, tmp_path: Path, quirks: str, **more: Any) -> tuple[Any, Any]:
        """The request, and the last event."""
        file = tmp_path / "models.yaml"
        provider_spec = f"work: {{kind: openai, base_url: '{provider.base_url}', quirks: {{limit: both}}, models: "
        file.write_text(f"providers:\n  {provider_spec}{{big: {{quirks: {quirks}}}}}}}\n")
        settings = {**OPTIONS, "models_file": file, "llm_model": "work/big", "work_api_key": KEY}
        async with serving(tmp_path / "data", **settings) as server:
            end = only_terminal(await server.events(ask(max_tokens=5, **more)))
        return provider.calls[-1].json, end

    async def test_they_are_those_of_the_provider_and_of_the_model(
        self, provider: ProviderServer, tmp_path: Path
    ) -> None:
        quirks = "{stream_options: false, system_role: developer, omit: [seed], temperature: 1, effort: reasoning}"
        options = {"seed": 3, "temperature": 0.3, "system_prompt": "Be brief.", "reasoning_effort": "low"}
        body, _ = await self.sent(provider, tmp_path, quirks, **options)
        assert (body["max_tokens"], body["max_completion_tokens"], body["temperature"]) == (5, 5, 1.0)
        assert body.keys().isdisjoint({"stream_options", "seed"})
        assert body["messages"][0] == {"role": "developer", "content": "Be brief."}
        assert body["reasoning"] == {"effort": "low"}

    async def test_no_limit_at_all(self, provider: ProviderServer, tmp_path: Path) -> None:
        body, _ = await self.sent(provider, tmp_path, "{limit: none}")
        assert body.keys().isdisjoint({"max_tokens", "max_completion_tokens"})

    @pytest.mark.parametrize(
        ("meaning", "end"), [("length", "run.completed"), ("content_filter", "run.failed"), ("error", "run.failed")]
    )
    async def test_a_finish_reason_of_its_own(
        self, provider: ProviderServer, tmp_path: Path, meaning: str, end: str
    ) -> None:
        provider.script([chunk({"content": "Hm"}), chunk({}, "weird_end"), done()])
        _, last = await self.sent(provider, tmp_path, f"{{finish_reasons: {{weird_end: {meaning}}}}}")
        assert last["type"] == end
        assert meaning in (last.get("finish_reason"), last.get("error", {}).get("code"), "error")
