"""Cohere's Command, through langchain-cohere."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from backend.chains.models._finishes import reason_in
from backend.chains.models._frames import fields_in, objects_in, text_in
from backend.chains.models._langchain import LangChainProvider, listed
from backend.chains.models._usage import counts_in
from backend.chains.models.prompt import Parameters
from backend.chains.models.provider import EXTRA, Kind, Plugin


class _Provider(LangChainProvider):
    default = "command-a-03-2025"

    def make(self, model: str) -> Any:
        import cohere
        from langchain_cohere import ChatCohere

        key, url = self.endpoint.key_text, self.endpoint.base_url
        chat = ChatCohere(model=model, cohere_api_key=SecretStr(key), base_url=url)
        chat.async_client = cohere.AsyncClient(
            api_key=key, base_url=url, timeout=self.longest, httpx_client=self.http(_mended)
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
        endpoint = self.endpoint
        headers = endpoint.request_headers({"Authorization": f"Bearer {endpoint.key_text}"})
        wanted = {"endpoint": "chat", "page_size": "1000"}
        found = await listed(endpoint.network, f"{endpoint.root}/v1/models", headers, wanted)
        return {str(row["name"]): row for row in found["models"]}


def _mended(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """An event of the stream as the SDK expects it, or the events of a whole answer."""
    kind = text_in(body, "type") or name
    match kind:
        case "message-end":
            delta = fields_in(body, "delta")
            return [{"type": kind, "id": "", "delta": _end_of(delta)}]
        case "content-delta":
            content = fields_in(fields_in(fields_in(body, "delta"), "message"), "content")
            texts = {name: content[name] for name in ("text", "thinking") if isinstance(content.get(name), str)}
            return [{"type": kind, "index": 0, "delta": {"message": {"content": texts}}}] if texts else []
        case "":
            return _events_of(body)
        case _:
            return [{**body, "type": kind}]


def _events_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of an answer that came whole."""
    message = fields_in(answer, "message")
    if not message:
        return [answer]
    content = message.get("content")
    blocks = [{"text": content}] if isinstance(content, str) else objects_in(message, "content")
    deltas = [{"type": "content-delta", "index": 0, "delta": {"message": {"content": block}}} for block in blocks]
    return [*deltas, {"type": "message-end", "id": "", "delta": _end_of(answer)}]


def _end_of(delta: dict[str, Any]) -> dict[str, Any]:
    """The end of an answer with the tokens that Cohere bills; those that it counted, if it doesn't say."""
    counts = counts_in(delta.get("usage"))
    billed, counted = fields_in(counts, "billed_units"), fields_in(counts, "tokens")
    units = {name: billed.get(name) or counted.get(name) or 0 for name in ("input_tokens", "output_tokens")}
    return {"finish_reason": reason_in(delta.get("finish_reason")), "usage": {"billed_units": units}}


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
