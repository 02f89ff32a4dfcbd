"""Text that every database and client can hold."""

from itertools import chain
from typing import cast


def clean_text(text: str) -> str:
    """The text without NUL characters, and with U+FFFD in place of lone surrogates."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def is_clean(value: object) -> bool:
    """Whether `clean_text` would change no string of this JSON value."""
    # Without recursion, because a client decides how deep the value is nested.
    remaining = [value]
    while remaining:
        item = remaining.pop()
        if isinstance(item, str) and not _is_clean_text(item):
            return False
        if isinstance(item, dict):
            remaining.extend(chain.from_iterable(cast("dict[str, object]", item).items()))
        elif isinstance(item, list):
            remaining.extend(cast("list[object]", item))
    return True


def _is_clean_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


def check_clean(value: object) -> None:
    """Raises ValueError, with a text for callers, if a string of this JSON value is not clean (see `is_clean`)."""
    if not is_clean(value):
        raise ValueError("must not hold NUL characters or lone surrogates")
