"""A call of a model under its limits: deadlines that don't blame the provider for others, and the one retry loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from backend.chains.calling import call as call_module
from backend.chains.calling.call import CallLimits, call
from backend.chains.models.prompt import Finish, Output, Parameters, Prompt, Text
from backend.chains.models.provider import bytes_came
from backend.errors import ProviderFailed, ProviderTimeout, RateLimited, RunError, UpstreamStalled

PROMPT = Prompt(system="", history=(), content="hi", question="hi", parameters=Parameters(max_tokens=10))
Step = Text | Finish | float | Exception


class Scripted:
    """A model whose tries are scripts: outputs, pauses in seconds, errors. `closed` counts the streams that ended."""

    writes = True

    def __init__(self, *tries: Sequence[Step]) -> None:
        self._tries = list(tries)
        self.call_count = self.closed = 0

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        self.call_count += 1
        try:
            for step in self._tries[self.call_count - 1]:
                match step:
                    case float():
                        await asyncio.sleep(step)
                    case Exception():
                        raise step
                    case Text() | Finish():
                        yield step
        finally:
            self.closed += 1


def limits(**more: float) -> CallLimits:
    return CallLimits(**{"first_token": 5.0, "idle": 5.0, "total": 30.0, "retry": 5.0, **more})


async def collect_outputs(
    model: Scripted, limits: CallLimits, between: Callable[[], Any] | None = None
) -> list[Output]:
    outputs: list[Output] = []
    async with aclosing(call(model, PROMPT, limits)) as stream:
        async for output in stream:
            outputs.append(output)
            if between is not None:
                await between()
    return outputs


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "_FIRST_PAUSE", 0.01)


async def test_the_first_token_has_a_deadline() -> None:
    model = Scripted([60.0])
    with pytest.raises(ProviderTimeout):
        await collect_outputs(model, limits(first_token=0.05))
    assert (model.call_count, model.closed) == (1, 1), "a slow provider is not asked twice"


async def test_silence_between_outputs_has_a_deadline_shorter_than_the_firsts() -> None:
    model = Scripted([Text("a"), 60.0])
    async with asyncio.timeout(2):
        with pytest.raises(UpstreamStalled):
            await collect_outputs(model, limits(first_token=30, idle=0.05))


async def test_each_output_begins_the_silence_anew() -> None:
    model = Scripted([step for _ in range(6) for step in (Text("a"), 0.04)] + [Finish("stop")])
    assert len(await collect_outputs(model, limits(idle=0.15))) == 7


class Humming(Scripted):
    """Before its script, it hears bytes that are no output: `beats` times, with this pause."""

    def __init__(self, beats: int, pause: float, *tries: Sequence[Step]) -> None:
        super().__init__(*tries)
        self._beats, self._pause = beats, pause

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        for step in ("first", "idle"):
            for _ in range(self._beats):
                bytes_came.get()()
                await asyncio.sleep(self._pause)
            if step == "first":
                yield Text("begun ")
        async for output in super().stream(prompt):
            yield output


async def test_bytes_without_output_are_no_silence() -> None:
    model = Humming(10, 0.02, [Text("a"), Finish("stop")])
    outputs = await collect_outputs(model, limits(first_token=0.1, idle=0.1))
    assert outputs == [Text("begun "), Text("a"), Finish("stop")]


async def test_bytes_without_output_have_the_limit_of_the_whole() -> None:
    model = Humming(1000, 0.02, [Text("a")])
    with pytest.raises(ProviderTimeout, match="TOTAL_TIMEOUT"):
        await collect_outputs(model, limits(first_token=0.1, idle=0.1, total=0.3))


async def test_bytes_of_a_call_that_is_over_concern_nobody() -> None:
    await collect_outputs(Scripted([Text("a"), Finish("stop")]), limits())
    bytes_came.get()()
    await collect_outputs(Scripted([Text("a"), Finish("stop")]), limits())


async def test_the_whole_has_a_deadline_however_lively() -> None:
    model = Scripted([step for _ in range(100) for step in (Text("a"), 0.02)])
    with pytest.raises(ProviderTimeout, match="TOTAL_TIMEOUT"):
        await collect_outputs(model, limits(total=0.15))
    assert model.closed == 1


async def test_time_that_the_reader_takes_is_not_the_providers() -> None:
    model = Scripted([Text("a"), Text("b"), Finish("stop")])
    assert len(await collect_outputs(model, limits(idle=0.03, first_token=0.03), lambda: asyncio.sleep(0.08))) == 3


async def test_a_cancel_from_outside_passes_through() -> None:
    model = Scripted([Text("a"), 60.0])
    task = asyncio.create_task(collect_outputs(model, limits()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.closed == 1


async def test_a_cancel_in_the_same_moment_as_a_deadline_is_a_cancel() -> None:
    model = Scripted([60.0])
    task = asyncio.create_task(collect_outputs(model, limits(first_token=0.02)))
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    cancelled = loop.create_future()
    # Both fall into one turn of the loop, whichever comes first.
    loop.call_later(0.02, lambda: (task.cancel(), cancelled.set_result(None)))
    await asyncio.gather(task, cancelled, return_exceptions=True)
    assert task.cancelled()


async def test_what_passes_is_tried_again_and_nobody_sees_it() -> None:
    model = Scripted([ProviderFailed("x", retry_after=0.0)], [RateLimited("x", retry_after=0.0)], [Text("a")])
    assert await collect_outputs(model, limits()) == [Text("a")]
    assert (model.call_count, model.closed) == (3, 3)


@pytest.mark.parametrize(
    ("first", "limits"),
    [
        ([ProviderFailed("x")], limits()),  # says nothing of another try
        ([Text("a"), ProviderFailed("x", retry_after=0.0)], limits()),  # something was shown already
        ([ProviderFailed("x", retry_after=0.0)], limits(retry=0)),
        ([RateLimited("x", retry_after=60.0)], limits()),  # more than there is
    ],
)
async def test_one_try_only(first: list[Step], limits: CallLimits) -> None:
    model = Scripted(first, [Text("never")])
    with pytest.raises(RunError):
        await collect_outputs(model, limits)
    assert model.call_count == 1


async def test_retry_after_is_waited_for() -> None:
    model = Scripted([RateLimited("x", retry_after=0.2)], [Text("a")])
    loop = asyncio.get_running_loop()
    began = loop.time()
    await collect_outputs(model, limits())
    assert loop.time() - began >= 0.2


async def test_the_budget_ends_it_with_the_last_error() -> None:
    model = Scripted(*[[ProviderFailed("x", retry_after=0.0)]] * 50)
    with pytest.raises(ProviderFailed):
        await collect_outputs(model, limits(retry=0.3))
    assert 3 <= model.call_count <= 8, "pauses double"


async def test_a_first_try_that_took_long_to_fail_still_has_a_second() -> None:
    model = Scripted([0.2, ProviderFailed("x", retry_after=0.0)], [Text("a")])
    assert await collect_outputs(model, limits(retry=0.1)) == [Text("a")]
