"""The protocols that providers speak, each as the same set of scripts, so that a test plays on every one of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.scenarios.support import ask, messages, only_terminal, ordered, said
from tests.support.harness import Running, text_of
from tests.support.provider_protocol import (
    Send,
    Status,
    Step,
    answer,
    chunk,
    context_overflow,
    error,
    error_in_stream,
    malformed,
    model_not_found,
    ollama_answer,
    ollama_line,
    ollama_model_not_found,
)
from tests.support.provider_server import Call, ProviderServer
from tests.support.provider_vendors import (
    anthropic_answer,
    anthropic_begun,
    anthropic_error,
    anthropic_event,
    cohere_answer,
    cohere_begun,
    cohere_error,
    cohere_event,
    google_answer,
    google_blocked,
    google_chunk,
    google_error,
    google_frame,
)

KEY = "sk-test-0123456789abcdef"
RAW = "RAW-PROVIDER-TEXT"
"""Stands in every error that a scripted provider sends; it must never be seen outside."""


def _bytes(*steps: Step) -> bytes:
    return b"".join(step.data for step in steps if isinstance(step, Send))


async def failed(
    server: Running, provider: ProviderServer, script: list[Step], code: str, *, retryable: bool, kept: str = ""
) -> None:
    """One POST with that script fails so, and keeps `kept`."""
    provider.script(script)
    events = await server.events(ask())
    ordered(events)
    end = only_terminal(events)
    assert end["type"] == "run.failed"
    fault = end["error"]
    assert (fault["code"], fault["retryable"]) == (code, retryable)
    assert fault["request_id"]
    assert fault["message"]
    assert text_of(events) == kept
    stored = await messages(server, events[0]["session_id"])
    assert [(m["role"], m["status"], said(m)) for m in stored] == [
        ("user", "complete", "Say something."),
        ("assistant", "partial" if kept else "failed", kept),
    ]
    run = (await server.client.get(f"/runs/{events[0]['run_id']}")).json()
    assert (run["status"], run["error"]) == ("failed", fault)
    told = json.dumps(events) + json.dumps(stored) + json.dumps(run)
    assert RAW not in told
    assert KEY not in told


@dataclass(frozen=True)
class OpenAIProtocol:
    name: str = "openai"
    model: str = "openai/test-model"

    def settings(self, provider: ProviderServer) -> dict[str, Any]:
        return {"openai_api_key": KEY, "openai_base_url": provider.base_url, "llm_model": self.model}

    def begun(self, text: str) -> list[Step]:
        """The answer's beginning; more steps may follow."""
        return [chunk({"role": "assistant", "content": ""}), chunk({"content": text})]

    def whole(self, text: str, finish: str = "stop") -> list[Step]:
        return answer(text, finish=finish)

    def unfinished(self, text: str) -> list[Step]:
        """An answer that ends in order, but without a finish reason."""
        return answer(text, finish=None, usage=False)

    def refused(self, status: int) -> list[Step]:
        return [error(status, f"{RAW} {KEY}", "some_error", None)]

    def no_such_model(self) -> list[Step]:
        return model_not_found()

    def malformed(self) -> list[Step]:
        return [malformed()]

    def error_inside(self) -> list[Step]:
        return [error_in_stream(f"{RAW} {KEY}")]

    def overflow(self) -> list[Step]:
        """The prompt is longer than the model's context."""
        return context_overflow()

    def filtered(self, text: str) -> list[Step]:
        """The content filter ends the answer."""
        return answer(text, finish="content_filter")

    def blocked(self) -> list[Step]:
        """The content filter doesn't let the prompt in."""
        return [error(400, RAW, "invalid_request_error", "content_filter")]

    def thinking(self, thought: str, text: str) -> list[Step]:
        return [chunk({"role": "assistant", "reasoning_content": thought}), *answer(text)]

    def sent(self, call: Call) -> list[tuple[str, str]]:
        """Role and text of each message that the provider was sent."""
        return [(m["role"], m["content"]) for m in call.json["messages"]]

    def asked(self, call: Call) -> dict[str, Any]:
        """Model, temperature and limit that the provider was sent."""
        body = call.json
        return {"model": body["model"], "temperature": body["temperature"], "limit": body["max_tokens"]}


@dataclass(frozen=True)
class OllamaProtocol:
    name: str = "ollama"
    model: str = "ollama/test-model"

    def settings(self, provider: ProviderServer) -> dict[str, Any]:
        return {"ollama_base_url": provider.root_url, "llm_model": self.model}

    def begun(self, text: str) -> list[Step]:
        return [Status(200, {"Content-Type": "application/x-ndjson"}), ollama_line(text)]

    def whole(self, text: str, finish: str = "stop") -> list[Step]:
        return ollama_answer(text, finish=finish)

    def unfinished(self, text: str) -> list[Step]:
        return self.begun(text)

    def refused(self, status: int) -> list[Step]:
        body = b'{"error":"%b %b"}' % (RAW.encode(), KEY.encode())
        return [Status(status, {"Content-Type": "application/json"}, body)]

    def no_such_model(self) -> list[Step]:
        return ollama_model_not_found()

    def malformed(self) -> list[Step]:
        return [Send(b'{"model":"test-model","message":{"role":\n')]

    def error_inside(self) -> list[Step]:
        return [Send(b'{"error":"%b"}\n' % RAW.encode())]

    def thinking(self, thought: str, text: str) -> list[Step]:
        head = Status(200, {"Content-Type": "application/x-ndjson"})
        message = {"role": "assistant", "content": "", "thinking": thought}
        return [head, ollama_line("", message=message), *ollama_answer(text)[1:]]

    def sent(self, call: Call) -> list[tuple[str, str]]:
        return [(m["role"], m["content"]) for m in call.json["messages"]]

    def asked(self, call: Call) -> dict[str, Any]:
        options = call.json["options"]
        limit, temperature = options["num_predict"], options["temperature"]
        return {"model": call.json["model"], "temperature": temperature, "limit": limit}


@dataclass(frozen=True)
class AnthropicProtocol:
    name: str = "anthropic"
    model: str = "anthropic/test-model"

    def settings(self, provider: ProviderServer) -> dict[str, Any]:
        return {"anthropic_api_key": KEY, "anthropic_base_url": provider.root_url, "llm_model": self.model}

    def begun(self, text: str) -> list[Step]:
        start, _, opened, *deltas = anthropic_begun(("text", text))
        # Two steps, as the other protocols have: the head, and the text.
        return [Send(_bytes(start, opened)), Send(_bytes(*deltas))]

    def whole(self, text: str, finish: str = "stop") -> list[Step]:
        return anthropic_answer(text, finish={"stop": "end_turn", "length": "max_tokens"}[finish])

    def unfinished(self, text: str) -> list[Step]:
        return [*anthropic_begun(("text", text)), anthropic_event("message_stop")]

    def refused(self, status: int) -> list[Step]:
        return anthropic_error(status, f"{RAW} {KEY}", "some_error")

    def no_such_model(self) -> list[Step]:
        return anthropic_error(404, "model: no-such-model", "not_found_error")

    def malformed(self) -> list[Step]:
        return [Send(b'event: content_block_delta\ndata: {"type": "content_block_delta", "index"\n\n')]

    def error_inside(self) -> list[Step]:
        return [anthropic_event("error", error={"type": "api_error", "message": f"{RAW} {KEY}"})]

    def overflow(self) -> list[Step]:
        return anthropic_error(400, "prompt is too long: 211111 tokens > 200000 maximum", "invalid_request_error")

    def filtered(self, text: str) -> list[Step]:
        return anthropic_answer(text, finish="refusal")

    def blocked(self) -> list[Step]:
        return anthropic_error(400, "Output blocked by content filtering policy", "invalid_request_error")

    def thinking(self, thought: str, text: str) -> list[Step]:
        return anthropic_answer(text, thinking=thought)

    def sent(self, call: Call) -> list[tuple[str, str]]:
        head = [("system", call.json["system"])] if "system" in call.json else []
        return [*head, *((m["role"], m["content"]) for m in call.json["messages"])]

    def asked(self, call: Call) -> dict[str, Any]:
        body = call.json
        return {"model": body["model"], "temperature": body["temperature"], "limit": body["max_tokens"]}


@dataclass(frozen=True)
class GoogleProtocol:
    name: str = "google"
    model: str = "google/test-model"

    def settings(self, provider: ProviderServer) -> dict[str, Any]:
        return {"google_api_key": KEY, "google_base_url": provider.root_url, "llm_model": self.model}

    def begun(self, text: str) -> list[Step]:
        return [google_chunk({"text": ""}), google_chunk({"text": text})]

    def whole(self, text: str, finish: str = "stop") -> list[Step]:
        return google_answer(text, finish={"stop": "STOP", "length": "MAX_TOKENS"}[finish])

    def unfinished(self, text: str) -> list[Step]:
        return self.begun(text)

    def refused(self, status: int) -> list[Step]:
        return google_error(status, f"{RAW} {KEY}", "SOME_ERROR")

    def no_such_model(self) -> list[Step]:
        return google_error(404, "models/no-such-model is not found for API version v1beta", "NOT_FOUND")

    def malformed(self) -> list[Step]:
        return [Send(b'data: {"candidates": [{"content"\r\n\r\n')]

    def error_inside(self) -> list[Step]:
        return [google_frame({"error": {"code": 500, "message": f"{RAW} {KEY}", "status": "INTERNAL"}})]

    def overflow(self) -> list[Step]:
        said = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
        return google_error(400, said, "INVALID_ARGUMENT")

    def filtered(self, text: str) -> list[Step]:
        return google_answer(text, finish="SAFETY")

    def blocked(self) -> list[Step]:
        return google_blocked()

    def thinking(self, thought: str, text: str) -> list[Step]:
        return google_answer(text, thinking=thought)

    def sent(self, call: Call) -> list[tuple[str, str]]:
        said = call.json.get("systemInstruction")
        head = [("system", said["parts"][0]["text"])] if said else []
        return [*head, *((m["role"], m["parts"][0]["text"]) for m in call.json["contents"])]

    def asked(self, call: Call) -> dict[str, Any]:
        config = call.json["generationConfig"]
        model = call.path.removeprefix("/v1beta/models/").removesuffix(":streamGenerateContent")
        return {"model": model, "temperature": config["temperature"], "limit": config["maxOutputTokens"]}


@dataclass(frozen=True)
class CohereProtocol:
    name: str = "cohere"
    model: str = "cohere/test-model"

    def settings(self, provider: ProviderServer) -> dict[str, Any]:
        return {"cohere_api_key": KEY, "cohere_base_url": provider.root_url, "llm_model": self.model}

    def begun(self, text: str) -> list[Step]:
        start, opened, *deltas = cohere_begun(text)
        return [Send(_bytes(start, opened)), Send(_bytes(*deltas))]

    def whole(self, text: str, finish: str = "stop") -> list[Step]:
        return cohere_answer(text, finish={"stop": "COMPLETE", "length": "MAX_TOKENS"}[finish])

    def unfinished(self, text: str) -> list[Step]:
        return cohere_begun(text)

    def refused(self, status: int) -> list[Step]:
        return cohere_error(status, f"{RAW} {KEY}")

    def no_such_model(self) -> list[Step]:
        return cohere_error(404, "model 'no-such-model' not found, make sure the correct model ID was used")

    def malformed(self) -> list[Step]:
        return [Send(b'event: content-delta\ndata: {"type": "content-delta", "delta"\n\n')]

    def error_inside(self) -> list[Step]:
        counts = {"input_tokens": 7, "output_tokens": 0}
        delta = {"finish_reason": "ERROR", "error": f"{RAW} {KEY}", "usage": {"billed_units": counts, "tokens": counts}}
        return [cohere_event("message-end", id="test", delta=delta)]

    def overflow(self) -> list[Step]:
        return cohere_error(400, "too many tokens: size limit exceeded by 2000 tokens. Try using shorter inputs.")

    def filtered(self, text: str) -> list[Step]:
        return cohere_answer(text, finish="ERROR_TOXIC")

    def thinking(self, thought: str, text: str) -> list[Step]:
        return cohere_answer(text, thinking=thought)

    def sent(self, call: Call) -> list[tuple[str, str]]:
        return [(m["role"], m["content"]) for m in call.json["messages"]]

    def asked(self, call: Call) -> dict[str, Any]:
        body = call.json
        return {"model": body["model"], "temperature": body["temperature"], "limit": body["max_tokens"]}


ProviderProtocol = OpenAIProtocol | OllamaProtocol | AnthropicProtocol | GoogleProtocol | CohereProtocol
PROTOCOLS: Sequence[ProviderProtocol] = (
    OpenAIProtocol(),
    OllamaProtocol(),
    AnthropicProtocol(),
    GoogleProtocol(),
    CohereProtocol(),
)
