"""Google's Gemini, through langchain-google-genai."""

import json
from typing import Any

from pydantic import SecretStr

from backend.chains.models._langchain import LangChainProvider, listed
from backend.chains.models.base import Kind, Parameters, Plugin


class _Provider(LangChainProvider):
    default = "gemini-2.5-flash"

    def make(self, model: str, parameters: Parameters) -> Any:
        from langchain_google_genai import ChatGoogleGenerativeAI

        options: dict[str, Any] = {}
        if parameters.response_schema is not None:
            options["response_mime_type"] = "application/json"
            options["response_schema"] = json.loads(parameters.response_schema)
        if parameters.reasoning_effort is not None:
            options["reasoning_effort"] = parameters.reasoning_effort
        own = self.endpoint.base_url if self.endpoint.base_url != self.endpoint.kind.base_url else None
        return ChatGoogleGenerativeAI(
            model=model,
            api_key=SecretStr(self.key),
            base_url=own,
            max_tokens=parameters.max_tokens,
            temperature=parameters.temperature,
            top_p=parameters.top_p,
            seed=parameters.seed,
            stop=list(parameters.stop) or None,
            include_thoughts=True if parameters.reasoning_effort is not None else None,
            timeout=self.longest,
            # One try: with 0 the SDK takes its own default.
            max_retries=1,
            additional_headers=dict(self.endpoint.headers) or None,
            **options,
        )

    async def names(self) -> list[str]:
        base = str(self.endpoint.base_url).rstrip("/")
        found = await listed(
            f"{base}/v1beta/models", {"x-goog-api-key": self.key, **self.endpoint.headers}, {"pageSize": "1000"}
        )
        return [
            str(row["name"]).removeprefix("models/")
            for row in found["models"]
            if "generateContent" in row.get("supportedGenerationMethods", ("generateContent",))
        ]


PLUGIN = Plugin(
    name="google",
    kinds=(
        Kind(
            name="google",
            summary="Google's Gemini",
            base_url="https://generativelanguage.googleapis.com",
            profiles="langchain_google_genai",
            prices="google",
            default_rank=14,
        ),
    ),
    create=_Provider,
    needs=("langchain_google_genai",),
    install="pip install langchain-google-genai",
)
