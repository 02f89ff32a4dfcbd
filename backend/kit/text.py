"""Text that every database and client can hold."""

from itertools import chain
from typing import cast


def clean_text(text: str) -> str:
    """Text that every database and client can hold: no NUL, lone surrogates replaced by U+FFFD."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def is_clean(value: object) -> bool:
    """Whether every string of a JSON value is as `clean_text` leaves it."""
    # Not by recursion: somebody else has nested it.
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str) and each != clean_text(each):
            return False
        if isinstance(each, dict):
            left.extend(chain.from_iterable(cast("dict[str, object]", each).items()))
        elif isinstance(each, list):
            left.extend(cast("list[object]", each))
    return True
