"""Sentences and chunks: what is kept, where it is cut, and that nothing hostile is slow."""

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.chains.reading.parsed import Heading, PageStart, ParsedDocument, canonical
from backend.chains.retrieval.chunking import Chunk, chunk
from backend.chains.retrieval.entries import ChunkText
from backend.chains.text.sentences import sentences


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


def document(text: str, *headings: tuple[str, int], title: str | None = None) -> ParsedDocument:
    places = [Heading(text.index(line), level, line.lstrip("# ")) for line, level in headings]
    return ParsedDocument(text, "text/plain", title, headings=places)


def texts(parsed: ParsedDocument, size: int = 100) -> list[str]:
    return [parsed.text[each.start : each.end] for each in chunk(parsed, size)]


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Smith met Mr. Jones.", "They spoke."],
        ["Use tools, e.g. a saw, i.e. Something sharp.", "Done."],
        ["See Fig. 3 and Sec. 4.2 for more.", "It costs 3.14 dollars."],
        ["J. R. R. Tolkien wrote it.", "So did I.", "Really!"],
        ['"Really?" he asked.', '"Yes."', "He left."],
        ["On Jan. 5 it was No. 7.", "No.", "It was not."],
        ["It began at 5 p.m.", "Then the U.S. Senate met."],
        ["Wait...", "What?!", "(Indeed.)", "Fine."],
        ["etc. and so on.", "More etc.", "Then this."],
        ["Das gilt z. B. für Tee.", "Und Kaffee bzw. Kakao."],
        ["1. First of all.", "It goes on."],
    ],
)
def test_sentences_end_where_a_reader_says(expected: list[str]) -> None:
    assert split(" ".join(expected)) == expected


def test_lines_that_are_sentences() -> None:
    assert split("- one\n- two\n1. three\n# Head\nText\n| a | b |\n| c | d |") == [
        "- one",
        "- two",
        "1. three",
        "# Head",
        "Text",
        "| a | b |",
        "| c | d |",
    ]


def test_a_wrapped_line_is_none() -> None:
    wrapped = "A line that was wrapped because it\nReached the margin there, and so on\nto the end."
    assert split(wrapped) == [wrapped]
    assert split("Roses are red\nViolets are blue\nAnd here comes a line that is much longer") == [
        "Roses are red",
        "Violets are blue",
        "And here comes a line that is much longer",
    ]


def test_cjk_needs_no_spaces() -> None:
    assert split("这是一句话。还有一句！好吗？“好。”完") == [
        "这是一句话。",
        "还有一句！",
        "好吗？",
        "“好。”",
        "完",
    ]


def test_a_part_of_a_text_is_split_by_itself() -> None:
    text = "One. Two. Three."
    assert sentences(text, 5, 9) == [(5, 9)]


HOSTILE = [
    "." * 500_000,
    "a. " * 200_000,
    "\n" * 500_000,
    "A\n" * 250_000,
    "x" * 500_000,
    "\n" + "A" * 500_000 + "\n" + "A" * 500_000,
    "e.g. " * 150_000,
    "1.\n" * 200_000,
    "\"'" * 250_000,
    ". \n" * 200_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_linear(text: str) -> None:
    began = time.process_time()
    chunk(ParsedDocument(text, "text/plain"), 500)
    assert time.process_time() - began < 3


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "Word",
                " ",
                ". ",
                "\n",
                "\n\n",
                "# H",
                "。",
                "- ",
                "e.g. ",
                "\xa0",
                "!",
                "x" * 30,
                "|",
                "\u3000",
            ]
        ),
        max_size=60,
    ),
    st.integers(1, 60),
    st.lists(st.integers(0, 200), max_size=5),
)
def test_nothing_is_lost_and_nothing_is_said_twice(pieces: list[str], size: int, places: list[int]) -> None:
    text = canonical("".join(pieces))
    starts = sorted({min(place, len(text)) for place in places})
    parsed = ParsedDocument(text, "text/plain", headings=[Heading(start, 1, "H") for start in starts])
    spans = [(each.start, each.end) for each in chunk(parsed, size)]
    for found in (spans, sentences(text)):
        assert found == sorted(found)
        assert all(before[1] <= after[0] for before, after in pairwise(found))
        assert all(text[start:end].strip() == text[start:end] != "" for start, end in found)
        assert "".join("".join(text[start:end].split()) for start, end in found) == "".join(text.split())
    assert all(end - start <= 1.3 * size + 1 for start, end in spans)


def test_chunks_end_with_sentences() -> None:
    text = " ".join(f"Sentence number {number} says a little." for number in range(40))
    pieces = texts(ParsedDocument(text, "text/plain"), 200)
    assert all(piece.endswith(".") and piece.startswith("Sentence") for piece in pieces)
    assert all(100 < len(piece) <= 200 for piece in pieces)


def test_a_paragraph_is_a_better_border_than_a_sentence() -> None:
    first = "The first paragraph has two sentences. Both belong together here."
    second = "The second one begins anew. It is just as long as the first."
    assert texts(ParsedDocument(f"{first}\n\n{second}", "text/plain"), 100) == [first, second]


def test_a_long_sentence_is_cut_at_words() -> None:
    text = "word " * 100
    pieces = texts(ParsedDocument(text.strip(), "text/plain"), 60)
    assert all(len(piece) <= 78 for piece in pieces)
    assert {word for piece in pieces for word in piece.split()} == {"word"}


def test_a_section_begins_a_chunk() -> None:
    body = "Some words that fill the section."
    parsed = document(f"# A\n\n{body}\n\n# B\n\n{body}", ("# A", 1), ("# B", 1))
    found = chunk(parsed, 500)
    assert [(each.heading, parsed.text[each.start : each.start + 3]) for each in found] == [
        ("A", "# A"),
        ("B", "# B"),
    ]


def test_a_heading_with_nothing_under_it_goes_with_the_next() -> None:
    parsed = document("# A\n\n## B\n\nText of B.\n\n# C", ("# A", 1), ("## B", 2), ("# C", 1))
    found = chunk(parsed, 500)
    assert [each.heading for each in found] == ["A > B", "C"]
    assert parsed.text[found[0].start : found[0].end] == "# A\n\n## B\n\nText of B."


def test_a_tiny_rest_joins_its_section() -> None:
    parsed = ParsedDocument("A sentence that has about sixty characters, more or less so. " * 3 + "Bye.", "text/plain")
    assert texts(parsed, 190)[-1].endswith("so. Bye.")


def test_pages_and_ordinals() -> None:
    text = "First page text here.\n\nSecond page text here."
    parsed = ParsedDocument(text, "application/pdf", pages=[PageStart(1, 0), PageStart(2, 23)])
    assert chunk(parsed, 25) == [Chunk(0, 0, 21, 1, None), Chunk(1, 23, 45, 2, None)]


def test_indexed_text_has_what_is_above() -> None:
    parsed = document("# A\n\nText.", ("# A", 1), title="Book")
    (only,) = chunk(parsed, 500)
    assert ChunkText.from_document(parsed, only).indexed() == "Book\nA\n# A\n\nText."
    same = document("# A\n\nText.", ("# A", 1), title="A")
    assert ChunkText.from_document(same, only).indexed() == "A\n# A\n\nText."
    assert (
        ChunkText.from_document(ParsedDocument("Text.", "text/plain"), Chunk(0, 0, 5, None, None)).indexed() == "Text."
    )


def test_heading_paths_and_pages_by_offset() -> None:
    parsed = ParsedDocument(
        "x" * 100,
        "t",
        pages=[PageStart(1, 0), PageStart(2, 50), PageStart(3, 50)],
        headings=[Heading(10, 1, "A"), Heading(20, 2, "B"), Heading(30, 3, "C"), Heading(40, 2, "D")],
    )
    assert [parsed.heading_at(at) for at in (0, 10, 25, 35, 99)] == [None, "A", "A > B", "A > B > C", "A > D"]
    assert [parsed.page_at(at) for at in (0, 49, 50, 200)] == [1, 1, 3, 3]
