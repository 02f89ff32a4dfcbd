"""Chunks of OpenAI's chat API: as structs for the quick way, and from JSON in which fields may have any type."""

import json
from typing import Any, cast

import msgspec

from backend.chains.models._finishes import reason_in
from backend.chains.models._usage import count_in
from backend.chains.models.prompt import Reasoning, Text


class StreamError(Exception):
    """The provider refused with an HTTP status, or reported an error inside its stream: then `status_code` is None.
    `words` is the body of the error; `retry_after` are the seconds that the headers ask to wait."""

    def __init__(self, status: int | None, words: str, retry_after: float | None = None) -> None:
        super().__init__(f"status {status}")
        self.status_code = status
        self.words = words
        self.retry_after = retry_after


class Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: Any = None
    thinking: Any = None
    tool_calls: Any = None
    function_call: Any = None
    refusal: str | None = None
    audio: Any = None


class TokenChoice(msgspec.Struct):
    """What the tokens of a stream need of a choice."""

    index: int | None = None
    delta: Delta | None = None
    finish_reason: str | None = None


class TokenChunk(msgspec.Struct):
    """What the tokens of a stream need of a chunk."""

    choices: list[TokenChoice] | None = None
    usage: Any = None
    error: Any = None


class Choice(TokenChoice):
    """Everything that is read of a choice."""

    message: Any = None
    text: Any = None
    error: Any = None
    usage: Any = None
    native_finish_reason: str | None = None


class WholeChunk(msgspec.Struct):
    """Everything that is read of a chunk."""

    choices: list[Choice]
    usage: Any = None
    error: Any = None
    x_groq: Any = None


class Refusal(msgspec.Struct):
    """More of the text in which the model refuses."""

    text: str


class Other(msgspec.Struct):
    """A chunk that holds more than text: tool calls or audio, as the provider sent it, without its text."""

    chunk: dict[str, Any]


BROKEN = object()


def json_in(data: bytes) -> Any:
    """The JSON value in what a strict reader refuses: NaN, lone surrogates, bytes that are no UTF-8. `BROKEN` if there
    is none."""
    try:
        return json.loads(data.decode("utf-8", "replace"), parse_int=_integer)
    except (ValueError, RecursionError):
        return BROKEN


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)


def chunk_of(body: dict[str, Any]) -> WholeChunk:
    """A chunk from JSON in which fields may have any type."""
    value: Any = body.get("choices")
    choices = cast(list[Any], value if isinstance(value, list) else [value])
    found = [_choice_of(cast(dict[str, Any], each)) for each in choices if isinstance(each, dict)]
    error = body.get("error")
    if not found and not error and _is_bare_error(body):
        error = body
    return WholeChunk(found, body.get("usage"), error, body.get("x_groq"))


def _choice_of(fields: dict[str, Any]) -> Choice:
    delta = fields.get("delta")
    return Choice(
        index=count_in(fields.get("index")),
        delta=delta_of(delta) if isinstance(delta, dict | str) else None,
        finish_reason=reason_in(fields.get("finish_reason")),
        message=fields.get("message"),
        text=fields.get("text"),
        error=fields.get("error"),
        usage=fields.get("usage"),
        native_finish_reason=reason_in(fields.get("native_finish_reason")),
    )


def delta_of(value: Any) -> Delta:
    fields = cast(dict[str, Any], value) if isinstance(value, dict) else {"content": value}
    content: Any = fields.get("content")
    if isinstance(content, dict):
        content = [content]
    elif isinstance(content, int | float) and not isinstance(content, bool):
        content = str(content)
    return Delta(
        content=cast("str | list[Any]", content) if isinstance(content, str | list) else None,
        reasoning_content=_str(fields.get("reasoning_content")),
        reasoning=_str(fields.get("reasoning")),
        reasoning_details=fields.get("reasoning_details"),
        thinking=fields.get("thinking"),
        tool_calls=fields.get("tool_calls"),
        function_call=fields.get("function_call"),
        refusal=_str(fields.get("refusal")),
        audio=fields.get("audio"),
    )


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def field_of(value: Any, name: str) -> Any:
    return cast(dict[str, Any], value).get(name) if isinstance(value, dict) else None


def reasoning_of(delta: Delta) -> str:
    """The reasoning in a delta, under whichever name the server has for it. Encrypted reasoning is not shown."""
    return (
        delta.reasoning_content
        or delta.reasoning
        or _text_in(delta.reasoning_details, ("text", "summary"))
        or _text_in(delta.thinking, ("thinking", "text", "content"))
    )


def _text_in(value: Any, names: tuple[str, ...]) -> str:
    """The text of a value, of its first field of these names, or of its items."""
    if isinstance(value, list):
        return "".join(_text_in(item, names) for item in cast(list[Any], value))
    if isinstance(value, dict):
        return next((text for name in names if (text := _text_in(field_of(value, name), names))), "")
    return _str(value) or ""


def parts_of(content: list[Any]) -> list[Text | Reasoning]:
    """Content in parts, of which Mistral's also think aloud."""
    outputs: list[Text | Reasoning] = []
    for part in content:
        kind = field_of(part, "type")
        thinks = field_of(part, "thinking") or (isinstance(kind, str) and kind.startswith(("reasoning", "thinking")))
        thinking = _text_in(part, ("thinking", "reasoning", "text", "summary")) if thinks else ""
        text = part if isinstance(part, str) else field_of(part, "text")
        if thinking:
            outputs.append(Reasoning(thinking))
        elif isinstance(text, str) and text:
            outputs.append(Text(text))
    return outputs


def other_of(delta: Delta, line: bytes) -> Other:
    """The chunk in this line as LangChain reads tool calls: without what is read here."""
    body = json_in(line.removeprefix(b"data:"))
    head = {k: v for k, v in cast(dict[str, Any], body).items() if k != "usage"} if isinstance(body, dict) else {}
    fields = {"tool_calls": delta.tool_calls, "function_call": delta.function_call, "audio": delta.audio}
    kept = {"role": "assistant", "content": None, **{k: v for k, v in fields.items() if v}}
    return Other({**head, "choices": [{"index": 0, "delta": kept, "finish_reason": None}]})


def says_error(error: Any) -> bool:
    """Whether the value of a field `error` says anything: some servers have an empty one in each chunk."""
    return any(cast(dict[str, Any], error).values()) if isinstance(error, dict) else bool(error)


def _is_bare_error(body: dict[str, Any]) -> bool:
    """Whether an object without choices is an error that stands alone."""
    if "error" in (body.get("object"), body.get("type")):
        return True
    return bool(body.get("message") or body.get("msg") or body.get("detail")) and bool(
        body.get("code") or body.get("status") or body.get("detail")
    )
