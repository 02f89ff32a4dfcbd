"""Citation marks: in whatever form they come and wherever the stream cuts them, they come out the same."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.chains.answer.marks import Mark, MarkFilter


def filtered(pieces: list[str], count: int = 99) -> tuple[str, list[tuple[int, tuple[int, ...]]]]:
    """The text without marks, and each mark with the place in that text where it stood."""
    marks: list[tuple[int, tuple[int, ...]]] = []
    text = ""
    mark_filter = MarkFilter(count)
    for output in [*(o for piece in pieces for o in mark_filter.feed(piece)), *mark_filter.close()]:
        if isinstance(output, Mark):
            marks.append((len(text), output.numbers))
        else:
            text += output
    return text, marks


FORMS = [
    ("[1]", (1,)),
    ("[1, 2]", (1, 2)),
    ("[1; 2]", (1, 2)),
    ("[1,1]", (1,)),
    ("[1 and 2]", (1, 2)),
    ("[1 & 2]", (1, 2)),
    ("[1][2]", (1, 2)),
    ("[1] [2]", (1, 2)),
    ("[1], [2]", (1, 2)),
    ("[1-3]", (1, 2, 3)),
    ("[1–3, 5]", (1, 2, 3, 5)),
    ("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]", tuple(range(1, 11))),
    ("[[1]]", (1,)),
    ("[[1, 3]]", (1, 3)),
    ("[^1]", (1,)),
    ("[^1][^2]", (1, 2)),
    ("[1†L3-L5]", (1,)),
    ("[1, p. 4]", (1,)),
    ("[2, pages 14-15]", (2,)),
    ("[Source 1]", (1,)),
    ("[source: 2]", (2,)),
    ("[Sources 1, 2]", (1, 2)),
    ("[Source 1, Source 2]", (1, 2)),
    ("[Passage 2]", (2,)),
    ("[passage #2]", (2,)),
    ("[doc 3]", (3,)),
    ("[Ref. 3]", (3,)),
    ("[Source 1: the contract.pdf]", (1,)),
    ("(Source 1)", (1,)),
    ("(passages 1, 2)", (1, 2)),
    ("【1】", (1,)),
    ("【1†source】", (1,)),
    ("【1†L3-L5】【2†source】", (1, 2)),
]


@pytest.mark.parametrize(("form", "numbers"), FORMS)
@pytest.mark.parametrize(
    ("before", "after"),
    [("It is so", "."), ("It is so.", ""), ("It is so.", "\n"), ("It is so", ", or not."), ("It is so.", " Next one.")],
)
@pytest.mark.parametrize("blank", ["", " ", "  "])
def test_every_form_is_taken_out_of_the_text(
    form: str, numbers: tuple[int, ...], before: str, after: str, blank: str
) -> None:
    text = before + blank + form + after
    for pieces in ([text], list(text)):
        left, marks = filtered(pieces)
        assert left == before + after
        assert [m[1] for m in marks] == [numbers]


@pytest.mark.parametrize(
    ("text", "left", "numbers"),
    [
        ("It is so.¹ And so.", "It is so. And so.", [(1,)]),
        ("It is so¹.", "It is so¹.", []),
        ("It is certain¹² now.", "It is certain now.", [(1, 2)]),
        ("It is certain.¹,³", "It is certain.", [(1, 3)]),
        ("It is certain.⁹", "It is certain.⁹", []),
    ],
)
def test_superscripts_are_marks_behind_stops_and_words(text: str, left: str, numbers: list[tuple[int, ...]]) -> None:
    for pieces in ([text], list(text)):
        text, marks = filtered(pieces, count=5)
        assert (text, [m[1] for m in marks]) == (left, numbers)


@pytest.mark.parametrize("text", ["x² + y²", "an area of 20 m²", "10³ kg", "five metres² of it", "(a + b)²"])
def test_exponents_are_no_marks(text: str) -> None:
    assert filtered(list(text)) == (text, [])


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("According to [1], it is so.", [(1,)]),
        ("This is laid down in [Source 2].", [(2,)]),
        ("It is so. [1] says that, too.", [(1,)]),
        ("As both [1] and [2] say, it is so.", [(1,), (2,)]),
    ],
)
def test_a_mark_that_its_sentence_needs_stays_and_counts(text: str, numbers: list[tuple[int, ...]]) -> None:
    for pieces in ([text], list(text)):
        left, marks = filtered(pieces)
        assert (left, [m[1] for m in marks]) == (text, numbers)


@pytest.mark.parametrize(
    "text",
    [
        "See [1](http://x.example/a) for more.",
        "Use `a[1]` here.",
        "Use ``a`[1]`` here.",
        "So:\n\n```python\nx = a[1]\n```\n\nThat is all.",
        "So:\n\n~~~\nx = a [1]\n~~~\n\nThat is all.",
        "The set [a] and [ ] and [x, 1] and list[i].",
        "An open [ bracket, and [12 more.",
        "Prices [1000] and [2024] are no marks.",
        "It takes items[0], then rows_2[1], then userList[3].",
        "Set a[1] = 2, then call f[1](x), then a[1][i], then a[1].name.",
        "So \\(x[1]\\) and \\[ y [2] \\] and\n$$ z [3] $$ hold, x_[1] too, and \\sqrt[3]{8}.",
        "Item (1) and (2) and (see Passage 2).",
        "A [source of 3 rivers] and a [passage] and [Sourdough 1].",
        "Line one. \nLine two.",
        "Line one.  \n\n  indented",
        "a\t\n b",
        "- [ ] open\n- [x] done\n",
        "tail with a newline\n",
        "Sources:\n[1] contract.pdf\n[2]: terms.md, page 3\n",
        "**References**\n\n- [1] Contract\n- [2] Terms\n1. [3] Law",
        "[^1]: contract.pdf\n[^2]: terms.md",
        "Sources: [1] contract.pdf, [2] terms.md",
        "Sources: [1], [2]",
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_what_is_no_mark_is_left_as_it_is(text: str, size: int) -> None:
    left, marks = filtered([text[i : i + size] for i in range(0, len(text), size)])
    assert (left.rstrip(), marks) == (text.rstrip(), [])


VALUES = [
    "The interval [1, 2] is closed, x = [1] holds, and the array [1, 2, 3] has three items.",
    "Set x ∈ [1, 2] and y = [2].",
    "It returns [1]. It prints [1, 2, 3].",
    'In JSON that is {"pages": [1], "ids": [1, 2]}.',
    '{"a": [[1, 2], [3]], "b": [1]}',
    "pages: [1]",
    "Numbers: [1, 2, 3]",
    "| Notice | [1] |\n| [1] | a |",
    "Call f([1, 2]) now; len([1]) is 1.",
    "The range [1-3] is fine, and so is the score from [1-3] on.",
    "The vector [1, 2] + [3, 4] is [4, 6].",
    "The matrix [[1, 2], [3, 4]] is regular.",
    "$x \\in [1, 2]$ holds, and $[1, 2]$ is closed.",
    "See Figure [1] for it.",
    "a[1] is the first, items[1] is the second, arr[1] the third.",
    "The list is [1, 2]. It is a list of [1, 2].",
    "The output is:\n[1, 2]\n",
    "[1, 2, 3]",
    "## [1] Introduction",
    'The text "[1, 2]" is a string.',
    "Die Menge [1, 2] ist endlich. El conjunto [1, 2] es finito. L'intervalle [1, 2] est fermé.",
    "1. [1, 2]\n2. [2, 3]",
    "It maps 1 -> [1].",
]


@pytest.mark.parametrize("text", VALUES)
@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_value_in_brackets_is_text(text: str, count: int) -> None:
    for pieces in ([text], list(text)):
        assert filtered(pieces, count) == (text, [])


CLAIMS = [
    ("The fee is 3 % [1] and the term is 2 years [2].", "The fee is 3 % and the term is 2 years."),
    ("Several studies [1, 2] show it.", "Several studies show it."),
    ("The list of items is long [1].", "The list of items is long."),
    ("It costs $5 [1] and $6 [2].", "It costs $5 and $6."),
    ("**Notice** [1]: 45 days", "**Notice**: 45 days"),
    ("| Notice | 45 days [1] |", "| Notice | 45 days |"),
    ('He said "no" [1].', 'He said "no".'),
    ("The values are low [1, 2]; see below.", "The values are low; see below."),
    ("## Fees [1]", "## Fees"),
    ("- [x] done [1]", "- [x] done"),
    ("The set of rules [1] applies to all.", "The set of rules applies to all."),
]


@pytest.mark.parametrize(("text", "left"), CLAIMS)
def test_a_mark_after_a_claim_is_a_mark_also_among_numbers_lists_and_prices(text: str, left: str) -> None:
    for pieces in ([text], list(text)):
        after, marks = filtered(pieces, 5)
        assert (after, bool(marks)) == (left, True)


@pytest.mark.parametrize(
    ("text", "left", "numbers"),
    [
        ("It is so [9].", "It is so [9].", []),
        ("It is so [1, 9].", "It is so [1, 9].", []),
        ("It is so [2][9].", "It is so [9].", [(2,)]),
        ("It is so [9][2].", "It is so [9].", [(2,)]),
        ("It is so [1, 2], [3, 9].", "It is so [1, 2], [3, 9].", []),
        ("It is so [^9].", "It is so [^9].", []),
        ("It is so 【9】.", "It is so.", [(9,)]),
        ("It is so [Source 9].", "It is so.", [(9,)]),
    ],
)
def test_a_bare_number_that_names_no_source_stays(text: str, left: str, numbers: list[tuple[int, ...]]) -> None:
    for pieces in ([text], list(text)):
        after, marks = filtered(pieces, 5)
        assert (after, [m[1] for m in marks]) == (left, numbers)


def test_a_list_of_sources_keeps_its_numbers_and_cites_nothing() -> None:
    text = "It is so [1]. And so [2].\n\nSources:\n[1] contract.pdf\n[2] terms.md"
    left, marks = filtered(list(text))
    assert left == "It is so. And so.\n\nSources:\n[1] contract.pdf\n[2] terms.md"
    assert [m[1] for m in marks] == [(1,), (2,)]


def test_a_mark_on_a_line_of_its_own_belongs_to_the_line_before() -> None:
    assert filtered(list("It is so.\n[1]\nNext.")) == ("It is so.\n\nNext.", [(10, (1,))])


def test_a_stray_backtick_does_not_keep_later_marks_in_the_text() -> None:
    assert filtered(["Press the ` key.\nThen go [1]."]) == ("Press the ` key.\nThen go.", [(24, (1,))])


BITS = st.sampled_from(
    [
        *("list ", "is ", "x = ", "$", '"', "| ", "[7]", "[1, 7]", "{", "key:"),
        *"[]^【】(),;:` \n.!$\\~-†",
        *(form for form, _ in FORMS),
        *(f" {form}" for form, _ in FORMS),
        "```",
        "](",
        "[Source",
        "(passage ",
        "in",
        "Sources:",
        "\n- ",
        "word",
        "Word. ",
        "🌍",
        "1",
        "²",
        "ü",
        "\\(",
        "\\]",
    ]
)


@settings(deadline=None, max_examples=400)
@given(bits=st.lists(BITS, max_size=30), cuts=st.lists(st.integers(0, 200), max_size=8))
@example(bits=["Word. ", "\n", "word"], cuts=[7])
@example(bits=["word", " ", "\n", "word"], cuts=[6])
def test_random_cuts_change_neither_text_nor_marks(bits: list[str], cuts: list[int]) -> None:
    text = "".join(bits)
    edges = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    pieces = [text[a:b] for a, b in pairwise(edges)]
    for count in (99, 5):
        whole = filtered([text], count)
        assert filtered(pieces, count) == whole
        assert filtered(list(text), count) == whole


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="[]【】¹²³⁰⁴⁵⁶⁷⁸⁹( \t"), max_size=200), st.integers(1, 9))
def test_text_without_marks_comes_through_untouched(text: str, size: int) -> None:
    assert filtered([text[i : i + size] for i in range(0, len(text), size)]) == (text, [])


@settings(deadline=None, max_examples=200)
@given(st.lists(BITS, max_size=40))
def test_nothing_but_marks_and_the_blanks_before_them_is_lost(bits: list[str]) -> None:
    """What is left is what was given, less whole marks: each letter outside of a mark is still there, in order."""
    text = "".join(bits)
    left, _ = filtered(list(text))
    characters = iter(text)
    assert all(character in characters for character in left)
    assert left.count("🌍") == text.count("🌍")
    assert left.count("ü") == text.count("ü")


@pytest.mark.parametrize(
    "hostile",
    [
        "[",
        "[1",
        "[[",
        "[1]",
        "[1],",
        "[1, ",
        " ",
        "`",
        "```",
        "$",
        "\\",
        "¹",
        "【",
        "(source ",
        "[source 1: ",
        "~",
        "[^",
        "a[",
    ],
)
def test_hostile_text_is_held_back_within_bounds(hostile: str) -> None:
    text = hostile * (20_000 // len(hostile))
    mark_filter, longest = MarkFilter(), 0
    for at in range(0, len(text), 10):
        for _ in mark_filter.feed(text[at : at + 10]):
            pass
        longest = max(longest, len(mark_filter._buffer))
    assert longest <= 2_000
