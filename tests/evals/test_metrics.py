"""The figures of the evaluation, against ones worked out by hand."""

import math

import pytest

from evals import answers, metrics
from evals.client import Answer
from evals.compare import differences, mean
from evals.metrics import Passage
from evals.questions import Place, Question
from evals.spans import Text, shared, size, union


def passage(document: str, start: int, end: int, page: int | None = None) -> Passage:
    return Passage(document, start, end, page)


# --- spans


def test_a_union_has_each_character_once() -> None:
    assert union([(8, 10), (0, 4), (3, 6), (10, 12), (20, 20)]) == [(0, 6), (8, 12)]
    assert size(union([(0, 4), (3, 6)])) == 6


def test_shared_characters_are_counted_once() -> None:
    assert shared([(0, 10), (5, 12)], [(8, 20), (9, 11)]) == 4


def test_a_piece_is_found_whatever_white_space_it_has() -> None:
    text = Text("One  two\nthree.\n\nOne two three.")
    assert [text.text[start:end] for start, end in text.find(" One two three.\n")] == [
        "One  two\nthree.",
        "One two three.",
    ]
    assert text.find("four") == []
    assert text.find("   ") == []


# --- a search

TEN = Place("a", ((100, 200),))


def test_characters_of_one_place() -> None:
    """60 of 100 characters are in 120 + 80 retrieved ones."""
    got = [passage("a", 40, 160), passage("b", 0, 80)]
    assert metrics.characters([TEN], got) == (0.6, 0.3)


def test_what_is_retrieved_twice_is_gained_once_and_paid_twice() -> None:
    got = [passage("a", 100, 200), passage("a", 100, 200)]
    assert metrics.characters([TEN], got) == (1.0, 0.5)


def test_of_a_text_that_stands_in_several_places_the_best_found_one_counts() -> None:
    place = Place("a", ((0, 10), (500, 510)))
    assert metrics.characters([place], [passage("a", 500, 520)]) == (1.0, 0.5)


def test_a_budget_takes_passages_that_fit_whole_and_counts_repeats_once() -> None:
    got = [passage("a", 0, 100), passage("a", 50, 130), passage("b", 0, 90), passage("c", 0, 20)]
    assert metrics.within(got, 150) == [got[0], got[1], got[3]]


def test_a_first_passage_beyond_the_budget_is_cut() -> None:
    assert metrics.within([passage("a", 10, 100), passage("b", 0, 5)], 50) == [passage("a", 10, 60)]


def test_ndcg_and_mrr_by_hand() -> None:
    """Two places, found at ranks 2 and 3."""
    question = Question("?", (TEN, Place("b", ((0, 10),))))
    got = [passage("c", 0, 9), passage("a", 0, 150), passage("b", 0, 10), passage("a", 90, 210)]
    found = metrics.figures(question, got)
    assert found["nDCG@10"] == pytest.approx((1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3)))
    assert found["MRR@10"] == 0.5


def test_less_than_half_of_a_place_does_not_find_it() -> None:
    assert metrics.credits([TEN], [passage("a", 0, 149), passage("a", 0, 150)]) == [0, 1]


def test_a_place_is_credited_once_and_two_at_once_count_both() -> None:
    places = [TEN, Place("a", ((210, 220),))]
    got = [passage("a", 90, 230), passage("a", 90, 230)]
    assert metrics.credits(places, got) == [2, 0]
    assert metrics.ndcg([2, 0], 2) == 1.0


def test_a_short_ranking_is_measured_against_all_that_is_due() -> None:
    assert metrics.ndcg([1], 2) == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_whole_documents_are_ranked_by_their_first_passage() -> None:
    question = Question("?", (Place("b"), Place("z")))
    got = [passage("a", 0, 9), passage("a", 9, 20), passage("b", 0, 5), passage("b", 5, 9)]
    found = metrics.figures(question, got, k=2)
    assert found["recall@2"] == 0.5
    assert found["MRR@10"] == 0.5
    assert "precision@2" not in found
    again = [passage("b", 0, 5), passage("a", 0, 9), passage("b", 5, 9)]
    assert metrics.figures(question, again)["MRR@10"] == 1.0


def test_a_page_is_hit_by_a_passage_that_begins_on_it() -> None:
    question = Question("?", (Place("a", page=3),))
    got = [passage("a", 0, 9, 2), passage("b", 0, 9, 3), passage("a", 10, 20, 3)]
    assert metrics.figures(question, got, k=2)["page hit@2"] == 0
    assert metrics.figures(question, got, k=3)["page hit@3"] == 1


def test_nothing_found_is_nothing_gained() -> None:
    found = metrics.figures(Question("?", (TEN,)), [])
    assert set(found.values()) == {0.0}


def test_an_unanswerable_question_has_no_figures_of_a_search() -> None:
    with pytest.raises(ValueError, match="unanswerable"):
        metrics.figures(Question("?"), [])


# --- answers


def test_citations_by_hand() -> None:
    """One of two quotes is right, and backs one of two places."""
    question = Question("?", (TEN, Place("b", ((0, 10),))))
    found = answers.figures(question, Answer([passage("a", 190, 260), passage("a", 0, 50)]))
    assert found == {"citation precision": 0.5, "citation recall": 0.5, "wrongly declined": 0.0, "quoted in two": 0.0}


def test_two_quotes_may_hold_a_place_together_and_a_third_comes_too_late() -> None:
    question = Question("?", (TEN,))
    halves = [passage("a", 100, 130), passage("a", 140, 165)]
    assert answers.figures(question, Answer(halves))["quoted in two"] == 1
    late = [passage("b", 0, 9), passage("a", 100, 120), passage("a", 100, 200)]
    assert answers.figures(question, Answer(late))["quoted in two"] == 0


def test_evidence_is_what_should_be_quoted_where_it_is_known() -> None:
    question = Question("?", (Place("a"),), evidence=(TEN,))
    assert answers.figures(question, Answer([passage("a", 0, 50)]))["quoted in two"] == 0
    assert answers.figures(question, Answer([passage("a", 100, 160)]))["quoted in two"] == 1
    assert "quoted in two" not in answers.figures(Question("?", (Place("a"),)), Answer())


def test_declining_is_right_or_wrong() -> None:
    assert answers.figures(Question("?"), Answer(text="No.")) == {"rightly declined": 1.0}
    assert answers.figures(Question("?"), Answer([passage("a", 0, 9)])) == {"rightly declined": 0.0}
    found = answers.figures(Question("?", (TEN,)), Answer(text="No."))
    assert found["wrongly declined"] == 1.0
    assert "citation precision" not in found


def test_a_citation_of_a_page_or_a_document() -> None:
    assert answers.supports(passage("a", 0, 9, 3), Place("a", page=3))
    assert not answers.supports(passage("a", 0, 9, 2), Place("a", page=3))
    assert answers.supports(passage("a", 0, 9), Place("a"))
    assert not answers.supports(passage("b", 0, 9), Place("a"))


# --- comparing


def test_means_leave_out_questions_that_lack_a_figure() -> None:
    assert mean([{"a": 1.0}, {"a": 0.0, "b": 0.5}, {}]) == {"a": 0.5, "b": 0.5}


def test_the_same_gain_everywhere_is_certain() -> None:
    gap = differences([{"a": 0.25}] * 30, [{"a": 0.5}] * 30)["a"]
    assert (gap.first, gap.second, gap.low, gap.high, gap.questions) == (0.25, 0.5, 0.25, 0.25, 30)
    assert gap.certain


def test_gains_that_cancel_out_are_not_certain() -> None:
    """Gains of +1 and -1, 50 each: the mean's standard error is 0.1, so the interval is about -0.2 to 0.2."""
    first, second = [{"a": 0.0}, {"a": 1.0}] * 50, [{"a": 1.0}, {"a": 0.0}] * 50
    gap = differences(first, second)["a"]
    assert not gap.certain
    assert gap.low == pytest.approx(-0.196, abs=0.03)
    assert gap.high == pytest.approx(0.196, abs=0.03)


def test_only_what_both_have_is_compared() -> None:
    gaps = differences([{"a": 1.0}, {"b": 1.0}], [{"a": 0.0}, {"a": 1.0}])
    assert list(gaps) == ["a"]
    assert gaps["a"].questions == 1
