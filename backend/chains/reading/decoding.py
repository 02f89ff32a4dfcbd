"""Bytes to text, for formats that are text."""

import codecs
import re
from functools import lru_cache

# UTF-32 before UTF-16: its little-endian mark begins with the other's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_GUESS_BYTES = 64_000


class NotTextError(ValueError):
    """The bytes are no text in any encoding we know."""


def decode(raw: bytes, *, declared: str | None = None, whole: bool = True) -> str:
    """The text in `raw`: by its byte order mark, as UTF-8, as `declared`, or by a guess, in this order.

    `whole=False` is for the beginning of a file, whose last character may be cut. Raises NotTextError for binary
    data.
    """
    for encoding in _candidates(raw, declared):
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(raw, final=whole)
        except (UnicodeDecodeError, LookupError):
            continue
        return _checked(text)
    return _checked(raw.decode("latin-1"))


def _candidates(raw: bytes, declared: str | None) -> list[str]:
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return [encoding]
    if b"\0" in raw[:_GUESS_BYTES]:
        return _wide(raw[:_GUESS_BYTES])
    try:
        codecs.getincrementaldecoder("utf-8")().decode(raw, final=False)
        return ["utf-8"]
    except UnicodeDecodeError:
        return [encoding for encoding in (_known(declared), _guess(raw[:_GUESS_BYTES]), "cp1252") if encoding]


def _wide(sample: bytes) -> list[str]:
    """UTF-16 without a mark: the zeros of Western text are all in the even or all in the odd places."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if min(even, odd) * 20 > max(even, odd) or max(even, odd) * 10 < len(sample):
        raise NotTextError
    return ["utf-16-le" if odd > even else "utf-16-be"]


def _known(declared: str | None) -> str | None:
    """A declared encoding, when Python has it and it turns bytes into text."""
    try:
        info = codecs.lookup(declared or "")
    except (LookupError, ValueError):
        return None
    # Python has codecs that are no text encodings (zip, rot13): those must not run on a stranger's file.
    return info.name if getattr(info, "_is_text_encoding", True) else None


@lru_cache(maxsize=4)
def _guess(sample: bytes) -> str | None:
    """Takes a while, and every format asks about the same beginning of a file."""
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    return best.encoding if best else None


def _checked(text: str) -> str:
    """Text has hardly any control characters; binary data that happens to decode is full of them."""
    sample = text[:_GUESS_BYTES]
    if len(_CONTROLS.findall(sample)) * 100 > len(sample):
        raise NotTextError
    return text
