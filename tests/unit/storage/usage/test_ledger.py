"""Sums of the ledger: exact, and never too large for the database or for JSON."""

from backend.config.budgets import Budget
from backend.kit.numbers import MAX_COUNT
from backend.storage.engine.database import Database
from backend.storage.usage.ledger import CallFilter, Ledger, NewCall

EVERYTHING = CallFilter(None, 0, 2**62)


def call(tokens: int, cost: int | None = None, cached: int | None = None) -> NewCall:
    return NewCall("answer", "m", "completed", tokens, tokens, cached_tokens=cached, cost=cost)


async def test_absurd_calls_leave_the_sums_readable(database: Database) -> None:
    ledger = Ledger(database)
    await ledger.settle("alice", None, [call(MAX_COUNT, MAX_COUNT, MAX_COUNT) for _ in range(1_100)], None)
    sums = await ledger.total(EVERYTHING)
    assert (sums.calls, sums.input_tokens, sums.cached_tokens, sums.cost) == (1_100, MAX_COUNT, MAX_COUNT, MAX_COUNT)
    (group,) = await ledger.groups(EVERYTHING, "model", 10, None)
    assert group.sums == sums
    assert await ledger.spent_and_reserved("alice", Budget(1, "month")) == (MAX_COUNT, 0)


async def test_ordinary_sums_are_exact(database: Database) -> None:
    ledger = Ledger(database)
    await ledger.settle("alice", None, [call(10**15 + 1, 3), call(2, None, 5), call(1, 4)], None)
    sums = await ledger.total(EVERYTHING)
    assert (sums.input_tokens, sums.cached_tokens, sums.reasoning_tokens) == (10**15 + 4, 5, None)
    assert (sums.cost, sums.unknown_cost) == (7, 1)


async def test_without_calls_the_sums_are_zero(database: Database) -> None:
    sums = await Ledger(database).total(EVERYTHING)
    assert (sums.calls, sums.input_tokens, sums.cost) == (0, 0, None)
