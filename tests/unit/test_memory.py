"""Which messages a summary stands for, and that what is told fits."""

from hypothesis import given
from hypothesis import strategies as st

from backend.chains import memory
from backend.chains.conversation import clip, cost, estimate_tokens
from backend.chains.models.base import Message
from backend.services.memory import said_of
from backend.services.run_state import TextPart, encode_parts
from backend.storage.turns import StoredMessage

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


def test_a_tokenizer_reads_only_what_may_fit() -> None:
    read: set[str] = set()

    def count(text: str) -> int:
        read.add(text)
        return len(text)

    def talk(*texts: str) -> list[Message]:
        rows = [StoredMessage(text, "user", "complete", encode_parts([TextPart(text=text)])) for text in texts]
        return [each.message for each in said_of(rows, count)]

    long = talk(*(f"{n:0500}" for n in range(100)))
    assert not memory.fits(None, long, 2_000)
    assert memory.recalled(None, long, 2_000) == tuple(long[-3:])
    assert read == {f"{n:0500}" for n in range(96, 100)}, "those that fit, and the first that doesn't"
    read.clear()
    assert not memory.fits(None, talk("x" * 50_000), 2_000)
    assert not read, "what takes long is estimated"
