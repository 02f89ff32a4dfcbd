"""Images: reading them, and how many earlier ones a model is sent."""

import base64
import binascii

from backend.chains.models.prompt import Image

MAX_PROMPT_IMAGES = 8
MAX_PROMPT_BYTES = 8_000_000
"""The most bytes of all images in a prompt; the images of the new message come first. Every provider accepts this much
in one request."""
IMAGE_TOKENS = 1_000
"""The estimate for one image, if the provider doesn't count."""
_HISTORY_TOKENS = 500
"""The tokens of LLM_HISTORY_TOKENS that allow one image."""

_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


def read_image(media_type: str, data: str) -> Image:
    """The image that the base64 text encodes. Raises ValueError, also if its type isn't `media_type`."""
    try:
        content = base64.b64decode(data, validate=True)
    except binascii.Error:
        raise ValueError(
            'data must be base64 alone: without line breaks and without "data:image/png;base64,"'
        ) from None
    actual = image_type(content)
    if actual is None:
        raise ValueError("data must be a PNG, JPEG, WebP or GIF: it begins like none of them")
    if actual != media_type:
        raise ValueError(f"data is {actual}, not {media_type}")
    return Image(media_type, content)


def images_that_fit(history_tokens: int, own: int) -> int:
    """How many images of earlier messages a model is sent with a message that has `own` images. LLM_HISTORY_TOKENS
    limits the images and the words separately."""
    return max(0, min(MAX_PROMPT_IMAGES - own, history_tokens // _HISTORY_TOKENS))


def image_type(data: bytes) -> str | None:
    """The media type that an image's first bytes show; None if it is no PNG, JPEG, WebP or GIF."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((name for beginning, name in _BEGINNINGS.items() if data.startswith(beginning)), None)
