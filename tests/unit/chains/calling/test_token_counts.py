"""What is booked for a call: the provider's counts, unless they can't be true."""

import pytest

from backend.chains.calling.token_counts import settled_tokens
from backend.chains.models.prompt import Tokens


def settled(counted: Tokens | None, visible: int) -> tuple[Tokens, bool]:
    return settled_tokens(counted, visible, lambda: 20, lambda: visible)


@pytest.mark.parametrize(
    ("counted", "visible", "booked"),
    [
        (Tokens(7, 3, reasoning=2), 4, (Tokens(7, 3, reasoning=2), False)),
        (Tokens(7, 0), 0, (Tokens(7, 0), False)),
        (None, 4, (Tokens(20, 4), True)),
        (Tokens(0, 3), 4, (Tokens(20, 3), True)),
        (Tokens(7, 0), 4, (Tokens(7, 4), True)),
        (Tokens(7, 3, is_doubtful=True), 9, (Tokens(7, 9), True)),
        (Tokens(7, 30, is_doubtful=True), 9, (Tokens(7, 30), True)),
        (Tokens(7, 1), 400, (Tokens(7, 400), True)),
    ],
    ids=[
        "counted",
        "an empty answer",
        "not counted",
        "no prompt counted",
        "no output counted",
        "contradictory, too few",
        "contradictory, enough",
        "far too few for the text",
    ],
)
def test_booked(counted: Tokens | None, visible: int, booked: tuple[Tokens, bool]) -> None:
    assert settled(counted, visible) == booked


def test_estimates_are_made_only_if_needed() -> None:
    def never() -> int:
        raise AssertionError

    assert settled_tokens(Tokens(7, 3), 4, never, never) == (Tokens(7, 3), False)
