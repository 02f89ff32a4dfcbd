"""Makes the bytes that a vendor's server streams readable for its SDK, whatever the server makes of the standard.

SDKs differ in what they forgive: line ends, comments, missing event names, odd types, characters that are cut in two, a
whole answer in place of a stream. Here every stream gets one plain form before its SDK reads it. Each protocol adds a
function that leaves in a body what is needed and makes events of a whole answer.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import cache
from typing import Any, cast

import msgspec

from backend.chains.models._lines import Lines
from backend.chains.models._openai_chunks import BROKEN, StreamError, json_in
from backend.chains.models.provider import bytes_came
from backend.kit.text import clean_text

Body = dict[str, Any]
Mend = Callable[[Body, str], Iterable[Body]]
"""The bodies that stand for a body, whose event has that name (empty without one)."""

UNENCODED = {"Accept-Encoding": "identity"}
"""Headers for a client whose responses are read so: a compressed stream would come late, in blocks."""
_MAX_STRAY_BYTES = 4_000_000
_decode = msgspec.json.Decoder().decode


class Frames:
    """Bytes of a server in, bytes for its SDK out. `is_plain`: a body a line, as Ollama has them, instead of events."""

    def __init__(self, mend: Mend, *, is_plain: bool = False) -> None:
        self._mend = mend
        self._is_plain = is_plain
        self._lines = Lines()
        self._name = ""
        self._data: list[bytes] = []
        self._stray: list[bytes] = []
        self._stray_bytes = 0
        self._halves: dict[tuple[str | int, ...], str] = {}
        self._is_odd = False
        self._has_bodies = False

    def feed(self, data: bytes) -> bytes:
        """What these bytes complete. Raises ValueError if an event is broken."""
        return b"".join(frame for line in self._lines.feed(data) for frame in self._frames_of(line))

    def end(self) -> bytes:
        """What came last, when the stream is over. Raises StreamError if nothing of it was an answer."""
        lines = [*self._lines.end(), b""]
        frames = [frame for line in lines for frame in self._frames_of(line)]
        if self._stray and not self._has_bodies:
            data = b"\n".join(self._stray)
            body = json_in(data)
            if body is BROKEN:
                raise StreamError(None, data.decode("utf-8", "replace"))
            for each in cast(list[Any], body) if isinstance(body, list) else [body]:
                frames += self._frames_with(each, "")
        return b"".join(frames)

    def _frames_of(self, line: bytes) -> Iterator[bytes]:
        name, _, value = line.partition(b":")
        match name:
            case b"" if line:
                return
            case b"":
                if self._data:
                    data, self._data = b"\n".join(self._data), []
                    yield from self._frames_in(data)
                self._name = ""
            case b"data":
                self._data.append(value.removeprefix(b" "))
                if self._is_plain:
                    yield from self._frames_of(b"")
            case b"event":
                self._name = value.strip().decode("utf-8", "replace")
            case b"id" | b"retry":
                return
            case b"error":
                raise StreamError(None, value.strip().decode("utf-8", "replace"))
            case _:
                yield from self._frames_outside(line)

    def _frames_outside(self, line: bytes) -> Iterator[bytes]:
        """The frames of a line that belongs to no event: a body by itself, or a part of something longer."""
        if line.lstrip().startswith(b"{") and not self._stray:
            body = self._body_in(line)
            if body is not BROKEN:
                yield from self._frames_with(body, self._name)
                return
            if self._is_plain and self._has_bodies:
                raise ValueError("a line that is no JSON")
        if line.strip() and self._stray_bytes < _MAX_STRAY_BYTES:
            self._stray.append(line)
            self._stray_bytes += len(line)

    def _frames_in(self, data: bytes) -> Iterator[bytes]:
        if not data.strip() or data.strip(b'"[] ').upper() == b"DONE":
            return
        body = self._body_in(data)
        if body is BROKEN:
            raise ValueError("an event whose data is no JSON")
        yield from self._frames_with(body, self._name)

    def _body_in(self, data: bytes) -> Any:
        try:
            return _decode(data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            # Only what a strict reader refuses can hold halves of a UTF-16 pair.
            self._is_odd = True
            return json_in(data)

    def _frames_with(self, body: Any, name: str) -> Iterator[bytes]:
        if not isinstance(body, dict):
            return
        self._has_bodies = True
        if self._is_odd:
            body = self._joined(body, ())
        for each in self._mend(cast(Body, body), name):
            # ASCII only: some SDKs take U+2028 for the end of a line.
            data = json.dumps(each)
            name = f"event: {each['type']}\n" if "type" in each else ""
            yield (f"{data}\n" if self._is_plain else f"{name}data: {data}\n\n").encode()

    def _joined(self, value: Any, path: tuple[str | int, ...]) -> Any:
        """The value, in which the halves of a UTF-16 pair that came in two bodies are one character."""
        if isinstance(value, dict):
            return {k: self._joined(v, (*path, k)) for k, v in cast(Body, value).items()}
        if isinstance(value, list):
            return [self._joined(v, (*path, i)) for i, v in enumerate(cast(list[Any], value))]
        if not isinstance(value, str):
            return value
        text = self._halves.pop(path, "") + value
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._halves[path], text = text[-1], text[:-1]
        return clean_text(text)


def fields_in(body: Body, name: str) -> Body:
    """The object in this field; empty if there is none."""
    value = body.get(name)
    return cast(Body, value) if isinstance(value, dict) else {}


def objects_in(body: Body, name: str) -> list[Body]:
    """The objects of the list in this field; empty if there is none."""
    value = body.get(name)
    return [cast(Body, each) for each in cast(list[Any], value) if isinstance(each, dict)] if _is_list(value) else []


def text_in(body: Body, name: str) -> str:
    """The text in this field; empty if there is none."""
    value = body.get(name)
    return value if isinstance(value, str) else ""


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def reading_hook(library: Any, mend: Mend, *, is_plain: bool = False) -> Callable[[Any], Awaitable[None]]:
    """A hook for the responses of an httpx client (`library` is httpx, or httpx2): each stream is read as above, and
    its bytes count as signs of life."""

    async def read(response: Any) -> None:
        if response.status_code != 200:
            return
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        frames = None if encoded else Frames(mend, is_plain=is_plain)
        response.stream = _stream_class(library)(response.stream, frames)
        if not is_plain:
            response.headers["content-type"] = "text/event-stream"

    return read


@cache
def _stream_class(library: Any) -> Any:
    class ReadableStream(library.AsyncByteStream):
        """The body of a response, frame by frame."""

        def __init__(self, stream: Any, frames: Frames | None) -> None:
            self._stream = stream
            self._frames = frames

        async def __aiter__(self) -> AsyncIterator[bytes]:
            is_alive, frames = bytes_came.get(), self._frames
            async for data in self._stream:
                is_alive()
                if frames is None:
                    yield data
                elif ready := frames.feed(data):
                    yield ready
            if frames is not None and (last := frames.end()):
                yield last

        async def aclose(self) -> None:
            await self._stream.aclose()

    return ReadableStream
