"""Estimates the tokens of a text from its bytes."""

import math

_BYTES_PER_TOKEN = 3.6


def estimate_tokens(text: str) -> int:
    """The tokens of a text, rather too many than too few: 3.6 bytes per token, about as in English."""
    return estimate_bytes(len(text.encode("utf-8", "replace")))


def estimate_bytes(count: int) -> int:
    """The tokens of a text with so many bytes."""
    return math.ceil(count / _BYTES_PER_TOKEN)


def clip(text: str, tokens: int) -> str:
    """The beginning of a text, with at most so many tokens as `estimate_tokens` counts them."""
    return text.encode("utf-8", "replace")[: int(max(tokens, 0) * _BYTES_PER_TOKEN)].decode("utf-8", "ignore")
