"""Words by which a question and a passage are compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.chains.text.words import STOPWORDS, words


@pytest.mark.parametrize(
    "forms",
    [
        ("limit", "limits", "Limits", "LIMIT"),
        ("bill", "billed", "billing", "bills"),
        ("party", "parties"),
        ("boat's", "boat’s", "boats"),
        ("harbour", "harbours"),
    ],
)
def test_forms_of_a_word_are_the_same(forms: tuple[str, ...]) -> None:
    assert len({tuple(words(form)) for form in forms}) == 1, [words(f) for f in forms]


@pytest.mark.parametrize(("one", "other"), [("class", "clas"), ("bus", "bu"), ("2024", "2025"), ("v1.2", "v1.3")])
def test_different_words_stay_different(one: str, other: str) -> None:
    assert words(one) != words(other)


def test_words_without_content_are_left_out() -> None:
    assert words("What is the of and to?") == []
    assert words("How long is the notice period?") == ["long", *words("notice period")]


def test_numbers_and_codes_stay_whole() -> None:
    assert words("ISO-9001 version 3.14 costs 40") == ["iso-9001", *words("version"), "3.14", *words("costs"), "40"]


def test_cjk_is_compared_by_pairs() -> None:
    assert set(words("東京都")) == {"東京", "京都"}
    assert words("東") == ["東"]


def test_case_folding_is_unicodes() -> None:
    assert words("STRASSE") == words("straße")


def test_there_is_nothing_in_nothing() -> None:
    assert words("") == words(" \n🚢 !?") == []


@given(st.text(max_size=200))
def test_any_text_has_words_that_are_no_stopwords_and_not_empty(text: str) -> None:
    assert all(words(text))
    assert not {w for w in words(text) if w in STOPWORDS and len(w) < 4}


@given(st.text(max_size=100), st.text(max_size=100))
def test_words_of_two_lines_are_those_of_each(one: str, other: str) -> None:
    assert words(f"{one}\n{other}") == words(one) + words(other)
