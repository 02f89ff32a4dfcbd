"""Cohere's Command, through langchain-cohere."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from backend.chains.models._langchain import LangChainProvider, listed
from backend.chains.models.prompt import Parameters
from backend.chains.models.provider import EXTRA, Kind, Plugin


class _Provider(LangChainProvider):
    default = "command-a-03-2025"

    def make(self, model: str) -> Any:
        import cohere
        from langchain_cohere import ChatCohere

        chat = ChatCohere(model=model, cohere_api_key=SecretStr(self.key), base_url=self.endpoint.base_url)
        chat.async_client = cohere.AsyncClient(
            api_key=self.key, base_url=self.endpoint.base_url, timeout=self.longest, httpx_client=self.http()
        )
        return chat

    def fields(self, model: str, parameters: Parameters) -> dict[str, Any]:
        asked = parameters.named(
            max_tokens="max_tokens", temperature="temperature", top_p="p", seed="seed", stop="stop"
        )
        fields: dict[str, Any] = {**asked, "request_options": {"max_retries": 0}}
        if parameters.response_schema is not None:
            fields["response_format"] = {"type": "json_object", "schema": json.loads(parameters.response_schema)}
        return fields

    async def rows(self) -> dict[str, Mapping[str, Any]]:
        headers = {"Authorization": f"Bearer {self.key}", **self.endpoint.headers}
        found = await listed(f"{self.endpoint.root}/v1/models", headers, {"endpoint": "chat", "page_size": "1000"})
        return {str(row["name"]): row for row in found["models"]}


PLUGIN = Plugin(
    name="cohere",
    kinds=(
        Kind(
            name="cohere",
            summary="Cohere's Command",
            base_url="https://api.cohere.com",
            refuses=frozenset({"reasoning_effort"}),
            prices="cohere",
            default_rank=16,
        ),
    ),
    create=_Provider,
    needs=("langchain_cohere",),
    install=EXTRA,
)
