"""Which messages a summary stands for, and that what is told fits."""

from hypothesis import given
from hypothesis import strategies as st

from backend.chains.history.fit import count_tokens
from backend.chains.history.summary import (
    MIN_HISTORY_TOKENS,
    count_older_messages,
    is_short_enough,
    shorten_history,
    shorten_summary,
    split_conversation,
)
from backend.chains.models.prompt import Message
from backend.chains.text.tokens import clip, estimate_tokens
from backend.messages import TextPart, encode_parts
from backend.services.conversations.history import past_messages
from backend.storage.conversations.messages import StoredMessage

texts = st.text(min_size=1, max_size=400)
talks = st.lists(st.tuples(texts, texts), max_size=12).map(
    lambda turns: [
        Message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
)


@given(talk=talks, budget=st.integers(MIN_HISTORY_TOKENS, 1200))
def test_after_a_summary_the_rest_and_the_summary_fit(talk: list[Message], budget: int) -> None:
    older = count_older_messages(talk, budget)
    rest = talk[older:]
    assert sum(map(count_tokens, rest)) <= budget // 2
    assert not rest or rest[0].role == "user"
    summary = shorten_summary("word " * 5000, budget)
    messages = shorten_history(summary, rest, budget)
    if budget >= 3 * MIN_HISTORY_TOKENS:
        assert is_short_enough(summary, rest, budget)
        assert messages[2:] == tuple(rest)
    assert [m.role for m in messages] == ["user", "assistant"] * (len(messages) // 2)


@given(talk=talks, budget=st.integers(0, 1200))
def test_what_is_told_is_never_more_than_the_budget(talk: list[Message], budget: int) -> None:
    assert sum(map(count_tokens, shorten_history(None, talk, budget))) <= budget


@given(talk=talks, budget=st.integers(50, 1200))
def test_every_message_is_in_one_piece_in_order(talk: list[Message], budget: int) -> None:
    pieces = split_conversation(talk, budget)
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
        return [past.message for past in past_messages(rows, count)]

    long = talk(*(f"{n:0500}" for n in range(100)))
    assert not is_short_enough(None, long, 2_000)
    assert shorten_history(None, long, 2_000) == tuple(long[-3:])
    assert read == {f"{n:0500}" for n in range(96, 100)}, "those that fit, and the first that doesn't"
    read.clear()
    assert not is_short_enough(None, talk("x" * 50_000), 2_000)
    assert not read, "what takes long is estimated"
