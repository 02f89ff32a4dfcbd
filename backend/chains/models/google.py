"""Google's Gemini, through langchain-google-genai."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from backend.chains.models._finishes import reason_in
from backend.chains.models._frames import fields_in, objects_in, text_in
from backend.chains.models._langchain import LangChainProvider, listed
from backend.chains.models._usage import count_in, counts_in
from backend.chains.models.prompt import Effort, Parameters
from backend.chains.models.provider import EXTRA, Kind, Plugin

_VERSION = "v1beta"
_BUDGETS: dict[Effort, int] = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}
"""Tokens to think in, for models before Gemini 3, which know no levels: as Google's OpenAI API has them."""


class _Provider(LangChainProvider):
    default = "gemini-flash-latest"

    def make(self, model: str) -> Any:
        from google.genai import Client
        from google.genai.types import HttpOptions
        from langchain_google_genai import ChatGoogleGenerativeAI

        # One try: with 0 the SDK takes its own default.
        chat = ChatGoogleGenerativeAI(
            model=model, api_key=SecretStr(self.endpoint.key_text), temperature=None, max_retries=1
        )
        # By itself it would use aiohttp with one deadline for the whole answer.
        options = HttpOptions(base_url=self.endpoint.root, api_version=_VERSION, httpx_async_client=self.http(_mended))
        chat.client = Client(api_key=self.endpoint.key_text, vertexai=False, http_options=options)
        return chat

    async def release(self, opened: Any) -> None:
        await opened.aclose()

    def fields(self, model: str, parameters: Parameters) -> dict[str, Any]:
        fields = parameters.named(
            max_tokens="max_output_tokens", temperature="temperature", top_p="top_p", seed="seed", stop="stop"
        )
        if parameters.response_schema is not None:
            fields["response_mime_type"] = "application/json"
            fields["response_json_schema"] = json.loads(parameters.response_schema)
        if (effort := parameters.reasoning_effort) is not None:
            fields["include_thoughts"] = True
            if model.startswith(("gemini-1", "gemini-2")):
                fields["thinking_budget"] = _BUDGETS[effort]
            else:
                fields["thinking_level"] = effort
        return fields

    async def rows(self) -> dict[str, Mapping[str, Any]]:
        endpoint = self.endpoint
        headers = endpoint.request_headers({"x-goog-api-key": endpoint.key_text})
        listing = await listed(endpoint.network, f"{endpoint.root}/{_VERSION}/models", headers, {"pageSize": "1000"})
        return {
            str(row["name"]).removeprefix("models/"): row
            for row in listing["models"]
            if "generateContent" in row.get("supportedGenerationMethods", ("generateContent",))
        }


def _mended(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A chunk of the stream, or the whole answer, with what is needed of it: the SDK checks every field."""
    del name
    if body.get("error"):
        return [body]
    chunk: dict[str, Any] = {}
    candidates = objects_in(body, "candidates")
    if candidates:
        chosen = next((each for each in candidates if count_in(each.get("index")) == 0), candidates[0])
        chunk["candidates"] = [_candidate_of(chosen)]
    if usage := counts_in(body.get("usageMetadata") or body.get("usage_metadata")):
        chunk["usageMetadata"] = {name: value for name, value in usage.items() if isinstance(value, int)}
    feedback = fields_in(body, "promptFeedback") or fields_in(body, "prompt_feedback")
    if (blocked := reason_in(feedback.get("blockReason") or feedback.get("block_reason"))) is not None:
        chunk["promptFeedback"] = {"blockReason": blocked}
    if version := text_in(body, "modelVersion"):
        chunk["modelVersion"] = version
    return [chunk] if len(chunk) > ("modelVersion" in chunk) else []


def _candidate_of(candidate: dict[str, Any]) -> dict[str, Any]:
    parts = [_part_of(part) for part in objects_in(fields_in(candidate, "content"), "parts")]
    kept: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if (reason := reason_in(candidate.get("finishReason") or candidate.get("finish_reason"))) is not None:
        kept["finishReason"] = reason.upper()
    return kept


def _part_of(part: dict[str, Any]) -> dict[str, Any]:
    if "text" not in part:
        return part
    kept: dict[str, Any] = {"text": text_in(part, "text")}
    return {**kept, "thought": True} if part.get("thought") is True else kept


PLUGIN = Plugin(
    name="google",
    kinds=(
        Kind(
            name="google",
            summary="Google's Gemini",
            base_url="https://generativelanguage.googleapis.com",
            profiles="langchain_google_genai",
            prices="google",
            hides_reasoning="by_model",
            default_rank=14,
        ),
    ),
    create=_Provider,
    needs=("langchain_google_genai",),
    install=EXTRA,
)
