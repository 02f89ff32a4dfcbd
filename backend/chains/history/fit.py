"""Which messages of a conversation fit into a number of tokens."""

from collections.abc import Sequence

from backend.chains.models.prompt import Message
from backend.chains.text.tokens import estimate_tokens

_TOKENS_A_MESSAGE = 4


_MAX_COUNTED = 32_000
"""Characters that a tokenizer reads at one go: 10 to 40 ms in which nobody else is served."""


def cost(message: Message) -> int:
    """Tokens of a message's words: counted, or rather too many than too few. Pictures have their own room."""
    if message.count is None or len(message.text) > _MAX_COUNTED:
        return estimate_tokens(message.text_for_model) + _TOKENS_A_MESSAGE
    return message.count(message.text) + estimate_tokens(message.note) + _TOKENS_A_MESSAGE


def fit(history: Sequence[Message], budget: int) -> tuple[Message, ...]:
    """The last messages that fit into `budget` tokens, whole ones only, beginning with one of the user's."""
    kept: list[Message] = []
    for message in reversed(history):
        budget -= cost(message)
        if budget < 0:
            break
        kept.append(message)
    while kept and kept[-1].role != "user":
        kept.pop()
    return tuple(reversed(kept))
