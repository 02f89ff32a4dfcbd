"""Tokens of a text, estimated from its bytes."""

import math

_BYTES_A_TOKEN = 3.6


def estimate_tokens(text: str) -> int:
    """Tokens of a text, rather too many than too few: about 3.6 bytes of English are one, fewer elsewhere."""
    return estimate_bytes(len(text.encode("utf-8", "replace")))


def estimate_bytes(count: int) -> int:
    """The same, of so many bytes of text."""
    return math.ceil(count / _BYTES_A_TOKEN)


def clip(text: str, tokens: int) -> str:
    """The beginning of a text that has at most so many tokens, as `estimate_tokens` counts them."""
    return text.encode("utf-8", "replace")[: int(max(tokens, 0) * _BYTES_A_TOKEN)].decode("utf-8", "ignore")
