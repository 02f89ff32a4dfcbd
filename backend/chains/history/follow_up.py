"""Makes a follow-up question understandable without its conversation: queries for the search, or one question that a
model writes."""

import re
from collections.abc import Sequence

from backend.chains.models.prompt import Message, Parameters, Prompt
from backend.chains.models.provider import ChatModel
from backend.chains.models.written_text import WrittenText
from backend.chains.text.short_texts import written_line
from backend.chains.text.words import words
from backend.errors import RunError

REWRITE_SYSTEM = (
    "Rewrite the user's last message as one standalone question that can be understood without the conversation. "
    "Keep names, numbers and the language. If it stands alone already, repeat it. Reply with the question only."
)
_MAX_MESSAGES, _MAX_MESSAGE_CHARACTERS = 6, 1500
LONGEST_REWRITE = _MAX_MESSAGES * (4 * _MAX_MESSAGE_CHARACTERS + 20) + 100
"""The most bytes of a request to rewrite, besides the question and the system prompt."""
_MAX_QUESTION = 2_000
REWRITING = Parameters(max_tokens=200)
_STANDALONE_WORDS = 3
_POINTS_BACK = re.compile(r"\b(it|its|they|them|their|that|this|those|these|he|she|his|her|there|one|ones)\b", re.I)


def related_queries(history: Sequence[Message], question: str) -> list[tuple[str, float]]:
    """Queries with weights for a follow-up that no model rewrites: the question, the question after the user's last
    turns, and the last answer.

    If the question has enough words of its own and no pronouns, the other queries weigh less.
    """
    turns = [m.text for m in history if m.role == "user"][-2:]
    if not turns:
        return [(question, 1.0)]
    with_turns = " ".join([*turns, question])[-_MAX_QUESTION:]
    if len(set(words(question))) >= _STANDALONE_WORDS and not _POINTS_BACK.search(question):
        return [(question, 1.0), (with_turns, 0.3)]
    answers = [m.text for m in history if m.role == "assistant"][-1:]
    return [(question, 1.0), (with_turns, 1.0), *((answer[:_MAX_QUESTION], 0.3) for answer in answers)]


async def standalone_question(
    model: ChatModel, history: Sequence[Message], question: str
) -> tuple[str | None, WrittenText]:
    """The follow-up as a standalone question, and what the model wrote for it. The question is None if nothing of that
    is usable."""
    content = rewrite_request(history, question)
    prompt = Prompt(system=REWRITE_SYSTEM, history=(), content=content, question=question, parameters=REWRITING)
    written = WrittenText()
    try:
        await written.read(model.stream(prompt))
    except RunError:
        # The search works without the rewritten question. If the provider is down, the answer will fail and say so.
        return None, written
    rewritten = written_line(written.text)
    return (rewritten if 0 < len(rewritten) <= _MAX_QUESTION else None), written


def rewrite_request(history: Sequence[Message], question: str) -> str:
    """The conversation and the follow-up, for the model that rewrites it."""
    conversation = "\n".join(
        f"{m.role}: {m.without_images().text_for_model[:_MAX_MESSAGE_CHARACTERS]}" for m in history[-_MAX_MESSAGES:]
    )
    return f"Conversation:\n{conversation}\n\nLast message:\n{question}"
