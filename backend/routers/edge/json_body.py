"""JSON bodies, read so that no body holds the other answers up, whatever its shape.

The time for a body depends on the number of its values rather than on its bytes: a megabyte has room for 300,000 empty
lists, and each wrong item would become an error of its own. So values are counted first, and large bodies are counted
and decoded in a thread.
"""

import asyncio
import json
import re
from typing import Any

from fastapi import Request
from typing_extensions import override

from backend.errors import BadRequest, Invalid

MAX_VALUES = 10_000
"""Maximum number of values in a body, keys included. No request needs a tenth of them."""
MAX_DEPTH = 100
"""Maximum depth of lists and objects in a body."""
OFF_LOOP_BYTES = 256_000
"""Bodies with more bytes are decoded in a thread."""

_PIECE_BYTES = 262_144
"""Bytes that are looked through at once; between two pieces, other threads run."""
_STRUCTURE = re.compile(rb'["\[\]{},:]')
_WITHIN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class JsonRequest(Request):
    """A request whose `json()` has a limit for the number of values, and reads large bodies in a thread."""

    @override
    async def json(self) -> Any:
        """The decoded body. Raises JSONDecodeError, and BadRequest or Invalid for its shape."""
        if not hasattr(self, "_json"):
            body = await self.body()
            if len(body) > OFF_LOOP_BYTES:
                self._json = await asyncio.to_thread(decode, body)
            else:
                self._json = decode(body)
        return self._json


def decode(body: bytes) -> Any:
    """The decoded body. Raises JSONDecodeError, and BadRequest or Invalid for its shape or is nested too deeply."""
    # A value needs two bytes at least, with the comma or bracket.
    if len(body) > 2 * MAX_VALUES or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check_shape(body)
    return json.loads(body)


def _check_shape(body: bytes) -> None:
    """Raises Invalid if there are too many values outside of strings, BadRequest if there are too many levels."""
    marks = values = depth = position = 0
    size = len(body)
    while position < size:
        match = _STRUCTURE.search(body, position, position + _PIECE_BYTES)
        if match is None:
            position += _PIECE_BYTES
            continue
        position = match.end()
        character = match.group()
        marks += 1
        if character == b'"':
            position = _end_of_string(body, position)
        elif character in b"]}":
            depth -= 1
            if depth < 0:
                return  # This is not JSON. The decoder says so at this place.
        else:
            values += 1
            if character in b"[{":
                depth += 1
        # JSON has fewer than four marks a value. What has more is not JSON, and is not looked through for nothing.
        if values > MAX_VALUES or marks > 4 * MAX_VALUES:
            raise Invalid(f"body: must have at most {MAX_VALUES:,} values. Send less at once.")
        if depth > MAX_DEPTH:
            raise BadRequest(f"The body is nested more than {MAX_DEPTH} levels deep.")


def _end_of_string(body: bytes, position: int) -> int:
    """The position after the quote that ends the string."""
    size = len(body)
    while position < size:
        match = _WITHIN_STRING.match(body, position, position + _PIECE_BYTES)
        end = match.end() if match else position
        if end < size and body[end : end + 1] == b'"':
            return end + 1
        # The piece ended within the string, perhaps between a backslash and what it escapes.
        position = end if end > position else end + 2
    return size
