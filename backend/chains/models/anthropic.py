"""Anthropic's Claude, through langchain-anthropic."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import SecretStr

from backend.chains.models._langchain import LangChainProvider, listed
from backend.chains.models.capabilities import profile_of
from backend.chains.models.prompt import Effort, Parameters
from backend.chains.models.provider import EXTRA, Kind, Plugin

_VERSION = "2023-06-01"
_LEAST = 1024
"""Tokens of thinking that the API takes."""
_BUDGETS: dict[Effort, int] = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384}
"""Tokens to think in, for models that know no effort."""


class _Provider(LangChainProvider):
    default = "claude-sonnet-5"

    def make(self, model: str) -> Any:
        import anthropic

        chat = _chat_class()(
            model_name=model,
            api_key=SecretStr(self.key),
            base_url=self.endpoint.base_url,
            timeout=self.longest,
            stop=None,
            max_retries=0,
        )
        # LangChain's own client has one deadline for everything, and shares its connections with those of others.
        client = anthropic.AsyncAnthropic(
            api_key=self.key,
            base_url=self.endpoint.base_url,
            timeout=anthropic.Timeout(self.longest, connect=self.settings.connect_timeout),
            max_retries=0,
            default_headers=dict(self.endpoint.headers),
        )
        vars(chat)["_async_client"] = client
        return chat

    async def release(self, opened: Any) -> None:
        await opened._async_client.close()

    def fields(self, model: str, parameters: Parameters) -> dict[str, Any]:
        fields = parameters.named(max_tokens="max_tokens", temperature="temperature", top_p="top_p", stop="stop")
        output: dict[str, Any] = {}
        if parameters.response_schema is not None:
            output["format"] = {"type": "json_schema", "schema": json.loads(parameters.response_schema)}
        if (effort := parameters.reasoning_effort) is not None:
            profile = profile_of(self.endpoint.kind, model)
            if profile and "xhigh" not in profile.get("reasoning_effort_levels", ()):
                # Thinking counts as output, which stays within its limit: half of it, where that is enough to think.
                budget = max(_LEAST, min(_BUDGETS[effort], parameters.max_tokens // 2))
                if budget < parameters.max_tokens:
                    fields["thinking"] = {"type": "enabled", "budget_tokens": budget}
            else:
                fields["thinking"] = {"type": "adaptive", "display": "summarized"}
                output["effort"] = "low" if effort == "minimal" else effort
        return {**fields, "output_config": output} if output else fields

    async def rows(self) -> dict[str, Mapping[str, Any]]:
        headers = {"x-api-key": self.key, "anthropic-version": _VERSION, **self.endpoint.headers}
        listing = await listed(f"{self.endpoint.root}/v1/models", headers, {"limit": "1000"})
        return {str(row["id"]): row for row in listing["data"]}


@cache
def _chat_class() -> Any:
    from langchain_anthropic import ChatAnthropic

    class Chat(ChatAnthropic):
        """Also tells the prompt's tokens that a stream begins with: llama.cpp's ends without them."""

        def _make_message_chunk_from_anthropic_event(self, event: Any, **options: Any) -> Any:
            chunk, block = super()._make_message_chunk_from_anthropic_event(event, **options)
            if event.type == "message_start" and chunk is not None:
                usage = event.message.usage
                parts = (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
                chunk.response_metadata["prompt_tokens"] = sum(part or 0 for part in parts)
            return chunk, block

    return Chat


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
            hides_reasoning="if_asked",
            default_rank=12,
        ),
    ),
    create=_Provider,
    needs=("langchain_anthropic",),
    install=EXTRA,
)
