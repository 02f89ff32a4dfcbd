"""Pictures: reading them, and how many of a conversation a model is shown."""

import base64
import binascii

from backend.chains.models.provider import Image

MOST_SHOWN = 8
MOST_BYTES = 8_000_000
"""Of all pictures in a prompt, the message's own first: what one request can bring, and every provider takes."""
IMAGE_TOKENS = 1_000
"""Of a picture, where nobody has counted."""
_HISTORY_TOKENS = 500

_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


def read_image(media_type: str, data: str) -> Image:
    """A picture of its base64. Raises ValueError, also when it is of another type than it says."""
    try:
        found = base64.b64decode(data, validate=True)
    except binascii.Error:
        said = 'data must be base64 alone: without line breaks and without "data:image/png;base64,"'
        raise ValueError(said) from None
    actual = _media_type(found)
    if actual is None:
        raise ValueError("data must be a PNG, JPEG, WebP or GIF: it begins like none of them")
    if actual != media_type:
        raise ValueError(f"data is {actual}, not {media_type}")
    return Image(media_type, found)


def images_that_fit(history_tokens: int, own: int) -> int:
    """How many pictures of earlier messages a model is shown beside a message with `own` pictures. Words have their
    own room: LLM_HISTORY_TOKENS bounds both, each for itself."""
    return max(0, min(MOST_SHOWN - own, history_tokens // _HISTORY_TOKENS))


def _media_type(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((name for beginning, name in _BEGINNINGS.items() if data.startswith(beginning)), None)
