"""Reads the bytes of OpenAI's chat API: a stream of events, or a whole answer as JSON, from any server that speaks it.

The reader is strict only about the text: what makes the text of an answer unknowable is an error. Everything else that
servers send, odd or not, is read over.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar, cast

import msgspec

from backend.chains.models._finishes import Ending, end_kind, reason_in
from backend.chains.models._lines import Lines
from backend.chains.models._openai_chunks import (
    BROKEN,
    Choice,
    Delta,
    Other,
    Refusal,
    StreamError,
    TokenChoice,
    TokenChunk,
    WholeChunk,
    chunk_of,
    delta_of,
    field_of,
    json_in,
    other_of,
    parts_of,
    reasoning_of,
    says_error,
)
from backend.chains.models._usage import later, tokens_in
from backend.chains.models.prompt import Output, Reasoning, Text
from backend.kit.text import clean_text

_MAX_STRAY_BYTES = 4_000_000
"""Of what is no event: a whole answer, or something else."""


ReaderOutput = Output | Refusal | Other
SomeChoice = TypeVar("SomeChoice", bound=TokenChoice)
_decode = msgspec.json.Decoder(TokenChunk).decode


class StreamReader:
    """Bytes of an answer in, outputs out; the text in what one `feed` gets is merged. `ending` says how the answer
    ends."""

    def __init__(self, finish_reasons: Mapping[str, str] = MappingProxyType({})) -> None:
        self.ending = Ending(finish_reasons)
        self.is_done = False
        """Whether the server said that its stream is over."""
        self._lines = Lines()
        self._texts = Halves()
        self._index: int | None = None
        self._whole: dict[str, str] = {}
        # Whether JSON came that a strict reader refuses: only that can hold halves of UTF-16 pairs.
        self._is_odd = False
        # What an event has besides one line of JSON: its name, and the first lines of longer data.
        self._event: bytes = b""
        self._data: bytes = b""
        self._stray: list[bytes] = []
        self._stray_bytes = 0

    def end(self) -> Iterator[ReaderOutput]:
        """The outputs of what came last, when the stream is over. Raises as `feed`; StreamError also if what came is
        something else than an answer."""
        yield from self.feed(b"", is_last=True)
        if self._stray and not (self.ending.has_text or self.ending.reason):
            yield from self._outputs_of_whole(b"\n".join(self._stray))
        if self._texts.half:
            yield Text("\ufffd")
        if self.ending.reason is None and self.is_done and self.ending.tokens is not None:
            # The server has counted the answer and closed its stream: only the reason is missing.
            self.ending.reason = "stop"

    def feed(self, data: bytes, *, is_last: bool = False) -> Iterator[ReaderOutput]:
        """The outputs of the lines that these bytes complete; with `is_last`, also of the last line.

        Raises StreamError, ValueError (the text is broken), after what came before.
        """
        lines = self._lines.feed(data) if not is_last else [*self._lines.end(), b""]
        text: list[str] = []
        is_plain = not self._event and not self._data
        try:
            for line in lines:
                if is_plain and line[:5] == b"data:":
                    try:
                        chunk = _decode(line[5:])
                    except (msgspec.DecodeError, ValueError, RecursionError):
                        chunk = self._odd_data(line[5:])
                        is_plain = not self._data
                elif is_plain and not line:
                    continue
                else:
                    chunk = self._odd_line(line)
                    is_plain = not self._event and not self._data
                if chunk is None:
                    if self.is_done:
                        break
                    continue
                choice = chunk.choices[0] if chunk.choices else None
                # The quick case, a token: nothing else to look at.
                if (
                    choice is not None
                    and (delta := choice.delta) is not None
                    and delta.content
                    and isinstance(delta.content, str)
                    and choice.index == self._index
                    and not choice.finish_reason
                    and not delta.reasoning_content
                    and not delta.reasoning
                    and not delta.reasoning_details
                    and not delta.thinking
                    and not delta.tool_calls
                    and not delta.refusal
                    and not delta.function_call
                    and not delta.audio
                    and not chunk.usage
                    and not chunk.error
                ):
                    text.append(delta.content)
                    continue
                if text:
                    yield from self._text("".join(text))
                    text.clear()
                yield from self._outputs_in(chunk, line)
        except (StreamError, ValueError):
            if text:
                yield from self._text("".join(text))
            raise
        if text and not self._is_odd:
            self.ending.has_text = True
            yield Text("".join(text))
        elif text:
            yield from self._text("".join(text))

    def _text(self, text: str) -> list[ReaderOutput]:
        if self._is_odd:
            text = self._texts.join(text)
        if not text:
            return []
        self.ending.has_text = True
        return [Text(text)]

    def _odd_line(self, line: bytes) -> WholeChunk | None:
        """The chunk in a line that is no event of its own; None if the line says nothing about the answer."""
        if not line:
            self._event, data = b"", self._data
            self._data = b""
            if data:
                raise ValueError("an event whose data is no JSON")
            return None
        name, _, value = line.partition(b":")
        match name:
            case b"data":
                return self._odd_data(value)
            case b"event":
                self._event = value.strip() if value.strip() == b"error" else b""
            case b"" | b"id" | b"retry":
                pass
            case b"error":
                raise StreamError(None, value.strip().decode("utf-8", "replace"))
            case _:
                # JSON without events: a chunk a line, or a whole answer, which may take several lines.
                body = json_in(line) if line.lstrip().startswith(b"{") else None
                if isinstance(body, dict):
                    self._is_odd = True
                    return chunk_of(cast(dict[str, Any], body))
                if self._stray_bytes < _MAX_STRAY_BYTES:
                    self._stray.append(line)
                    self._stray_bytes += len(line)
        return None

    def _odd_data(self, data: bytes) -> WholeChunk | None:
        """The chunk in data that is no plain chunk; None if there is none in it."""
        data = self._data + b"\n" + data if self._data else data.strip()
        self._data = b""
        self._is_odd = True
        if not data:
            return None
        if data.strip(b'"[] ').upper() == b"DONE":
            self.is_done = self.ending.is_closed = True
            return None
        body = json_in(data)
        if body is BROKEN:
            # More lines of the event's data may follow.
            self._data = data
            return None
        if not isinstance(body, dict):
            return None
        chunk = chunk_of(cast(dict[str, Any], body))
        if self._event and not chunk.error:
            chunk.error = body
        return chunk

    def _outputs_of_whole(self, data: bytes) -> Iterator[ReaderOutput]:
        """The outputs of an answer that is no stream."""
        body, self._is_odd = json_in(data), True
        if body is BROKEN:
            raise StreamError(None, data[:_MAX_STRAY_BYTES].decode("utf-8", "replace"))
        for each in cast(list[Any], body) if isinstance(body, list) else [body]:
            if isinstance(each, dict):
                yield from self._outputs_in(chunk_of(cast(dict[str, Any], each)), b"")

    def _outputs_in(self, chunk: TokenChunk | WholeChunk, line: bytes) -> Iterator[ReaderOutput]:
        """The outputs of a chunk that is more than a token. Raises StreamError if the chunk reports an error."""
        if isinstance(chunk, TokenChunk):
            choice = self._choice_in(chunk.choices or [])
            delta = choice.delta if choice is not None and not choice.finish_reason and not chunk.error else None
            if delta is not None and _says_something(delta):
                yield from self._outputs_of_delta(delta, line)
                self._count(chunk.usage)
                return
            body = json_in(line[5:])
            chunk = chunk_of(cast(dict[str, Any], body) if isinstance(body, dict) else {})
        choice = self._choice_in(chunk.choices)
        if choice is not None:
            delta = choice.delta
            if delta is None or (not delta.content and isinstance(choice.message, dict) and not self.ending.has_text):
                delta = self._new_in_message(choice)
            yield from self._outputs_of_delta(delta, line)
            self._count(choice.usage)
        self._count(chunk.usage)
        self._count(field_of(chunk.x_groq, "usage"))
        for error in (chunk.error, choice.error if choice is not None else None):
            if says_error(error):
                raise StreamError(None, json.dumps(error))
        if choice is not None:
            self._note_reason(choice)

    def _count(self, usage: Any) -> None:
        if usage:
            self.ending.tokens = later(self.ending.tokens, tokens_in(usage))

    def _choice_in(self, choices: Sequence[SomeChoice]) -> SomeChoice | None:
        """The choice that is the answer: the first one, if a server sends several."""
        if self._index is None:
            choice = next((each for each in choices if each.index == 0), choices[0] if choices else None)
            self._index = choice.index if choice is not None else None
            return choice
        return next((each for each in choices if each.index is None or each.index == self._index), None)

    def _note_reason(self, choice: Choice) -> None:
        reason = reason_in(choice.finish_reason)
        native = reason_in(choice.native_finish_reason)
        if native is not None and (reason is None or end_kind(native) != "complete"):
            # A gateway has translated the model's own reason.
            reason = native if reason is None or end_kind(reason) == "complete" else reason
        self.ending.reason = reason or self.ending.reason

    def _outputs_of_delta(self, delta: Delta, line: bytes) -> list[ReaderOutput]:
        outputs: list[ReaderOutput] = []
        if reasoning := reasoning_of(delta):
            self.ending.has_reasoning = True
            outputs.append(Reasoning(reasoning))
        for output in [Text(delta.content)] if isinstance(delta.content, str) else parts_of(delta.content or []):
            if isinstance(output, Text):
                outputs += self._text(output.text)
            else:
                self.ending.has_reasoning = True
                outputs.append(output)
        if delta.refusal:
            self.ending.is_refused = True
            outputs.append(Refusal(delta.refusal))
        if delta.tool_calls or delta.function_call or delta.audio:
            self.ending.has_calls |= bool(delta.tool_calls or delta.function_call)
            outputs.append(other_of(delta, line))
        return outputs

    def _new_in_message(self, choice: Choice) -> Delta:
        """What a choice without a delta says: it has a whole message, or the message so far, or a plain text."""
        delta = delta_of(choice.message or {"content": choice.text})
        if isinstance(delta.content, str):
            if self.ending.has_text and "content" not in self._whole:
                # The deltas have said it already.
                delta.content = None
            else:
                delta.content = self._rest("content", delta.content)
        if reasoning := reasoning_of(delta):
            delta.reasoning_content = self._rest("reasoning", reasoning)
            delta.reasoning = delta.reasoning_details = delta.thinking = None
        return delta

    def _rest(self, name: str, value: str) -> str:
        """The part of the value that is new, if servers repeat what they have sent."""
        before = self._whole.get(name, "")
        is_repeated = bool(before) and value.startswith(before)
        self._whole[name] = value if is_repeated else before + value
        return value[len(before) :] if is_repeated else value


def _says_something(delta: Delta) -> bool:
    return bool(
        delta.content or delta.reasoning_content or delta.reasoning or delta.refusal or delta.tool_calls or delta.audio
    )


class Halves:
    """Joins the halves of a UTF-16 pair that a server has cut; a lone one becomes U+FFFD."""

    def __init__(self) -> None:
        self.half = ""

    def join(self, text: str) -> str:
        """The text, with the half that was kept before it; a half at its end is kept for the next text."""
        if text.isascii() and not self.half:
            return text
        text = self.half + text
        self.half = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        return clean_text(text[:-1] if self.half else text)
