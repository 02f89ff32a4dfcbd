"""What a follow-up question means without its conversation: queries for the search, or a question of its own."""

import re
from collections.abc import Sequence
from contextlib import aclosing

from backend.chains.models.prompt import Message, Parameters, Prompt, Text, Tokens
from backend.chains.models.provider import ChatModel
from backend.chains.text.words import words
from backend.errors import RunError

REWRITE_SYSTEM = (
    "Rewrite the user's last message as one standalone question that can be understood without the conversation. "
    "Keep names, numbers and the language. If it stands alone already, repeat it. Reply with the question only."
)
_TOLD_TURNS, _TOLD_CHARACTERS = 6, 1500
LONGEST_REWRITE = _TOLD_TURNS * (4 * _TOLD_CHARACTERS + 20) + 100
"""The most bytes of a request to rewrite, besides the question and the system prompt."""
_MAX_QUESTION = 2_000
REWRITING = Parameters(max_tokens=200)
_STANDS_ALONE = 3
_POINTS_BACK = re.compile(r"\b(it|its|they|them|their|that|this|those|these|he|she|his|her|there|one|ones)\b", re.I)


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


def rewrite_request(history: Sequence[Message], question: str) -> str:
    """The conversation and the follow-up, for the model that rewrites it."""
    told = "\n".join(
        f"{m.role}: {m.without_images().text_for_model[:_TOLD_CHARACTERS]}" for m in history[-_TOLD_TURNS:]
    )
    return f"Conversation:\n{told}\n\nLast message:\n{question}"
