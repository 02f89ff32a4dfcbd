"""Which model is tried when, apart from any server."""

import pytest

from backend import events as ev
from backend.chains.calling import fallback
from backend.chains.calling.fallback import Health, ModelCandidate
from backend.chains.models.prompt import Parameters
from backend.errors import (
    ContentFiltered,
    ContextOverflow,
    ModelNotFound,
    PromptRefused,
    ProviderFailed,
    ProviderRefused,
    RateLimited,
)
from backend.services.runs.fold import RunFold
from tests.unit.chains.calling.test_call import Scripted

FAILED = ProviderFailed("no")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(fallback, "time", ticking := Clock())
    return ticking


def order(health: Health, *names: str) -> list[str]:
    candidates = [ModelCandidate(name, Scripted(), Parameters(max_tokens=1)) for name in names]
    return [candidate.name for candidate in health.order(candidates)]


def test_a_failure_counts_for_its_seconds(clock: Clock) -> None:
    health = Health(30)
    health.record_failure("a/x", FAILED)
    assert order(health, "a/x", "b/y") == ["b/y", "a/x"]
    clock.now += 29.9
    assert health.cooldown_reason("a/x") is FAILED
    clock.now += 0.2
    assert health.cooldown_reason("a/x") is None
    assert order(health, "a/x", "b/y") == ["a/x", "b/y"]


def test_the_order_stays_among_those_that_rest(clock: Clock) -> None:
    health = Health(30)
    for name in ("a/x", "c/z"):
        health.record_failure(name, FAILED)
    assert order(health, "a/x", "b/y", "c/z", "d/w") == ["b/y", "d/w", "a/x", "c/z"]


@pytest.mark.parametrize(
    ("error", "others_rest"),
    [(FAILED, True), (ProviderRefused("key"), True), (RateLimited("slow"), False), (ModelNotFound("no"), False)],
)
def test_whom_a_failure_concerns(clock: Clock, error: ProviderFailed, others_rest: bool) -> None:
    health = Health(30)
    health.record_failure("a/x", error)
    assert health.cooldown_reason("a/x") is error
    assert (health.cooldown_reason("a/other") is not None) is others_rest


@pytest.mark.parametrize("error", [ContextOverflow("long"), ContentFiltered("no"), PromptRefused("bad")])
def test_what_a_prompt_is_to_blame_for(clock: Clock, error: ContextOverflow) -> None:
    health = Health(30)
    health.record_failure("a/x", error)
    assert health.cooldown_reason("a/x") is None


def test_an_answer_ends_the_rest(clock: Clock) -> None:
    health = Health(30)
    health.record_failure("a/x", FAILED)
    health.record_failure("a/x", RateLimited("slow"))
    health.record_success("a/x")
    assert health.cooldown_reason("a/x") is None


@pytest.mark.parametrize(("retry_after", "seconds"), [(None, 30), (5.0, 30), (120.0, 120), (86_400.0, 600)])
def test_a_provider_may_ask_for_longer(clock: Clock, retry_after: float | None, seconds: float) -> None:
    health = Health(30)
    health.record_failure("a/x", RateLimited("slow", retry_after=retry_after))
    clock.now += seconds - 0.1
    assert health.cooldown_reason("a/x") is not None
    clock.now += 0.2
    assert health.cooldown_reason("a/x") is None


def test_without_a_cooldown_nobody_rests(clock: Clock) -> None:
    health = Health(0)
    health.record_failure("a/x", RateLimited("slow", retry_after=60.0))
    assert health.cooldown_reason("a/x") is None


def test_a_caller_that_makes_names_up_fills_no_memory(clock: Clock) -> None:
    health = Health(30)
    for number in range(3000):
        health.record_failure(f"a/{number}", ModelNotFound("no"))
    assert len(health._failures) <= 1000
    assert health.cooldown_reason("a/2999") is not None


def test_a_snapshot_names_the_model_that_answers() -> None:
    started = ev.RunStarted(
        run_id="r", session_id="s", user_message_id="u", message_id="m", model="a/x", v=ev.PROTOCOL_VERSION
    )
    state = RunFold()
    state.apply(started)
    assert state.snapshot(started).model == "a/x"
    state.apply(ev.ModelSwitched(before="a/x", now="b/y", reason="rate_limited"))
    assert state.snapshot(started).model == "b/y"
    later = RunFold()
    later.apply(state.snapshot(started))
    assert later.snapshot(started).model == "b/y"
