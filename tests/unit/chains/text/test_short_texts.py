"""Titles, questions and summaries, without what models write around them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.chains.text.short_texts import written_line, written_text
from backend.chains.text.thought_tags import without_first_thoughts, without_thoughts

WRITTEN = [
    "Trip to Oslo",
    '{"title": "Trip to Oslo"}',
    '{"language": "en", "title": "Trip to Oslo"}',
    '{"result": {"title": "Trip to Oslo"}}',
    "{'title': 'Trip to Oslo'}",
    '["Trip to Oslo", "Oslo"]',
    '"Trip to Oslo"',
    'Here is the JSON:\n{"title": "Trip to Oslo"}',
    '```json\n{"title": "Trip to Oslo"}\n```',
    "```\nTrip to Oslo\n```",
    "Title: Trip to Oslo",
    "**Title:** Trip to Oslo",
    "Titel: „Trip to Oslo“",
    "Titre : « Trip to Oslo »",
    "Título: Trip to Oslo",
    "标题：Trip to Oslo",
    "Заголовок: Trip to Oslo",
    "Suggested title: Trip to Oslo",
    "Title - Trip to Oslo",
    "Here is a title for the conversation:\n\n**Trip to Oslo**",
    'Sure, here\'s a title: "Trip to Oslo"',
    "The title is: Trip to Oslo",
    "Trip to Oslo\n\nThis title names the topic.",
    "1. Trip to Oslo\n2. A trip",
    "# Trip to Oslo",
    "- Trip to Oslo",
    "<title>Trip to Oslo</title>",
    "Trip to Oslo<|im_end|>\n<|im_start|>user\nHi",
    "<|im_start|>assistant\nTrip to Oslo",
    "Trip to Oslo</s>",
    "Trip to Oslo<｜end▁of▁sentence｜>",
    "Trip to Oslo<end_of_turn>",
    "assistant\nTrip to Oslo",
    "“Trip to\nOslo”",
]


@pytest.mark.parametrize("written", WRITTEN)
def test_a_title_is_found(written: str) -> None:
    assert written_line(written) == "Trip to Oslo"


@pytest.mark.parametrize(
    "written",
    [
        "",
        " \n",
        '{"title": "Trip to Os',
        "null",
        "Untitled",
        "I'm sorry, but I can't help with that.",
        "I cannot write a title.",
        "As an AI language model, I have no title.",
        "Es tut mir leid, das geht nicht.",
        "Lo siento, no puedo.",
        "抱歉，我无法",
        "<|im_end|>",
        "---",
    ],
)
def test_what_is_no_title_is_none(written: str) -> None:
    assert written_line(written) == ""


@pytest.mark.parametrize(
    "written",
    [
        "The Sorry State of Trains",
        "C++: A Primer",
        "Intro to C#",
        'What is "RAG"?',
        "a[1] in C",
        "Topic models",
        "I, Robot",
    ],
)
def test_a_plain_line_is_unchanged(written: str) -> None:
    assert written_line(written) == written


def test_a_summary_keeps_its_lines() -> None:
    summary = "- The notice is 45 days.\n- Oslo [1] is open."
    assert written_text(f"Here is the summary:\n\n{summary}<|im_end|>") == summary
    assert written_text(f"Summary: {summary}") == summary
    assert written_text(f"```\n{summary}\n```") == summary
    assert written_text("I'm sorry, I can't do that.") == ""


@given(st.text(max_size=300))
def test_any_text_becomes_at_most_one_line(text: str) -> None:
    assert len(written_line(text).splitlines()) <= 1


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Sure!\n<think>x</think>\nOslo", "Sure!\n\nOslo"),
        ("x\n</think>\nOslo", "Oslo"),
        ("Oslo<think>x", "Oslo"),
        ("Oslo", "Oslo"),
    ],
)
def test_a_short_text_holds_no_thought(text: str, left: str) -> None:
    assert without_thoughts(text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>x</think>\n\nOslo", "Oslo"),
        ("\n<think>x</think><think>y</think> Oslo </think>", "Oslo </think>"),
        ("Oslo <think>x</think>", "Oslo <think>x</think>"),
        ("<b>Oslo</b>", "<b>Oslo</b>"),
        ("<think>x", "<think>x"),
    ],
)
def test_a_stored_answer_begins_after_its_thoughts(text: str, left: str) -> None:
    assert without_first_thoughts(text) == left
