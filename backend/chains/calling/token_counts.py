"""The tokens of a call: what the provider counted, or an estimate in place of what it didn't count."""

from collections.abc import Callable
from dataclasses import replace

from backend.chains.models.prompt import Tokens


def settled_tokens(
    counted: Tokens | None, visible: int, input_estimate: Callable[[], int], output_estimate: Callable[[], int]
) -> tuple[Tokens, bool]:
    """The tokens to book, and whether some of them are estimated.

    No prompt has zero tokens, and no text is written with zero tokens: such counts are estimated. If the provider's
    counts contradict each other, the larger of count and estimate is taken. `visible` is an estimate of the tokens of
    the text that came.
    """
    if counted is None:
        return Tokens(input_estimate(), output_estimate()), True
    if counted.input and (counted.output or not visible) and not counted.is_doubtful:
        return counted, False
    read = counted.input or input_estimate()
    written = counted.output
    if counted.is_doubtful or (visible and not written):
        written = max(written, output_estimate())
    return replace(counted, input=read, output=written, is_doubtful=False), True
