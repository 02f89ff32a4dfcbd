"""The tokens of a call: what the provider counted, or an estimate in place of what it didn't count."""

from collections.abc import Callable

from backend.chains.models.prompt import Tokens

_FEWEST_RATIO, _SLACK_TOKENS = 10, 50
"""A text that is estimated at more than 10 times the counted tokens and 50 can't have been written with them."""


def settled_tokens(
    counted: Tokens | None, visible: int, input_estimate: Callable[[], int], output_estimate: Callable[[], int]
) -> tuple[Tokens, bool]:
    """The tokens to book, and whether some of them are estimated.

    No prompt has zero tokens, and no text is written with zero tokens: such counts are estimated. If the provider's
    counts contradict each other, or the text, the larger of count and estimate is taken. `visible` is an estimate of
    the tokens of the text that came.
    """
    if counted is None:
        return Tokens(input_estimate(), output_estimate()), True
    is_doubtful = counted.is_doubtful or visible > _FEWEST_RATIO * counted.output + _SLACK_TOKENS
    if counted.input and (counted.output or not visible) and not is_doubtful:
        return counted, False
    read = counted.input or input_estimate()
    written = counted.output
    if is_doubtful or (visible and not written):
        written = max(written, output_estimate())
    return Tokens(read, written, counted.reasoning, counted.cached), True
