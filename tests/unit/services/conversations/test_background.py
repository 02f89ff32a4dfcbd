"""Calls beside the answers: booked whatever becomes of them, few at a time, never in anybody's way."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from backend import events as ev
from backend.chains.calling.call import CallLimits
from backend.chains.calling.fallback import ModelCandidate
from backend.chains.models.prompt import Output, Parameters, Prompt, Text, Tokens
from backend.errors import Conflict, ProviderFailed, ProviderTimeout, UpstreamStalled
from backend.services.conversations.background import BackgroundWriter, ShortText

LIMITS = CallLimits(first_token=5, idle=0.05, total=5, retry=0)
ERRAND = ShortText("alice", "ses_1", "title", "Write.", "Grüße", 50)


class Scripted:
    """A model that yields these, raises what is an exception, and waits forever at None."""

    writes = True

    def __init__(self, *steps: Output | Exception | None) -> None:
        self._steps = steps

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Output]:
        for step in self._steps:
            if step is None:
                await asyncio.get_running_loop().create_future()
            elif isinstance(step, Exception):
                raise step
            else:
                yield step


class Booked:
    """What was booked, and what was put aside for it."""

    def __init__(self) -> None:
        self.usage: list[ev.Usage] = []
        self.bounds: list[tuple[str, str, str, Tokens]] = []

    @asynccontextmanager
    async def __call__(self, owner: str, session_id: str, model: str, bound: Tokens) -> AsyncIterator[list[ev.Usage]]:
        self.bounds.append((owner, session_id, model, bound))
        used: list[ev.Usage] = []
        try:
            yield used
        finally:
            self.usage += used


def candidate_of(model: Scripted, *, hides_reasoning: bool = False) -> ModelCandidate:
    return ModelCandidate("p/m", model, Parameters(max_tokens=1), hides_reasoning)


async def test_a_call_is_booked_as_the_provider_counted_it() -> None:
    booked = Booked()
    model = Scripted(Text(" A ti"), Text("tle\0 "), Tokens(12, 3, cached=2))
    assert await BackgroundWriter(LIMITS, booked).write(ERRAND, candidate_of(model)) == "A title"
    assert booked.usage == [ev.Usage(model="p/m", purpose="title", input_tokens=12, output_tokens=3, cached_tokens=2)]
    ((owner, session_id, name, bound),) = booked.bounds
    assert (owner, session_id, name) == ("alice", "ses_1", "p/m")
    assert bound.input >= len("Write.Grüße".encode())
    assert bound.output == 50


async def test_without_the_providers_count_it_is_estimated() -> None:
    booked = Booked()
    await BackgroundWriter(LIMITS, booked).write(ERRAND, candidate_of(Scripted(Text("A title"))))
    (usage,) = booked.usage
    assert usage.estimated
    assert usage.input_tokens > 0 < usage.output_tokens


@pytest.mark.parametrize("end", [ProviderFailed("It broke off."), None])
async def test_what_breaks_off_is_booked_too(end: Exception | None) -> None:
    booked = Booked()
    with pytest.raises(ProviderFailed if end else UpstreamStalled):
        await BackgroundWriter(LIMITS, booked).write(ERRAND, candidate_of(Scripted(Text("Half a"), end)))
    assert len(booked.usage) == 1


async def test_who_is_waited_for_in_vain_or_stopped_has_read_the_prompt() -> None:
    booked = Booked()
    with pytest.raises(ProviderTimeout):
        await BackgroundWriter(replace(LIMITS, first_token=0.05), booked).write(ERRAND, candidate_of(Scripted(None)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await BackgroundWriter(LIMITS, booked).write(ERRAND, candidate_of(Scripted(None)))
    assert [(use.output_tokens, use.estimated, use.input_tokens > 0) for use in booked.usage] == [(0, True, True)] * 2


@pytest.mark.parametrize(("steps", "tokens"), [((Text("Half a"), None), 50), ((Text("Half a"),), 2)])
async def test_one_that_thinks_out_of_sight_and_is_stopped_may_have_used_it_all(
    steps: tuple[Output | None, ...], tokens: int
) -> None:
    booked = Booked()
    with suppress(UpstreamStalled):
        await BackgroundWriter(LIMITS, booked).write(ERRAND, candidate_of(Scripted(*steps), hides_reasoning=True))
    assert [use.output_tokens for use in booked.usage] == [tokens]


async def test_what_never_began_is_not() -> None:
    booked = Booked()
    with pytest.raises(ProviderFailed):
        await BackgroundWriter(LIMITS, booked).write(ERRAND, candidate_of(Scripted(ProviderFailed("No."))))
    assert booked.usage == []


async def test_a_booking_that_refuses_stops_the_call() -> None:
    @asynccontextmanager
    async def refusing(*_: object) -> AsyncIterator[list[ev.Usage]]:
        raise Conflict("Nothing is left.")
        yield []

    with pytest.raises(Conflict):
        await BackgroundWriter(LIMITS, refusing).write(ERRAND, candidate_of(Scripted(AssertionError("was called"))))


async def test_a_few_at_a_time_and_not_endlessly_many() -> None:
    aside, gate = BackgroundWriter(LIMITS, Booked()), asyncio.Event()
    running = peak = done = 0

    async def work() -> None:
        nonlocal running, peak, done
        running += 1
        peak = max(peak, running)
        await gate.wait()
        running -= 1
        done += 1

    tasks = [aside.schedule(work) for _ in range(150)]
    scheduled = [task for task in tasks if task is not None]
    assert len(scheduled) == 100
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*scheduled)
    assert (peak, done) == (4, 100)
    assert aside.schedule(work) is not None, "there is room again"
    await aside.close()


async def test_what_fails_in_the_background_harms_nobody() -> None:
    aside = BackgroundWriter(LIMITS, Booked())

    async def fails(error: Exception) -> None:
        raise error

    tasks = [aside.schedule(lambda error=error: fails(error)) for error in (ProviderFailed("No."), ValueError("a bug"))]
    for task in tasks:
        assert task is not None
        await task


async def test_closing_ends_what_is_under_way_and_what_waits() -> None:
    aside = BackgroundWriter(LIMITS, Booked())
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    tasks = [aside.schedule(work) for _ in range(6)]
    await asyncio.sleep(0)
    await aside.close()
    assert len(ended) == 4
    for task in tasks:
        assert task is not None
        with suppress(asyncio.CancelledError):
            await task
        assert task.done()
