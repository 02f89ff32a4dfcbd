"""How many tokens a prompt can have at most, before anybody has counted them.

No tokenizer of a chat model makes more tokens of a text than its UTF-8 has bytes. What a model's template puts around a
message, and what a provider may add of its own, is far below what is added here.
"""

from collections.abc import Sequence

from backend.chains.answer.grounding import LONGEST_GROUNDING, LONGEST_LABELS
from backend.chains.history.follow_up import LONGEST_REWRITE, REWRITE_SYSTEM
from backend.chains.models.prompt import Prompt

_A_CALL, _A_MESSAGE = 256, 16
_AN_IMAGE = 50_000
"""What the dearest known model counts for a picture of any size, rounded up."""
_HISTORY = 4
"""`fit` counts 3.6 bytes of a message as a token, and adds 4 for the message."""


def prompt_at_most(prompt: Prompt) -> int:
    """Tokens of this prompt, at most."""
    schema = prompt.parameters.response_schema
    messages = (prompt.system, *(message.text_for_model for message in prompt.messages))
    return _tokens(messages, prompt.image_count, schema)


def answer_at_most(texts: Sequence[str], pictures: int, schema: str | None, history: int, passages: int) -> int:
    """Tokens of a prompt whose history and passages are not known yet, at most. `texts`: what is known of its messages;
    `pictures`: how many it shows, those of the history too; `history`: the tokens that `fit` may use; `passages`: see
    `passages_at_most`."""
    return _tokens(texts, pictures, schema) + LONGEST_GROUNDING + _HISTORY * history + passages


def passages_at_most(count: int, characters: int) -> int:
    """Tokens of so many passages of so many characters each, with what is said of each."""
    return count * (4 * characters + LONGEST_LABELS)


def rewrite_at_most(question: str) -> int:
    """Tokens of the prompt that makes a follow-up a question of its own."""
    return _tokens((REWRITE_SYSTEM, question), 0, None) + LONGEST_REWRITE


def _tokens(messages: Sequence[str], pictures: int, schema: str | None) -> int:
    texts = (*messages, schema or "")
    length = sum(len(text.encode("utf-8", "replace")) for text in texts) + _A_MESSAGE * len(messages)
    return _A_CALL + length + _AN_IMAGE * pictures
