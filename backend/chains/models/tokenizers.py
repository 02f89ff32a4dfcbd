"""How many tokens a text has for a model, by its own tokenizer where that one's file is at hand."""

from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

Count = Callable[[str], int]
_KEPT = 1_024
"""Texts whose count is remembered: each message of a conversation is counted once, not once a turn."""


@cache
def counter(path: Path) -> Count:
    """Counts by a `tokenizer.json` of Hugging Face's. Reading it takes up to a second. Raises ValueError."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception:
        # The package raises Exception itself, whose words are of no help.
        raise ValueError(f"MODELS_FILE: {path} is no tokenizer.json that can be read") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()

    @lru_cache(_KEPT)
    def count(text: str) -> int:
        return len(tokenizer.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False))

    return count
