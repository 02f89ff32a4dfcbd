"""Which messages are small talk: only whole messages, in several languages, however they are written."""

import pytest

from backend.chains.text.small_talk import small_talk_of

SMALL_TALK = {
    "greeting": ["hi", "Hello!", "  hey there  ", "Good morning.", "Bonjour", "¡Hola!", "你好！", "Guten Tag"],
    "thanks": ["thanks", "Thank you very much!", "Danke schön", "merci", "ありがとうございます。"],
    "abilities": ["What can you do?", "help", "Who are you?", "Was kannst du?", "¿Qué puedes hacer?", "你能做什么？"],
    "documents": [
        "what documents do you have",
        "What documents do you have?",
        "Which files have I uploaded?",
        "list my documents",
        "Show me all files, please.",
        "Welche Dokumente hast du?",
    ],
    "summary": [
        "summarise this",
        "Summarize this document.",
        "Can you summarize the file for me?",
        "Give me a short summary",
        "What is this document about?",
        "What's it about?",
        "TL;DR",
        "Fasse das zusammen",
        "Résumé ?",
    ],
}


@pytest.mark.parametrize(("kind", "message"), [(k, m) for k, messages in SMALL_TALK.items() for m in messages])
def test_small_talk_is_known(kind: str, message: str) -> None:
    assert small_talk_of(message) == kind


@pytest.mark.parametrize(
    "message",
    [
        "How long is the notice period?",
        "What is this contract about?",
        "hi, how long is the notice period?",
        "Who are the parties?",
        "Which documents must the tenant show?",
        "What documents do you have to file with the court?",
        "Summarize the section on liability",
        "What does the summary say?",
        "help desk hours",
        "Thank you note for Alice",
        "What can you do about noise at night?",
        "",
        "?",
        "this document",
        "a",
        "hi " * 100,
    ],
)
def test_questions_are_none(message: str) -> None:
    assert small_talk_of(message) is None
