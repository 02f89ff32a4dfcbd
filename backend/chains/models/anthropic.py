"""Anthropic's Claude, through langchain-anthropic."""

import json
from typing import Any

from pydantic import SecretStr

from backend.chains.models._langchain import LangChainProvider, listed
from backend.chains.models.base import Kind, Parameters, Plugin

_EFFORTS = {"minimal": "low"}
_VERSION = "2023-06-01"


class _Provider(LangChainProvider):
    default = "claude-sonnet-5"

    def make(self, model: str, parameters: Parameters) -> Any:
        from langchain_anthropic import ChatAnthropic

        effort = parameters.reasoning_effort
        options: dict[str, Any] = {}
        if parameters.response_schema is not None:
            schema = json.loads(parameters.response_schema)
            options["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        if effort is not None:
            options["reasoning_effort"] = _EFFORTS.get(effort, effort)
        return ChatAnthropic(
            model_name=model,
            api_key=SecretStr(self.key),
            base_url=self.endpoint.base_url,
            max_tokens_to_sample=parameters.max_tokens,
            temperature=parameters.temperature,
            top_p=parameters.top_p,
            stop=list(parameters.stop) or None,
            timeout=self.longest,
            max_retries=0,
            default_headers=dict(self.endpoint.headers) or None,
            **options,
        )

    async def names(self) -> list[str]:
        headers = {"x-api-key": self.key, "anthropic-version": _VERSION, **self.endpoint.headers}
        found = await listed(f"{self.endpoint.root}/v1/models", headers, {"limit": "1000"})
        return [str(row["id"]) for row in found["data"]]


PLUGIN = Plugin(
    name="anthropic",
    kinds=(
        Kind(
            name="anthropic",
            summary="Anthropic's Claude",
            base_url="https://api.anthropic.com",
            refuses=frozenset({"seed"}),
            profiles="langchain_anthropic",
            prices="anthropic",
            default_rank=12,
        ),
    ),
    create=_Provider,
    needs=("langchain_anthropic",),
    install="pip install langchain-anthropic",
)
