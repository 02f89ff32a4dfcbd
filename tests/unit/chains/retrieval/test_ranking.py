"""Ranking: by hand where the figures are short, by property where they aren't."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.chains.retrieval.ranking import (
    ChunkCandidate,
    Query,
    RankedPassage,
    Sentence,
    neighbour_scores,
    rank_chunks,
    rank_sentences,
    rerank,
    select_passages,
    select_sentences,
    word_weights,
)

EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
BETWEEN = np.array([0.6, 0.8], np.float32)
Runs = list[tuple[str, list[list[Sentence]]]]


def candidate(
    n: int, *sentences: str, document: str = "doc_1", about: str = "", near: Sequence[object] = (), bm25: float = 0.0
) -> ChunkCandidate:
    """A chunk of these sentences; `near` are its vectors, its own and its sentences' (else: all to the north)."""
    vectors = np.stack([np.asarray(v, np.float32) for v in near or [NORTH] * (len(sentences) + 1)])
    said = [frozenset(s.split()) for s in sentences]
    return ChunkCandidate(n, document, frozenset(about.split()).union(*said), said, vectors, [bm25])


# --- chunks


def test_the_scores_of_chunks_by_hand() -> None:
    """A is closest and has both words, B is at 0.6 and has the rarer one, C is off."""
    a = candidate(1, "rent due", near=[EAST, EAST], bm25=4.0)
    b = candidate(5, "rent", near=[BETWEEN, BETWEEN], bm25=1.0)
    c = candidate(9, "cat")
    ranked = rank_chunks([c, b, a], [Query(EAST, ["rent", "due"])])
    assert [x.n for x in ranked] == [1, 5, 9]
    # Two of three have `rent`, one has `due`: log(1 + 1.5 / 2.5) and log(1 + 2.5 / 1.5).
    rent = math.log(1.6) / (math.log(1.6) + math.log(1 + 2.5 / 1.5))
    assert (a.dense, a.closest, a.bm25) == (1.0, 1.0, 4.0)
    assert a.coverage == pytest.approx(1) and b.coverage == pytest.approx(rent)
    # 0.3 for the chunk, 0.2 for its closest sentence, 0.5 for BM25, 0.3 for the words; no neighbours: by 1.1.
    assert a.score == pytest.approx(1 / 1.1, rel=1e-5)
    assert b.score == pytest.approx((0.3 * 0.6 + 0.2 * 0.6 + 0.5 * 0.25 + 0.3 * rent) / 1.3 / 1.1, rel=1e-5)
    assert c.score == 0
    assert a.relevance == pytest.approx(1.5) and b.relevance == pytest.approx(0.6 + 0.5 * rent)


def test_a_sentence_that_is_closer_than_its_chunk_counts() -> None:
    chunk = candidate(1, "one", "two", near=[BETWEEN, NORTH, EAST])
    rank_chunks([chunk], [Query(EAST, [])])
    assert (chunk.dense, chunk.closest) == (pytest.approx(0.6), 1.0)
    assert chunk.relevance == 1.0


def test_what_points_the_other_way_is_not_worse_than_nothing() -> None:
    (chunk,) = rank_chunks([candidate(1, "one", near=[-EAST, -EAST])], [Query(EAST, ["no"])])
    assert (chunk.score, chunk.relevance) == (0, 0)


def test_without_a_vector_the_words_alone_decide() -> None:
    near, worded = candidate(1, "cat", near=[EAST, EAST]), candidate(5, "rent", bm25=2.0)
    assert [c.n for c in rank_chunks([near, worded], [Query(None, ["rent"])])] == [5, 1]
    assert (near.score, near.dense, near.closest) == (0, 0, 0)


def test_without_terms_the_meaning_alone_decides() -> None:
    near, worded = candidate(1, "cat", near=[EAST, EAST]), candidate(5, "rent")
    assert [c.n for c in rank_chunks([worded, near], [Query(EAST, [])])] == [1, 5]
    assert (worded.score, worded.coverage) == (0, 0)


def test_a_neighbour_lends_a_chunk_a_tenth_and_only_one_of_the_same_document() -> None:
    def score_beside(document: str, n: int) -> float:
        strong = candidate(n, "rent", document=document, near=[EAST, EAST], bm25=1.0)
        weak = candidate(2, "cat")
        rank_chunks([strong, weak], [Query(EAST, ["rent"])])
        return weak.score

    assert score_beside("doc_1", 1) == score_beside("doc_1", 3) == pytest.approx(0.1 / 1.1)
    assert score_beside("doc_1", 4) == 0
    assert score_beside("doc_2", 1) == score_beside("doc_2", 3) == 0


def test_queries_count_by_their_weights() -> None:
    def best(weight: float) -> int:
        one, other = candidate(1, "one", near=[EAST, EAST]), candidate(5, "other", near=[NORTH, NORTH])
        for chunk in (one, other):
            chunk.lexical = [0.0, 0.0]
        return rank_chunks([other, one], [Query(EAST, []), Query(NORTH, [], weight)])[0].n

    assert (best(0.3), best(3.0)) == (1, 5)


def test_a_query_of_little_weight_makes_nothing_relevant() -> None:
    chunk = candidate(1, "one")
    chunk.lexical = [0.0, 0.0]
    rank_chunks([chunk], [Query(EAST, []), Query(NORTH, ["one"], 0.3)])
    assert chunk.relevance == 0
    assert chunk.score > 0


def test_nothing_ranks_as_nothing() -> None:
    assert rank_chunks([], [Query(EAST, ["rent"])]) == []
    assert neighbour_scores([]) == {}
    assert select_passages([], {}, 400, 5) == select_sentences([], 400, 5) == []


# --- reranked chunks


def ranked_by_fusion(*scores: float) -> list[ChunkCandidate]:
    chunks = [candidate(10 * n, "x") for n in range(1, len(scores) + 1)]
    for chunk, score in zip(chunks, scores, strict=True):
        chunk.score = score
    return chunks


def test_a_rerankers_scores_are_stretched_from_0_to_1_and_order_what_it_was_shown() -> None:
    reranked = rerank(ranked_by_fusion(0.9, 0.8, 0.7, 0.6), {10: -4.0, 20: 6.0, 30: 1.0})
    assert [c.n for c in reranked] == [20, 30, 10, 40]
    assert [c.score for c in reranked] == [1.0, 0.5, 0.0, 0.0]
    assert [c.reranker for c in reranked] == [6.0, 1.0, -4.0, None]


def test_what_a_reranker_was_not_shown_keeps_its_order_behind() -> None:
    reranked = rerank(ranked_by_fusion(0.9, 0.8, 0.7, 0.6), {10: 1.0, 20: 2.0})
    assert [c.n for c in reranked] == [20, 10, 30, 40]


@pytest.mark.parametrize("scores", [{}, {10: 0.3}, {10: 0.3, 20: 0.3, 30: 0.3}])
def test_a_reranker_that_sees_no_difference_makes_none(scores: dict[int, float]) -> None:
    reranked = rerank(ranked_by_fusion(0.9, 0.8, 0.7), scores)
    assert [(c.n, c.score, c.reranker) for c in reranked] == [
        (n, score, scores.get(n)) for n, score in ((10, 0.9), (20, 0.8), (30, 0.7))
    ]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12), st.data())
def test_any_finite_scores_give_an_order_from_1_to_0(fused: list[float], data: st.DataObject) -> None:
    chunks = ranked_by_fusion(*sorted(fused, reverse=True))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    scores = data.draw(st.dictionaries(st.sampled_from([c.n for c in chunks]), finite)) if chunks else {}
    reranked = rerank(chunks, scores)
    assert sorted(c.n for c in reranked) == [c.n for c in chunks]
    assert [c.score for c in reranked] == sorted((c.score for c in reranked), reverse=True)
    assert all(0 <= c.score <= 1 for c in reranked)
    shown = [scores[c.n] for c in reranked if c.n in scores]
    assert len(set(shown)) < 2 or shown == sorted(shown, reverse=True)


@st.composite
def candidates(draw: st.DrawFn, queries: int) -> list[ChunkCandidate]:
    found: list[ChunkCandidate] = []
    for n in draw(st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=12)):
        bags = draw(st.lists(st.frozensets(st.sampled_from("abcdef")), min_size=1, max_size=4))
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        vectors = random.normal(size=(len(bags) + 1, 4)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        lexical = draw(st.lists(st.floats(0, 30), min_size=queries, max_size=queries))
        about = draw(st.frozensets(st.sampled_from("abcdef")))
        found.append(ChunkCandidate(n, f"doc_{n // 10}", about.union(*bags), bags, vectors, lexical))
    return found


@st.composite
def searches(draw: st.DrawFn) -> tuple[list[ChunkCandidate], list[Query]]:
    count = draw(st.integers(1, 3))
    queries = [
        Query(
            draw(st.sampled_from([None, np.array([1, 0, 0, 0], np.float32), np.full(4, 0.5, np.float32)])),
            draw(st.lists(st.sampled_from("abcxyz"), unique=True)),
            draw(st.sampled_from([0.3, 1.0, 2.0])),
        )
        for _ in range(count)
    ]
    return draw(candidates(count)), queries


@settings(deadline=None)
@given(searches())
def test_scores_are_from_0_to_1_best_first_and_the_same_in_any_order(
    search: tuple[list[ChunkCandidate], list[Query]],
) -> None:
    chunks, queries = search
    ranked = rank_chunks(chunks, queries)
    scores = [c.score for c in ranked]
    assert sorted(c.n for c in ranked) == sorted(c.n for c in chunks)
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 + 1e-6 for score in scores)
    assert all(0 <= c.relevance <= 1.5 + 1e-6 and 0 <= c.coverage <= 1 + 1e-6 for c in ranked)
    again = {c.n: c.score for c in rank_chunks(chunks[::-1], queries)}
    assert all(again[c.n] == pytest.approx(score, abs=1e-6) for c, score in zip(ranked, scores, strict=True))


@settings(deadline=None)
@given(searches())
def test_sentences_keep_their_order_and_score_from_0_to_1(search: tuple[list[ChunkCandidate], list[Query]]) -> None:
    chunks, queries = search
    ranked = rank_chunks(chunks, queries)
    words = word_weights(queries, ranked)
    assert sum(words.values()) <= 1 + 1e-6
    for chunk in ranked:
        spans = [(at * 50, at * 50 + 40) for at in range(len(chunk.sentences))]
        found = rank_sentences(chunk, spans, chunk.score, queries, words)
        assert [(s.n, s.start, s.end) for s in found] == [(chunk.n, *span) for span in spans]
        assert all(0 <= s.score <= 1 + 1e-6 for s in found)
        assert [s.terms for s in found] == chunk.sentences


# --- sentences


def test_the_scores_of_sentences_by_hand() -> None:
    chunk = candidate(1, "rent", "", near=[BETWEEN, EAST, NORTH])
    query = Query(EAST, ["rent"])
    first, second = rank_sentences(chunk, [(0, 60), (61, 301)], 0.5, [query], {"rent": 1.0})
    # 1.2 for closeness, 1.0 for words, 2.0 for the chunk, 0.2 for length.
    top = 1.2 + 1.0 + 2.0 + 0.2
    assert first.score == pytest.approx((1.2 + 1.0 + 2.0 * 0.5 + 0.2 * 0.5) / top, rel=1e-5)
    assert second.score == pytest.approx((2.0 * 0.5 + 0.2) / top, rel=1e-5)
    assert (first.terms, second.terms) == ({"rent"}, frozenset())


def test_the_words_of_several_queries_count_by_their_weights() -> None:
    chunks = [candidate(1, "rent due"), candidate(5, "cat"), candidate(9, "cat")]
    queries = [Query(None, ["rent"]), Query(None, ["rent", "cat"], 0.5), Query(NORTH, [], 0.5)]
    # One of three has `rent`, two have `cat`: log(1 + 2.5 / 1.5) and log(1 + 1.5 / 2.5).
    rent = math.log(1 + 2.5 / 1.5) / (math.log(1 + 2.5 / 1.5) + math.log(1.6))
    assert word_weights(queries, chunks) == pytest.approx({"rent": 0.5 + 0.25 * rent, "cat": 0.25 * (1 - rent)})
    near = [BETWEEN, BETWEEN]
    (sentence,) = rank_sentences(candidate(1, "cat", near=near), [(0, 120)], 0.0, [Query(EAST, []), *queries[1:]], {})
    # Closeness is 0.6 to the first query, 0.8 to the last, and nothing to one without a vector.
    assert sentence.score == pytest.approx((1.2 * (0.6 + 0.5 * 0.8) / 2 + 0.2) / 4.4, rel=1e-5)


def test_a_model_with_one_vector_a_text_says_of_each_sentence_what_it_says_of_the_chunk() -> None:
    chunk = candidate(1, "one", "two", near=[EAST])
    near, off = (rank_sentences(chunk, [(0, 40), (41, 81)], 0.5, [Query(vector, [])], {}) for vector in (EAST, NORTH))
    assert near[0].score == near[1].score > off[0].score == off[1].score


def test_the_numbers_around_the_five_best_take_part_at_four_fifths() -> None:
    ranked = [candidate(10 * n, "x") for n in range(1, 8)]
    for place, chunk in enumerate(ranked):
        chunk.score = 0.5 - 0.05 * place
    scores = neighbour_scores(ranked)
    assert scores["doc_1", 10] == 1.0
    assert scores["doc_1", 9] == scores["doc_1", 11] == pytest.approx(0.8)
    assert scores["doc_1", 50] == pytest.approx(0.6)
    assert scores["doc_1", 51] == pytest.approx(0.48)
    assert scores["doc_1", 61] == 0.0


def test_a_neighbour_that_was_found_keeps_its_own_score_where_that_is_higher() -> None:
    best, beside, behind = candidate(1, "x"), candidate(2, "x"), candidate(3, "x")
    best.score, beside.score, behind.score = 0.5, 0.45, 0.1
    scores = neighbour_scores([best, beside, behind])
    assert scores["doc_1", 2] == pytest.approx(0.9)
    assert scores["doc_1", 3] == pytest.approx(0.8 * 0.9)


# --- passages


@st.composite
def documents(draw: st.DrawFn) -> Runs:
    """Runs of sentences as a search makes them: in order, numbers of chunks that go up, white space between."""
    found: Runs = []
    n = 0
    for document in range(draw(st.integers(1, 3))):
        runs: list[list[Sentence]] = []
        at = 0
        for _ in range(draw(st.integers(1, 3))):
            run: list[Sentence] = []
            for _ in range(draw(st.integers(1, 8))):
                start = at + draw(st.integers(0, 5))
                at = start + draw(st.integers(1, 200))
                run.append(Sentence(n, start, at, draw(st.floats(0, 1)), draw(st.frozensets(st.sampled_from("abc")))))
                n += draw(st.booleans())
            runs.append(run)
            n += 2
            at += 100
        found.append((f"doc_{document}", runs))
    return found


def check_runs(spans: list[RankedPassage], runs: Runs, count: int) -> None:
    """What holds of every choice: passages are runs of sentences, apart from each other, at most `count`."""
    assert len(spans) <= count
    taken: set[tuple[int, int]] = set()
    for span in spans:
        owner, run = next((d, r) for d, rs in runs for r in rs if span.sentences[0] in r)
        first = run.index(span.sentences[0])
        assert span.sentences == run[first : first + len(span.sentences)]
        assert (span.document_id, span.start, span.end) == (owner, span.sentences[0].start, span.sentences[-1].end)
        assert span.best in span.sentences
        assert span.best.score == max(s.score for s in span.sentences)
        own = {(s.n, s.start) for s in span.sentences}
        assert not own & taken
        taken |= own
    scores = [span.score for span in spans]
    assert scores == sorted(scores, reverse=True)


@given(documents(), st.integers(20, 600), st.integers(1, 30))
def test_passages_are_runs_of_sentences_apart_and_no_wider_than_asked(runs: Runs, width: int, count: int) -> None:
    spans = select_passages(runs, {"a": 0.7, "b": 0.3}, width, count)
    check_runs(spans, runs, count)
    assert spans, "there is a sentence, so there is a passage"
    assert all(span.end - span.start <= width or len(span.sentences) == 1 for span in spans)
    inside = {(s.n, s.start) for span in spans for s in span.sentences}
    every = {(s.n, s.start) for _, rs in runs for run in rs for s in run}
    assert len(spans) == count or inside == every, "as many as there are"


@given(documents(), st.integers(1, 1200), st.integers(1, 30))
def test_a_budget_is_never_exceeded(runs: Runs, budget: int, count: int) -> None:
    spans = select_sentences(runs, budget, count)
    check_runs(spans, runs, count)
    assert sum(span.end - span.start for span in spans) <= budget


@given(documents())
def test_a_budget_for_all_of_it_gives_all_of_it(runs: Runs) -> None:
    every = [run for _, rs in runs for run in rs]
    whole = sum(run[-1].end - run[0].start for run in every)
    spans = select_sentences(runs, whole, len(every))
    assert sorted((s.sentences[0].n, s.start, s.end) for s in spans) == sorted(
        (run[0].n, run[0].start, run[-1].end) for run in every
    )


def run_of(*sentences: tuple[int, int, float]) -> list[Sentence]:
    """Sentences (start, end, score) of one chunk."""
    return [Sentence(1, start, end, score) for start, end, score in sentences]


def test_a_passage_grows_towards_the_better_side_while_it_is_good_enough() -> None:
    run = run_of((0, 50, 0.5), (51, 100, 0.61), (101, 150, 1.0), (151, 200, 0.7), (201, 250, 0.59))
    assert [(s.start, s.end) for s in select_passages([("doc_1", [run])], {}, 1000, 1)] == [(51, 200)]
    assert [(s.start, s.end) for s in select_passages([("doc_1", [run])], {}, 100, 1)] == [(101, 200)]


def test_passages_are_ranked_by_the_words_that_they_hold_as_a_whole_however_few_are_asked_for() -> None:
    words = {"rent": 0.6, "due": 0.4}
    one = [Sentence(1, 0, 50, 1.0, frozenset({"rent"}))]
    two = [Sentence(5, 0, 50, 0.98, frozenset({"rent"})), Sentence(5, 51, 100, 0.9, frozenset({"due", "rent"}))]
    both = select_passages([("doc_1", [one, two])], words, 1000, 5)
    assert [(s.sentences[0].n, s.score) for s in both] == [
        (5, pytest.approx((0.98 + 0.1 * 1.0) / 1.1)),
        (1, pytest.approx((1.0 + 0.1 * 0.6) / 1.1)),
    ]
    assert [s.best for s in both] == [two[0], one[0]]
    assert select_passages([("doc_1", [one, two])], words, 1000, 1) == both[:1]


def test_a_passage_may_begin_in_one_chunk_and_end_in_the_next_but_not_jump_a_gap() -> None:
    run = [Sentence(1, 0, 40, 0.9), Sentence(2, 41, 80, 1.0)]
    (span,) = select_passages([("doc_1", [run])], {}, 400, 5)
    assert (span.start, span.end, span.best.n) == (0, 80, 2)
    apart = select_passages([("doc_1", [[run[0]], [run[1]]])], {}, 400, 5)
    assert [(s.start, s.end) for s in apart] == [(41, 80), (0, 40)]


def test_a_budget_takes_the_best_sentences_and_passes_over_one_that_is_too_long() -> None:
    run = run_of((0, 50, 0.5), (52, 100, 0.9), (101, 401, 0.8), (402, 452, 0.7))
    spans = select_sentences([("doc_1", [run])], 150, 5)
    # 48, then 300 is too much, then 50, then 50 and the two blanks before the first: 150.
    assert [(s.start, s.end) for s in spans] == [(0, 100), (402, 452)]
    spans = select_sentences([("doc_1", [run])], 149, 5)
    assert [(s.start, s.end) for s in spans] == [(52, 100), (402, 452)]


def test_a_budget_is_spent_on_as_many_passages_as_are_asked_for() -> None:
    run = run_of((0, 50, 1.0), (50, 100, 0.5), (100, 150, 0.9), (200, 250, 0.8))
    assert [(s.start, s.end) for s in select_sentences([("doc_1", [run[:3]]), ("doc_2", [run[3:]])], 150, 1)] == [
        (0, 150)
    ]
