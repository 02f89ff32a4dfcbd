"""The conversation so far: what of it fits a model, and what a follow-up question means without it."""

import math
import re
from collections.abc import Sequence
from contextlib import aclosing

from backend.chains.answer.grounding import REWRITE_SYSTEM, rewrite_request
from backend.chains.models.provider import ChatModel, Message, Parameters, Prompt, Text, Tokens
from backend.chains.text.words import words
from backend.errors import RunError

_BYTES_A_TOKEN = 3.6
_TOKENS_A_MESSAGE = 4
_MAX_QUESTION = 2_000
_MAX_COUNTED = 32_000
"""Characters that a tokenizer reads at one go: 10 to 40 ms in which nobody else is served."""
REWRITING = Parameters(max_tokens=200)
_STANDS_ALONE = 3
_POINTS_BACK = re.compile(r"\b(it|its|they|them|their|that|this|those|these|he|she|his|her|there|one|ones)\b", re.I)


def estimate_tokens(text: str) -> int:
    """Tokens of a text, rather too many than too few: about 3.6 bytes of English are one, fewer elsewhere."""
    return estimate_bytes(len(text.encode("utf-8", "replace")))


def estimate_bytes(count: int) -> int:
    """The same, of so many bytes of text."""
    return math.ceil(count / _BYTES_A_TOKEN)


def cost(message: Message) -> int:
    """Tokens of a message's words: counted, or rather too many than too few. Pictures have their own room."""
    if message.count is None or len(message.text) > _MAX_COUNTED:
        return estimate_tokens(message.told) + _TOKENS_A_MESSAGE
    return message.count(message.text) + estimate_tokens(message.note) + _TOKENS_A_MESSAGE


def clip(text: str, tokens: int) -> str:
    """The beginning of a text that has at most so many tokens, as `estimate_tokens` counts them."""
    return text.encode("utf-8", "replace")[: int(max(tokens, 0) * _BYTES_A_TOKEN)].decode("utf-8", "ignore")


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


def related_queries(history: Sequence[Message], question: str) -> list[tuple[str, float]]:
    """Queries with weights for a follow-up that no model rewrites: the question first, then it with the user's last
    turns, and the answer that it follows.

    A question with words enough of its own counts more for itself.
    """
    turns = [m.text for m in history if m.role == "user"][-2:]
    if not turns:
        return [(question, 1.0)]
    joined = " ".join([*turns, question])[-_MAX_QUESTION:]
    if len(set(words(question))) >= _STANDS_ALONE and not _POINTS_BACK.search(question):
        return [(question, 1.0), (joined, 0.3)]
    answers = [m.text for m in history if m.role == "assistant"][-1:]
    return [(question, 1.0), (joined, 1.0), *((answer[:_MAX_QUESTION], 0.3) for answer in answers)]


async def standalone_question(
    model: ChatModel, history: Sequence[Message], question: str
) -> tuple[str | None, Tokens | None]:
    """The follow-up as a question of its own, and what the call used; None when the model gave nothing usable."""
    content = rewrite_request(history, question)
    prompt = Prompt(system=REWRITE_SYSTEM, history=(), content=content, question=question, parameters=REWRITING)
    pieces: list[str] = []
    used: Tokens | None = None
    try:
        async with aclosing(model.stream(prompt)) as outputs:
            async for output in outputs:
                match output:
                    case Text(text):
                        pieces.append(text)
                    case Tokens():
                        used = output
                    case _:
                        pass
    except RunError:
        # Retrieval can do without; if the provider is really down, the answer itself will say so.
        return None, used
    rewritten = "".join(pieces).strip().strip('"')
    return (rewritten if 0 < len(rewritten) <= _MAX_QUESTION else None), used
