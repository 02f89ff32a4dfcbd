"""Decodes bytes as text, for formats that are text."""

import codecs
import re
from functools import lru_cache

# UTF-32 before UTF-16: the little-endian mark of UTF-32 begins with the one of UTF-16.
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
    """The bytes are not text in any known encoding."""


def decode(raw: bytes, *, declared: str | None = None, whole: bool = True) -> str:
    """The text in `raw`: by its byte order mark, as UTF-8, as `declared`, or by a guess, in this order.

    `whole=False` is for the beginning of a file: its last character may be cut. Raises NotTextError for binary data.
    """
    for encoding in _possible_encodings(raw, declared):
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(raw, final=whole)
        except (UnicodeDecodeError, LookupError):
            continue
        return _checked(text)
    return _checked(raw.decode("latin-1"))


def _possible_encodings(raw: bytes, declared: str | None) -> list[str]:
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return [encoding]
    if b"\0" in raw[:_GUESS_BYTES]:
        return _utf16_encodings(raw[:_GUESS_BYTES])
    try:
        codecs.getincrementaldecoder("utf-8")().decode(raw, final=False)
        return ["utf-8"]
    except UnicodeDecodeError:
        return [encoding for encoding in (_text_encoding(declared), _guess(raw[:_GUESS_BYTES]), "cp1252") if encoding]


def _utf16_encodings(sample: bytes) -> list[str]:
    """UTF-16 without a mark: in Western text, all zeros are in even places or all are in odd places."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if min(even, odd) * 20 > max(even, odd) or max(even, odd) * 10 < len(sample):
        raise NotTextError
    return ["utf-16-le" if odd > even else "utf-16-be"]


def _text_encoding(declared: str | None) -> str | None:
    """The declared encoding, if Python has it and it is an encoding of text."""
    try:
        info = codecs.lookup(declared or "")
    except (LookupError, ValueError):
        return None
    # Python has codecs that are not text encodings (zip, rot13): they must not run on an unsafe file.
    return info.name if getattr(info, "_is_text_encoding", True) else None


@lru_cache(maxsize=4)
def _guess(sample: bytes) -> str | None:
    """The most probable encoding. Cached: it takes long, and each format asks for the same beginning of a file."""
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    return best.encoding if best else None


def _checked(text: str) -> str:
    """The text. Raises NotTextError if it has many control characters: then it is binary data that could be decoded."""
    sample = text[:_GUESS_BYTES]
    if len(_CONTROLS.findall(sample)) * 100 > len(sample):
        raise NotTextError
    return text
