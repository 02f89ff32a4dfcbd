"""Google's Gemini, through langchain-google-genai."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from backend.chains.models._langchain import LangChainProvider, listed
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
        chat = ChatGoogleGenerativeAI(model=model, api_key=SecretStr(self.key), temperature=None, max_retries=1)
        # By itself it would use aiohttp with one deadline for the whole answer.
        options = HttpOptions(base_url=self.endpoint.root, api_version=_VERSION, httpx_async_client=self.http())
        chat.client = Client(api_key=self.key, vertexai=False, http_options=options)
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
        headers = {"x-goog-api-key": self.key, **self.endpoint.headers}
        listing = await listed(f"{self.endpoint.root}/{_VERSION}/models", headers, {"pageSize": "1000"})
        return {
            str(row["name"]).removeprefix("models/"): row
            for row in listing["models"]
            if "generateContent" in row.get("supportedGenerationMethods", ("generateContent",))
        }


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
