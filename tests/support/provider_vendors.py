"""Answers, errors and their pieces in the protocols of Anthropic, Google and Cohere; see provider_protocol."""

import json
from collections.abc import Mapping
from typing import Any

from tests.support.provider_protocol import Send, Step, json_response, split

# -- Anthropic's protocol: POST /v1/messages ------------------------------------------------------------


def anthropic_event(kind: str, **fields: Any) -> Send:
    """One SSE frame; its data repeats the event's name."""
    return Send(f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode())


def anthropic_begun(*blocks: tuple[str, str], model: str = "test-model") -> list[Step]:
    """The beginning of an answer, without its end. `blocks` are pairs: "text" or "thinking", and the content."""
    usage = {"input_tokens": 7, "output_tokens": 1}
    message = {"id": "msg_test", "type": "message", "role": "assistant", "model": model, "content": []}
    start = {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}
    steps: list[Step] = [anthropic_event("message_start", message=start), anthropic_event("ping")]
    for index, (kind, text) in enumerate(blocks):
        empty = {"type": kind, kind: "", **({"signature": ""} if kind == "thinking" else {})}
        steps.append(anthropic_event("content_block_start", index=index, content_block=empty))
        for piece in split(text, "words"):
            delta = {"type": f"{kind}_delta", kind: piece}
            steps.append(anthropic_event("content_block_delta", index=index, delta=delta))
        if kind == "thinking":
            signature = {"type": "signature_delta", "signature": "c2lnbmVk"}
            steps.append(anthropic_event("content_block_delta", index=index, delta=signature))
        if index + 1 < len(blocks):
            steps.append(anthropic_event("content_block_stop", index=index))
    return steps


def anthropic_answer(
    text: str, *, thinking: str | None = None, finish: str = "end_turn", model: str = "test-model"
) -> list[Step]:
    blocks = [("thinking", thinking)] if thinking is not None else []
    count = len(text.split(" "))
    delta = {"stop_reason": finish, "stop_sequence": None}
    usage = {"input_tokens": 7, "output_tokens": count, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    return [
        *anthropic_begun(*blocks, ("text", text), model=model),
        anthropic_event("content_block_stop", index=len(blocks)),
        anthropic_event("message_delta", delta=delta, usage=usage),
        anthropic_event("message_stop"),
    ]


def anthropic_error(status: int, message: str, kind: str, headers: Mapping[str, str] | None = None) -> list[Step]:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_test"}
    return [json_response(status, body, headers)]


# -- Google's protocol: POST /v1beta/models/{model}:streamGenerateContent ---------------------------------


def google_chunk(*parts: Mapping[str, Any], finish: str | None = None, **more: Any) -> Send:
    """One `GenerateContentResponse` as an SSE frame, with parts of the answer."""
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return google_frame({"candidates": [candidate], "modelVersion": "test-model", **more})


def google_frame(response: Mapping[str, Any]) -> Send:
    return Send(f"data: {json.dumps(response)}\r\n\r\n".encode())


def google_answer(text: str, *, thinking: str | None = None, finish: str = "STOP") -> list[Step]:
    pieces = list(split(text, "words"))
    steps: list[Step] = []
    usage = {"promptTokenCount": 7, "totalTokenCount": 7}
    if thinking is not None:
        steps.append(google_chunk({"text": thinking, "thought": True}, usageMetadata=usage))
        usage = {**usage, "thoughtsTokenCount": 3}
    steps += [google_chunk({"text": piece}, usageMetadata=usage) for piece in pieces]
    total = {**usage, "candidatesTokenCount": len(pieces), "totalTokenCount": 7 + len(pieces)}
    return [*steps, google_chunk({"text": ""}, finish=finish, usageMetadata=total)]


def google_blocked() -> list[Step]:
    """An answer that says that the prompt was refused."""
    usage = {"promptTokenCount": 7, "totalTokenCount": 7}
    return [google_frame({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage})]


def google_error(status: int, message: str, name: str, headers: Mapping[str, str] | None = None) -> list[Step]:
    """An error response; `name` is Google's name of the error, like `NOT_FOUND`."""
    return [json_response(status, {"error": {"code": status, "message": message, "status": name}}, headers)]


# -- Cohere's protocol: POST /v2/chat --------------------------------------------------------------------


def cohere_event(kind: str, **fields: Any) -> Send:
    return Send(f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode())


def cohere_begun(text: str, thinking: str | None = None) -> list[Step]:
    steps: list[Step] = [cohere_event("message-start", id="test", delta={"message": {"role": "assistant"}})]
    blocks = ([("thinking", thinking)] if thinking is not None else []) + [("text", text)]
    for index, (kind, content) in enumerate(blocks):
        empty = {"message": {"content": {"type": kind, kind: ""}}}
        steps.append(cohere_event("content-start", index=index, delta=empty))
        deltas = ({"message": {"content": {kind: piece}}} for piece in split(content, "words"))
        steps += [cohere_event("content-delta", index=index, delta=delta) for delta in deltas]
        if index + 1 < len(blocks):
            steps.append(cohere_event("content-end", index=index))
    return steps


def cohere_answer(text: str, *, thinking: str | None = None, finish: str = "COMPLETE") -> list[Step]:
    counts = {"input_tokens": 7, "output_tokens": len(text.split(" "))}
    usage = {"billed_units": counts, "tokens": counts}
    return [
        *cohere_begun(text, thinking),
        cohere_event("content-end", index=0 if thinking is None else 1),
        cohere_event("message-end", id="test", delta={"finish_reason": finish, "usage": usage}),
    ]


def cohere_error(status: int, message: str, headers: Mapping[str, str] | None = None) -> list[Step]:
    return [json_response(status, {"id": "test", "message": message}, headers)]
