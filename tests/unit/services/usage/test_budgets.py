"""BUDGETS as it is written, its periods, and that no prompt is longer than what was put aside for it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.chains.answer.grounding import base_system, grounded_message, system_prompt
from backend.chains.answer.upper_bounds import answer_at_most, passages_at_most, prompt_at_most, rewrite_at_most
from backend.chains.history.fit import fit
from backend.chains.history.follow_up import REWRITE_SYSTEM, rewrite_request
from backend.chains.models.prompt import Image, Message, Parameters, Prompt
from backend.chains.passages import Passage
from backend.config.budgets import Budget, dollars, parse_budgets
from backend.config.settings import Settings, SettingsError

KEYS = "alice:0123456789-alice-0123456789"


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_budgets_are_dollars_in_periods() -> None:
    assert parse_budgets(["alice=5/day", "*=20.5/month", "bob=0.000001/week", "eve=0/day"]) == {
        "alice": Budget(5_000_000, "day"),
        "*": Budget(20_500_000, "month"),
        "bob": Budget(1, "week"),
        "eve": Budget(0, "day"),
    }


@pytest.mark.parametrize(
    "wrong",
    ["alice", "alice=5", "alice=/day", "alice=5/year", "alice=-1/day", "alice=0.0000001/day", "=5/day", "a b=5/day",
     "alice=1e3/day", "alice=$5/day", "**=5/day", "alice=5/day,bob", "alice=nan/day"],
)  # fmt: skip
def test_what_is_no_budget_stops_the_start(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^BUDGETS: must be owner=amount/period"):
        Settings.load(env_file=None, data_dir=tmp_path, budgets=wrong)


def test_an_owner_has_one_budget(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="alice has two budgets"):
        Settings.load(env_file=None, data_dir=tmp_path, budgets="alice=5/day, alice=6/month")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"budgets": "alice=5/day"},
            "BUDGETS: 'alice' is nobody who may call: while API_KEYS is unset, everybody is local",
        ),
        ({"usage_admins": "alice"}, "USAGE_ADMINS: 'alice' is nobody"),
        (
            {"api_keys": KEYS, "budgets": "alice=5/day,bbo=1/day"},
            "BUDGETS: 'bbo' is nobody who may call: API_KEYS has alice",
        ),
        ({"api_keys": KEYS, "usage_admins": "local"}, "USAGE_ADMINS: 'local' is nobody"),
    ],
)
def test_a_name_that_nobody_has_is_no_budget_without_a_word(
    tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.load(env_file=None, data_dir=tmp_path, **settings)
    budgets = {"api_keys": KEYS, "budgets": "alice=5/day,*=1/day", "usage_admins": "alice"}
    assert Settings.load(env_file=None, data_dir=tmp_path, **budgets).usage.usage_admins == ("alice",)


@pytest.mark.parametrize(
    ("period", "now", "since", "until"),
    [
        ("day", "2026-01-31T23:59:59.999", "2026-01-31", "2026-02-01"),
        ("day", "2026-02-01T00:00:00", "2026-02-01", "2026-02-02"),
        ("week", "2026-02-01T12:00:00", "2026-01-26", "2026-02-02"),
        ("week", "2026-02-02T00:00:00", "2026-02-02", "2026-02-09"),
        ("month", "2026-01-31T12:00:00", "2026-01-01", "2026-02-01"),
        ("month", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T00:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_periods_are_the_calendars_in_utc(period: str, now: str, since: str, until: str) -> None:
    budget = Budget(1, period)  # type: ignore[arg-type]
    assert budget.since(ms(now)) == ms(since)
    assert budget.resets_at(ms(now)) == ms(until)


def test_dollars_are_told_exactly() -> None:
    assert [dollars(n) for n in (0, 1, 10_000, 12_500, 5_000_000, 1_234_567)] == [
        "$0.00", "$0.000001", "$0.01", "$0.0125", "$5.00", "$1.234567",
    ]  # fmt: skip


PICTURE = Image("image/png", b"PNG")
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=400)
talks = st.lists(words.filter(bool), max_size=30).map(
    lambda texts: [
        Message("user", text, (PICTURE,) * (len(text) % 3), len(text) % 2) if n % 2 == 0 else Message("assistant", text)
        for n, text in enumerate(texts)
    ]
)
passages = st.lists(
    st.builds(
        Passage, chunk_id=st.just("c"), document_id=st.just("d"), version=st.just("v"), document_name=words, text=words,
        start=st.just(0), end=st.just(0), page=st.none() | st.integers(1, 99_999), heading=st.none() | words,
        score=st.just(1.0),
    ),
    max_size=6,
)  # fmt: skip


@given(words, st.none() | words, talks, st.integers(0, 3_000), passages, st.integers(0, 2))
def test_a_prompt_is_never_longer_than_the_bound_that_is_known_before(
    question: str, system: str | None, history: list[Message], budget: int, passages: list[Passage], images: int
) -> None:
    parameters = Parameters(max_tokens=1, response_schema='{"type": "object"}')
    prompt = Prompt(
        system=system_prompt(system, "passages"),
        history=fit(history, budget),
        content=grounded_message(question, passages),
        question=question,
        parameters=parameters,
        images=(PICTURE,) * images,
    )
    known = (base_system(system), question)
    # Texts of passages may grow a little on their way into the prompt: `rag` looks again, and leaves some out.
    bound = answer_at_most(known, prompt.image_count, parameters.response_schema, budget, passages_at_most(6, 600))
    assert prompt_at_most(prompt) <= bound
    assert prompt_at_most(prompt.without_images()) <= bound
    assert prompt_at_most(prompt) >= len("".join([prompt.system, prompt.content]).encode())


@given(words, talks)
def test_a_rewrite_is_never_longer_than_its_bound(question: str, history: list[Message]) -> None:
    content = rewrite_request(history, question)
    prompt = Prompt(REWRITE_SYSTEM, (), content, question, Parameters(max_tokens=1))
    assert prompt_at_most(prompt) <= rewrite_at_most(question)
