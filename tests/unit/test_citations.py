"""Citation marks: however the stream cuts them, they come out the same."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.chains.citations import Cited, Mark, MarkFilter, SentenceTracker, find_quote
from backend.chains.passages import Passage


def filtered(pieces: list[str]) -> tuple[str, list[tuple[int, tuple[int, ...]]]]:
    """The text without marks, and each mark with the place in that text where it stood."""
    marks: list[tuple[int, tuple[int, ...]]] = []
    text = ""
    mark_filter = MarkFilter()
    for output in [*(o for piece in pieces for o in mark_filter.feed(piece)), *mark_filter.close()]:
        if isinstance(output, Mark):
            marks.append((len(text), output.numbers))
        else:
            text += output
    return text, marks


def cited(pieces: list[str]) -> tuple[str, set[Cited]]:
    """The text, and every sentence with the number that a mark gave it."""
    mark_filter, tracker = MarkFilter(), SentenceTracker()
    text, found = "", set[Cited]()

    def take(output: str | Mark) -> str:
        if isinstance(output, Mark):
            for n in output.numbers:
                found.update(tracker.mark(n))
            return ""
        given = ""
        for piece, done in tracker.add(output):
            given += piece
            found.update(done)
        return given

    for piece in pieces:
        for output in mark_filter.feed(piece):
            text += take(output)
    for output in mark_filter.close():
        text += take(output)
    found.update(tracker.close())
    return text, found


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("It is so [1].", [(1,)]),
        ("It is so[1].", [(1,)]),
        ("It is so. [2]", [(2,)]),
        ("It is so [1, 2].", [(1, 2)]),
        ("It is so [1; 2].", [(1, 2)]),
        ("It is so [1][2].", [(1,), (2,)]),
        ("It is so [1] [2].", [(1,), (2,)]),
        ("It is so [[1]].", [(1,)]),
        ("It is so [[1, 3]].", [(1, 3)]),
        ("It is so [^1].", [(1,)]),
        ("It is so 【1】.", [(1,)]),
        ("It is so 【1†source】.", [(1,)]),
        ("It is so [1,1].", [(1,)]),
        ("It is so [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].", [tuple(range(1, 11))]),
    ],
)
def test_every_form_of_a_mark_is_taken_out_of_the_text(text: str, numbers: list[tuple[int, ...]]) -> None:
    left, marks = filtered([text])
    assert left == "It is so."
    assert [m[1] for m in marks] == numbers


@pytest.mark.parametrize(
    "text",
    [
        "See [1](http://x.example/a) for more.",
        "Use `a[1]` here.",
        "Use ``a`[1]`` here.",
        "So:\n\n```python\nx = a[1]\n```\n\nThat is all.",
        "The set [a] and [ ] and [x, 1] and list[i].",
        "An open [ bracket, and [12 more.",
        "Prices [1000] and [2024] are no marks.",
        "Line one. \nLine two.",
        "Line one.  \n\n  indented",
        "a\t\n b",
        "- [ ] open\n- [x] done\n",
        "tail with a newline\n",
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_what_is_no_mark_is_left_as_it_is(text: str, size: int) -> None:
    left, marks = filtered([text[i : i + size] for i in range(0, len(text), size)])
    assert (left.rstrip(), marks) == (text.rstrip(), [])


def test_a_stray_backtick_does_not_keep_later_marks_in_the_text() -> None:
    assert filtered(["Press the ` key.\nThen go [1]."]) == ("Press the ` key.\nThen go.", [(24, (1,))])


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
        *"[]^【】(),;` \n.!",
        "[1]",
        "[12]",
        "[1, 2]",
        "[[3]]",
        " [^2]",
        "【1】",
        "```",
        "](",
        "word",
        "Word. ",
        "🌍",
        "1",
        "ü",
    ]
)


@settings(deadline=None, max_examples=300)
@given(bits=st.lists(BITS, max_size=30), cuts=st.lists(st.integers(0, 120), max_size=8))
@example(bits=["Word. ", "\n", "word"], cuts=[7])
@example(bits=["word", " ", "\n", "word"], cuts=[6])
def test_random_cuts_change_neither_text_nor_marks(bits: list[str], cuts: list[int]) -> None:
    text = "".join(bits)
    edges = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert filtered(pieces) == filtered([text])


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="[]【】 \t"), max_size=200), st.integers(1, 9))
def test_text_without_brackets_comes_through_untouched(text: str, size: int) -> None:
    assert filtered([text[i : i + size] for i in range(0, len(text), size)]) == (text, [])


@pytest.mark.parametrize("text", ["The sky is blue [1]. Grass is green.", "The sky is blue. [1] Grass is green."])
def test_a_mark_before_or_after_the_full_stop_cites_the_sentence_it_follows(text: str) -> None:
    _, found = cited(list(text))
    assert {(c.n, c.text) for c in found} == {(1, "The sky is blue.")}


def test_offsets_count_code_points() -> None:
    text, found = cited(["🌍🌍 first. 🎉 Grüße", " an alle [2]", ". Last."])
    (citation,) = found
    assert text[citation.start : citation.end] == citation.text == "🎉 Grüße an alle."
    assert citation.start == 10


def test_a_sentence_is_cited_before_the_next_one_is_written() -> None:
    tracker = SentenceTracker()
    list(tracker.add("One is here"))
    assert tracker.mark(1) == []
    assert [c for _, done in tracker.add(". ") for c in done] == []
    (out,) = [c for _, done in tracker.add("Two") for c in done]
    assert out.text == "One is here."


def test_a_long_part_keeps_its_offsets() -> None:
    tracker = SentenceTracker()
    text = ""
    for number in range(2_000):
        for piece, _ in tracker.add(f"Sentence number {number} is here. "):
            text += piece
    (citation,) = tracker.mark(1)
    assert text[citation.start : citation.end] == "Sentence number 1999 is here."


PASSAGE = Passage(
    chunk_id="c",
    document_id="d",
    version="v",
    title="contract.md",
    text="Notice is 45 days. Invoices are due within 30 days of receipt.",
    start=100,
    end=162,
    page=None,
    heading=None,
    score=1.0,
)


async def test_the_quote_is_the_sentence_that_supports() -> None:
    found = await find_quote("The notice is 45 days.", PASSAGE, None)
    assert found == (100, 118)
    assert await find_quote("An invoice is due within 30 days.", PASSAGE, None) == (119, 162)


@pytest.mark.parametrize("sentence", ["Cats sleep all day.", "The notice is 90 days.", ""])
async def test_what_the_passage_does_not_say_is_not_cited(sentence: str) -> None:
    async def nothing_alike(_: str, others: object) -> list[float]:
        return [0.0] * len(list(others))  # type: ignore[call-overload]

    assert await find_quote(sentence, PASSAGE, None) is None
    assert await find_quote(sentence, PASSAGE, nothing_alike) is None
