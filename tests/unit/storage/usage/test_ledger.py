"""The ledger in the database: what is put aside and booked, also by many at once."""

import asyncio

import pytest

from backend.config.budgets import Budget
from backend.errors import BudgetExceeded
from backend.kit.times import now_ms
from backend.storage.engine.database import Database
from backend.storage.usage.ledger import CallFilter, Ledger, NewCall
from backend.storage.usage.reservations import Reservation

pytestmark = pytest.mark.usefixtures("within_a_day")

DAY = Budget(1_000, "day")


def call(cost: int | None, purpose: str = "answer", model: str = "a/b") -> NewCall:
    return NewCall(purpose, model, "completed", 10, 5, cost=cost)


def everything(owner: str | None = "local") -> CallFilter:
    return CallFilter(owner, 0, now_ms() + 1)


async def test_what_is_put_aside_makes_room_for_what_it_did_cost(database: Database) -> None:
    ledger = Ledger(database)
    held = await ledger.reserve("local", Reservation(900, DAY))
    assert await ledger.spent_and_reserved("local", DAY) == (0, 900)
    with pytest.raises(BudgetExceeded):
        await ledger.reserve("local", Reservation(101, DAY))
    await ledger.settle("local", None, [call(30)], held)
    assert await ledger.spent_and_reserved("local", DAY) == (30, 0)
    await ledger.reserve("local", Reservation(970, DAY))
    assert await ledger.spent_and_reserved("local", DAY) == (30, 970)


async def test_others_have_budgets_of_their_own(database: Database) -> None:
    ledger = Ledger(database)
    await ledger.reserve("alice", Reservation(1_000, DAY))
    await ledger.settle("bob", None, [call(400)], None)
    await ledger.reserve("bob", Reservation(600, DAY))
    assert await ledger.spent_and_reserved("bob", DAY) == (400, 600)


async def test_of_many_at_once_only_those_that_fit_are_let_in(database: Database) -> None:
    ledger = Ledger(database)
    tries = [ledger.reserve("local", Reservation(70, DAY)) for _ in range(100)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(each, str) for each in results) == 14
    assert sum(isinstance(each, BudgetExceeded) for each in results) == 86
    assert await ledger.spent_and_reserved("local", DAY) == (0, 980)


async def test_a_refusal_says_what_is_spent_and_when_to_come_back(database: Database) -> None:
    ledger = Ledger(database)
    await ledger.settle("local", None, [call(600)], None)
    await ledger.reserve("local", Reservation(300, DAY))

    async def refused(amount: int) -> BudgetExceeded:
        with pytest.raises(BudgetExceeded) as caught:
            await ledger.reserve("local", Reservation(amount, DAY))
        return caught.value

    busy, late, never = await refused(200), await refused(500), await refused(1_001)
    for error, amount in ((busy, 200), (late, 500), (never, 1_001)):
        assert error.extra["needed"] == amount
        state = error.extra["budget"]
        assert isinstance(state, dict)
        assert (state["limit"], state["spent"], state["reserved"]) == (1_000, 600, 300)
        assert str(state["resets_at"]) in error.message
        assert "$0.001 a day: $0.0006 is spent, $0.0003 is held" in error.message
    assert int(busy.headers["Retry-After"]) < 10, "an answer under way is in the way"
    left = (DAY.resets_at(now_ms()) - now_ms()) / 1000
    assert 0 <= int(late.headers["Retry-After"]) - left <= 5
    assert (busy.retryable, late.retryable, never.retryable) == (True, True, False)
    assert "Retry-After" not in never.headers


async def test_what_costs_nothing_needs_no_room(database: Database) -> None:
    ledger = Ledger(database)
    await ledger.settle("local", None, [call(1_500)], None)
    await ledger.reserve("local", Reservation(0, DAY))
    with pytest.raises(BudgetExceeded):
        await ledger.reserve("local", Reservation(1, DAY))


async def test_what_an_earlier_period_cost_is_not_counted(database: Database) -> None:
    ledger = Ledger(database)
    today = now_ms() // 86_400_000
    rows = [{"day": today, "amount": 1}, {"day": today - 40, "amount": 100}]
    await database.write(lambda tx: tx.execute_many("INSERT INTO spendings VALUES ('local', :day, :amount)", rows))
    for period in ("day", "week", "month"):
        assert await ledger.spent_and_reserved("local", Budget(1, period)) == (1, 0)


async def test_calls_are_added_up_by_what_they_share(database: Database) -> None:
    ledger = Ledger(database)
    await ledger.settle("local", "ses_1", [call(5, "condense"), call(10), call(None)], None)
    await ledger.settle("local", "ses_2", [call(7, model="c/d")], None)
    await ledger.settle("bob", None, [call(1)], None)
    total = await ledger.total(everything())
    assert (total.calls, total.input_tokens, total.output_tokens, total.cost, total.unknown_cost) == (4, 40, 20, 22, 1)
    assert total.reasoning_tokens is None
    for by, expected in (
        ("model", {"a/b": 15, "c/d": 7}),
        ("purpose", {"condense": 5, "answer": 17}),
        ("session", {"ses_1": 15, "ses_2": 7}),
        ("run", {"": 22}),
        ("owner", {"local": 22}),
    ):
        groups = await ledger.groups(everything(), by, 10, None)  # type: ignore[arg-type]
        assert {g.key: g.sums.cost for g in groups} == expected, by
    assert (await ledger.total(everything(None))).calls == 5
    assert (await ledger.total(CallFilter("local", 0, 1))).calls == 0
    assert (await ledger.total(CallFilter("local", 0, 1))).cost is None


async def test_unknown_costs_alone_add_up_to_nothing_known(database: Database) -> None:
    ledger = Ledger(database)
    await ledger.settle("local", None, [call(None), call(None)], None)
    total = await ledger.total(everything())
    assert (total.cost, total.unknown_cost) == (None, 2)
    assert await ledger.spent_and_reserved("local", DAY) == (0, 0)


async def test_pages_of_groups_hold_each_once(database: Database) -> None:
    ledger = Ledger(database)
    names = {f"m/{n}" for n in range(25)}
    for name in sorted(names):
        await ledger.settle("local", None, [call(1, model=name)], None)
    seen: list[str] = []
    after = None
    while groups := await ledger.groups(everything(), "model", 7, after):
        seen += [g.key for g in groups]
        after = (groups[-1].last, groups[-1].key)
    assert len(seen) == 25
    assert set(seen) == names


async def test_what_is_held_under_a_name_goes_by_it(database: Database) -> None:
    ledger = Ledger(database)
    assert await ledger.reserve("local", Reservation(300, DAY), "res_mine") == "res_mine"
    await ledger.settle("local", None, [], "res_mine")
    assert await ledger.spent_and_reserved("local", DAY) == (0, 0)
