"""What live runs may still spend, and what owners have spent a day. Money is in micro-dollars.

Only this module writes the tables reservations and spendings.
"""

from dataclasses import dataclass

from backend.config.budgets import Budget, dollars
from backend.errors import BudgetExceeded
from backend.kit.times import iso, now_ms
from backend.storage.engine.tx import Tx

_DAY_MS = 86_400_000
_SOON = 2
"""Seconds after which an answer under way may have ended."""
_LESS = 'ask for fewer max_tokens, for no passages ("documents": false), or another model'


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a run or call may cost at most, to be taken from its owner's budget until it is known what it did cost.
    `writes`: a model writes, so that less may be asked of it."""

    amount: int
    budget: Budget
    writes: bool = True


def check(tx: Tx, owner: str, wanted: Reservation) -> None:
    """Raises BudgetExceeded if the reservation doesn't fit into the owner's budget."""
    now = now_ms()
    spent, reserved = used(tx, owner, wanted.budget.since(now))
    if wanted.amount and spent + reserved + wanted.amount > wanted.budget.limit:
        raise _refusal(owner, wanted, spent, reserved, now)


def reserve(tx: Tx, owner: str, reservation_id: str, wanted: Reservation) -> None:
    """Put aside what a run, or a call outside of runs, may cost. Raises BudgetExceeded."""
    check(tx, owner, wanted)
    tx.execute(
        "INSERT INTO reservations (id, owner, amount, created_at) VALUES (:id, :owner, :amount, :now)",
        id=reservation_id,
        owner=owner,
        amount=wanted.amount,
        now=now_ms(),
    )


def drop(tx: Tx, reservation_id: str) -> None:
    """Let go of what was put aside."""
    tx.execute("DELETE FROM reservations WHERE id = :id", id=reservation_id)


def drop_all(tx: Tx) -> None:
    """Let go of everything that was put aside. Only while no run is live."""
    tx.execute("DELETE FROM reservations")


def spend(tx: Tx, owner: str, amount: int, now: int) -> None:
    """Add to what the owner has spent today."""
    tx.execute(
        "INSERT INTO spendings (owner, day, amount) VALUES (:owner, :day, :amount) "
        "ON CONFLICT (owner, day) DO UPDATE SET amount = amount + excluded.amount",
        owner=owner,
        day=now // _DAY_MS,
        amount=amount,
    )


def used(tx: Tx, owner: str, since: int) -> tuple[int, int]:
    """What the owner has spent since a time (ms), and what is put aside."""
    sql = "SELECT coalesce(sum(amount), 0) FROM spendings WHERE owner = :owner AND day >= :day"
    spent: int = tx.value(sql, owner=owner, day=since // _DAY_MS)
    reserved: int = tx.value("SELECT coalesce(sum(amount), 0) FROM reservations WHERE owner = :owner", owner=owner)
    return spent, reserved


def _refusal(owner: str, wanted: Reservation, spent: int, reserved: int, now: int) -> BudgetExceeded:
    budget, resets_at = wanted.budget, wanted.budget.resets_at(now)
    told = (
        f"The budget of {owner} is {dollars(budget.limit)} a {budget.period}: {dollars(spent)} is spent, "
        f"{dollars(reserved)} is held by what is under way, and this may cost {dollars(wanted.amount)}. "
        f"It renews at {iso(resets_at)}."
    )
    if wanted.amount > budget.limit:
        less = _LESS if wanted.writes else "have BUDGETS raised"
        told += f" That is more than the whole budget: {less}."
        wait = None
    elif spent + wanted.amount <= budget.limit:
        told += " Wait until what is under way has ended, or cancel it."
        wait = _SOON
    else:
        # Where nothing is left, asking for less doesn't help.
        less = "take a model that costs nothing" if spent >= budget.limit else _LESS
        told += f" Wait until then{f', or {less}' if wanted.writes else ''}."
        wait = -(-(resets_at - now) // 1000)
    return BudgetExceeded(
        told,
        retry_after=wait,
        budget={
            "limit": budget.limit,
            "period": budget.period,
            "spent": spent,
            "reserved": reserved,
            "resets_at": iso(resets_at),
        },
        needed=wanted.amount,
    )
