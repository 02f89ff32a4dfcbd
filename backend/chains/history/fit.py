"""The newest messages of a conversation that fit into a number of tokens."""

from collections.abc import Sequence

from backend.chains.models.prompt import Message
from backend.chains.text.tokens import estimate_tokens

_TOKENS_PER_MESSAGE = 4
_MAX_COUNTED_CHARACTERS = 32_000
"""A longer text is estimated. To count this many takes 10 to 40 ms, in which the event loop serves no other request."""


def count_tokens(message: Message) -> int:
    """The tokens of a message without its images: counted, or an estimate that is too high rather than too low."""
    if message.count is None or len(message.text) > _MAX_COUNTED_CHARACTERS:
        return estimate_tokens(message.text_for_model) + _TOKENS_PER_MESSAGE
    return message.count(message.text) + estimate_tokens(message.note) + _TOKENS_PER_MESSAGE


def fit(history: Sequence[Message], max_tokens: int) -> tuple[Message, ...]:
    """The last messages that fit into `max_tokens`, each of them complete. The first one is a message of the user."""
    messages: list[Message] = []
    for message in reversed(history):
        max_tokens -= count_tokens(message)
        if max_tokens < 0:
            break
        messages.append(message)
    while messages and messages[-1].role != "user":
        messages.pop()
    return tuple(reversed(messages))
