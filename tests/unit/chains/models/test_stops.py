"""An answer ends before a text, however the provider cuts it."""

from collections.abc import AsyncGenerator

import pytest

from backend.chains.models._stops import ended_before
from backend.chains.models.prompt import Finish, Output, Reasoning, Text, Tokens


async def stream(*outputs: Output) -> AsyncGenerator[Output]:
    for output in outputs:
        yield output


async def collect(stops: list[str], *outputs: Output) -> tuple[str, list[Output]]:
    found = [output async for output in ended_before(stream(*outputs), stops)]
    return "".join(o.text for o in found if isinstance(o, Text)), [o for o in found if not isinstance(o, Text)]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_wherever_the_text_is_cut(size: int) -> None:
    text = "One. STOP Two."
    pieces = [Text(text[at : at + size]) for at in range(0, len(text), size)]
    assert await collect(["STOP", "Two"], *pieces, Finish("length")) == ("One. ", [Finish("stop")])


async def test_what_only_begins_like_it_stays() -> None:
    end = [Tokens(1, 2), Finish("stop")]
    assert await collect(["STOP"], Text("a ST"), Text("AR ST"), *end) == ("a STAR ST", end)


async def test_reasoning_ends_nothing() -> None:
    assert await collect(["STOP"], Reasoning("STOP"), Text("a"), Finish("stop")) == (
        "a",
        [Reasoning("STOP"), Finish("stop")],
    )


async def test_the_first_one_counts() -> None:
    assert (await collect(["b", "a"], Text("xab")))[0] == "x"
