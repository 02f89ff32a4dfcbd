"""Upper bounds for the tokens of a prompt, without a tokenizer.

No tokenizer of a chat model makes more tokens of a text than its UTF-8 has bytes. The constants here are far above what
a model's template puts around a message, and what a provider may add.
"""

from collections.abc import Sequence

from backend.chains.answer.grounding import LONGEST_GROUNDING, LONGEST_LABELS
from backend.chains.history.follow_up import LONGEST_REWRITE, REWRITE_SYSTEM
from backend.chains.models.prompt import Prompt

_PER_CALL, _PER_MESSAGE = 256, 16
_PER_IMAGE = 50_000
"""The most tokens that any known model counts for one image, rounded up."""
_BYTES_PER_HISTORY_TOKEN = 4
"""`fit` counts 3.6 bytes of a message as a token, and adds 4 for the message."""


def prompt_at_most(prompt: Prompt) -> int:
    """The most tokens that this prompt can have."""
    schema = prompt.parameters.response_schema
    messages = (prompt.system, *(message.text_for_model for message in prompt.messages))
    return _tokens(messages, prompt.image_count, schema)


def answer_at_most(texts: Sequence[str], images: int, schema: str | None, history: int, passages: int) -> int:
    """The most tokens that a prompt can have, before its history and passages are known.

    `texts` are the known texts of the prompt. `images` is the number of images, with those of the history. `history` is
    the number of tokens that `fit` may use, `passages` the result of `passages_at_most`.
    """
    return _tokens(texts, images, schema) + LONGEST_GROUNDING + _BYTES_PER_HISTORY_TOKEN * history + passages


def passages_at_most(count: int, characters: int) -> int:
    """The most tokens of `count` passages of `characters` each, with their labels."""
    return count * (4 * characters + LONGEST_LABELS)


def rewrite_at_most(question: str) -> int:
    """The most tokens of the prompt that rewrites a follow-up as a standalone question."""
    return _tokens((REWRITE_SYSTEM, question), 0, None) + LONGEST_REWRITE


def _tokens(messages: Sequence[str], images: int, schema: str | None) -> int:
    texts = (*messages, schema or "")
    length = sum(len(text.encode("utf-8", "replace")) for text in texts) + _PER_MESSAGE * len(messages)
    return _PER_CALL + length + _PER_IMAGE * images
