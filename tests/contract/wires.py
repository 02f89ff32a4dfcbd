"""The wires that providers speak, each as the same set of scripts, so that a test plays on every one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.provider_server import ProviderServer
from tests.provider_wire import (
    Send,
    Status,
    Step,
    answer,
    chunk,
    error,
    error_in_stream,
    malformed,
    model_not_found,
    ollama_answer,
    ollama_line,
    ollama_model_not_found,
)

KEY = "sk-test-0123456789abcdef"
RAW = "RAW-PROVIDER-TEXT"
"""Stands in every error that a scripted provider sends; it must never be seen outside."""


@dataclass(frozen=True)
class OpenAIWire:
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

    def sent(self, call: Any) -> list[tuple[str, str]]:
        """Role and text of each message that the provider was sent."""
        return [(m["role"], m["content"]) for m in call.json["messages"]]


@dataclass(frozen=True)
class OllamaWire:
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

    def sent(self, call: Any) -> list[tuple[str, str]]:
        return [(m["role"], m["content"]) for m in call.json["messages"]]


Wire = OpenAIWire | OllamaWire
WIRES: Sequence[Wire] = (OpenAIWire(), OllamaWire())
