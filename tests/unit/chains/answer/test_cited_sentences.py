"""Which sentence a mark supports."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.chains.answer.cited_sentences import CitedSentence, SentenceTracker
from backend.chains.answer.marks import Mark, MarkFilter


def cited(pieces: list[str]) -> tuple[str, set[CitedSentence]]:
    """The text, and every sentence with the number that a mark gave it."""
    mark_filter, tracker = MarkFilter(), SentenceTracker()
    text, sentences = "", set[CitedSentence]()

    def take(output: str | Mark) -> str:
        if isinstance(output, Mark):
            for n in output.numbers:
                sentences.update(tracker.mark(n))
            return ""
        new_text = ""
        for piece, complete in tracker.add(output):
            new_text += piece
            sentences.update(complete)
        return new_text

    for piece in pieces:
        for output in mark_filter.feed(piece):
            text += take(output)
    for output in mark_filter.close():
        text += take(output)
    sentences.update(tracker.close())
    return text, sentences


TEXTS = [
    "Notice is 45 days [1]. It is written [1, 2].\n\nMore [[3]] of it【2】 and [^1] so. End [1]",
    "`code [1]` and text [1]. ```\na[2]\n```\nThen [2].",
    "See [1](http://x) and [1] (really). Then [2]!",
    "Grüße 🌍 sind da [1]. 🌍🌍 Noch einer. [2]",
    "First.  \nSecond [2]. \n\nThird [10, 11, 12, 13, 14, 15, 16, 17].",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_cut_at_any_place_changes_nothing(text: str) -> None:
    whole = cited([text])
    for at in range(len(text) + 1):
        assert cited([text[:at], text[at:]]) == whole, f"cut at {at}"
    assert cited(list(text)) == whole


BITS = st.sampled_from(
    [
        "One is here",
        "Two.",
        "e.g.",
        "3.",
        " ",
        " ",
        "\n",
        "\n\n",
        "- ",
        " [1]",
        "[2]",
        "。",
        "这里",
        '"',
        "A",
        "b",
        "x" * 900,
    ]
)


@settings(deadline=None, max_examples=500)
@given(bits=st.lists(BITS, max_size=30), cuts=st.lists(st.integers(0, 4_000), max_size=8))
def test_random_cuts_change_neither_text_nor_citations(bits: list[str], cuts: list[int]) -> None:
    text = "".join(bits)
    edges = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    assert cited([text[a:b] for a, b in pairwise(edges)]) == cited([text])


@settings(deadline=None, max_examples=300)
@given(bits=st.lists(BITS, max_size=30))
def test_a_citation_is_what_stands_between_its_offsets(bits: list[str]) -> None:
    text, sentences = cited(bits)
    assert all(text[c.start : c.end] == c.text != "" for c in sentences)


@pytest.mark.parametrize("text", ["The sky is blue [1]. Grass is green.", "The sky is blue. [1] Grass is green."])
def test_a_mark_before_or_after_the_full_stop_cites_the_sentence_it_follows(text: str) -> None:
    _, sentences = cited(list(text))
    assert {(c.n, c.text) for c in sentences} == {(1, "The sky is blue.")}


def test_offsets_count_code_points() -> None:
    text, sentences = cited(["🌍🌍 first. 🎉 Grüße", " an alle [2]", ". Last."])
    (citation,) = sentences
    assert text[citation.start : citation.end] == citation.text == "🎉 Grüße an alle."
    assert citation.start == 10


def test_a_sentence_is_cited_before_the_next_one_is_written() -> None:
    tracker = SentenceTracker()
    list(tracker.add("One is here"))
    assert tracker.mark(1) == []
    assert [c for _, complete in tracker.add(". ") for c in complete] == []
    (out,) = [c for _, complete in tracker.add("Two") for c in complete]
    assert out.text == "One is here."


def test_a_long_part_keeps_its_offsets() -> None:
    tracker = SentenceTracker()
    text = ""
    for number in range(2_000):
        for piece, _ in tracker.add(f"Sentence number {number} is here. "):
            text += piece
    (citation,) = tracker.mark(1)
    assert text[citation.start : citation.end] == "Sentence number 1999 is here."
