"""Which messages a summary stands for, and that what is told fits."""

from hypothesis import given
from hypothesis import strategies as st

from backend.chains import memory
from backend.chains.conversation import clip, cost, estimate_tokens
from backend.chains.models.base import Message

texts = st.text(min_size=1, max_size=400)
talks = st.lists(st.tuples(texts, texts), max_size=12).map(
    lambda turns: [
        Message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
)


@given(talk=talks, budget=st.integers(memory.LEAST_BUDGET, 1200))
def test_after_a_summary_the_rest_and_the_summary_fit(talk: list[Message], budget: int) -> None:
    older = memory.older(talk, budget)
    rest = talk[older:]
    assert sum(map(cost, rest)) <= budget // 2
    assert not rest or rest[0].role == "user"
    summary = memory.shortened("word " * 5000, budget)
    told = memory.recalled(summary, rest, budget)
    if budget >= 3 * memory.LEAST_BUDGET:
        assert memory.fits(summary, rest, budget)
        assert told[2:] == tuple(rest)
    assert [m.role for m in told] == ["user", "assistant"] * (len(told) // 2)


@given(talk=talks, budget=st.integers(0, 1200))
def test_what_is_told_is_never_more_than_the_budget(talk: list[Message], budget: int) -> None:
    assert sum(map(cost, memory.recalled(None, talk, budget))) <= budget


@given(talk=talks, budget=st.integers(50, 1200))
def test_every_message_is_in_one_piece_in_order(talk: list[Message], budget: int) -> None:
    pieces = memory.pieces(talk, budget)
    assert "\n\n".join(pieces) == "\n\n".join(f"{m.role}: {m.text}" for m in talk)
    assert all(pieces)


@given(text=st.text(), tokens=st.integers(0, 100))
def test_a_clipped_text_is_a_beginning_that_fits(text: str, tokens: int) -> None:
    clipped = clip(text, tokens)
    assert estimate_tokens(clipped) <= tokens
    assert text.startswith(clipped)
