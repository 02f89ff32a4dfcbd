"""Anthropic's Claude, through langchain-anthropic."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import SecretStr

from backend.chains.models._finishes import reason_in
from backend.chains.models._frames import fields_in, objects_in, text_in
from backend.chains.models._langchain import LangChainProvider, listed
from backend.chains.models._usage import counts_in
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
    uses_httpx2 = True

    def make(self, model: str) -> Any:
        import anthropic

        chat = _chat_class()(
            model_name=model,
            api_key=SecretStr(self.endpoint.key_text),
            base_url=self.endpoint.base_url,
            timeout=self.longest,
            stop=None,
            max_retries=0,
        )
        # LangChain's own client has one deadline for everything, and connections that don't know our network.
        client = anthropic.AsyncAnthropic(
            api_key=self.endpoint.key_text,
            base_url=self.endpoint.base_url,
            max_retries=0,
            http_client=self.http(_mended),
        )
        vars(chat)["_async_client"] = client
        return chat

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
        endpoint = self.endpoint
        headers = endpoint.request_headers({"x-api-key": endpoint.key_text, "anthropic-version": _VERSION})
        listing = await listed(endpoint.network, f"{endpoint.root}/v1/models", headers, {"limit": "1000"})
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


def _mended(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """An event of the stream as the SDK expects it, or the events of a whole message."""
    kind = text_in(body, "type") or name or ("error" if body.get("error") else "")
    match kind:
        case "message":
            return _events_of(body)
        case "message_start":
            message = fields_in(body, "message")
            return [{**body, "message": {**message, "usage": _usage_in(message)}}]
        case "content_block_start":
            return [{"index": 0, **body}] if fields_in(body, "content_block") else []
        case "content_block_delta":
            delta = fields_in(body, "delta")
            texts = {name: text_in(delta, name) for name in ("text", "thinking") if name in delta}
            return [{"index": 0, **body, "type": kind, "delta": {**delta, **texts}}] if "type" in delta else []
        case "message_delta":
            delta = {"stop_sequence": None, **fields_in(body, "delta")}
            delta["stop_reason"] = reason_in(delta.get("stop_reason"))
            return [{**body, "type": kind, "delta": delta, "usage": _usage_in(body)}]
        case "error":
            return [{**body, "type": kind}]
        case _:
            return []


def _events_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of an answer that came whole."""
    head: dict[str, Any] = {
        **message,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage_in(message),
    }
    events: list[dict[str, Any]] = [{"type": "message_start", "message": head}]
    for index, block in enumerate(objects_in(message, "content")):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
    delta = {"stop_reason": reason_in(message.get("stop_reason")), "stop_sequence": None}
    return [*events, {"type": "message_delta", "delta": delta, "usage": _usage_in(message)}]


def _usage_in(body: dict[str, Any]) -> dict[str, Any]:
    return {"input_tokens": 0, "output_tokens": 0, **counts_in(body.get("usage"))}


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
