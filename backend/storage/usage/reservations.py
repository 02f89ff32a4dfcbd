"""What live runs may still spend, and what owners have spent per day. Money is in micro-dollars.

Only this module writes the tables reservations and spendings.
"""

from dataclasses import dataclass

from backend.config.budgets import Budget, dollars
from backend.errors import BudgetExceeded
from backend.kit.numbers import MAX_COUNT
from backend.kit.times import iso, now_ms
from backend.storage.engine.tx import Tx

_DAY_MS = 86_400_000
_LONGEST_PERIOD_MS = 32 * _DAY_MS
_RETRY_SECONDS = 2
"""Seconds after which a live answer may have ended."""
_HOW_TO_SPEND_LESS = 'ask for fewer max_tokens, for no passages ("documents": false), or another model'


@dataclass(frozen=True, slots=True)
class Reservation:
    """The highest possible cost of a run or call, reserved in its owner's budget until the real cost is known.
    `writes`: the call produces text, so a client can lower the cost with `max_tokens`.
    """

    amount: int
    budget: Budget
    writes: bool = True


def check(tx: Tx, owner: str, reservation: Reservation) -> None:
    """Raise BudgetExceeded if the reservation doesn't fit into the owner's budget."""
    now = now_ms()
    spent, reserved = spent_and_reserved(tx, owner, reservation.budget.since(now))
    if reservation.amount and spent + reserved + reservation.amount > reservation.budget.limit:
        raise _refusal(owner, reservation, spent, reserved, now)


def reserve(tx: Tx, owner: str, reservation_id: str, reservation: Reservation) -> None:
    """Reserve what a run, or a call outside of runs, may cost. Raises BudgetExceeded."""
    check(tx, owner, reservation)
    tx.execute(
        "INSERT INTO reservations (id, owner, amount, created_at) VALUES (:id, :owner, :amount, :now)",
        id=reservation_id,
        owner=owner,
        amount=reservation.amount,
        now=now_ms(),
    )


def drop(tx: Tx, reservation_id: str) -> None:
    """Delete a reservation; nothing happens if there is none."""
    tx.execute("DELETE FROM reservations WHERE id = :id", id=reservation_id)


def drop_all(tx: Tx, made_before: int) -> None:
    """Delete all reservations that were made before a time (ms). No run that is live may have one of them."""
    tx.execute("DELETE FROM reservations WHERE created_at < :before", before=made_before)


def spend(tx: Tx, owner: str, amount: int, now: int) -> None:
    """Add to what the owner has spent today."""
    tx.execute(
        "INSERT INTO spendings (owner, day, amount) VALUES (:owner, :day, :amount) "
        f"ON CONFLICT (owner, day) DO UPDATE SET amount = min(amount + excluded.amount, {MAX_COUNT})",
        owner=owner,
        day=now // _DAY_MS,
        amount=amount,
    )


def forget(tx: Tx, before: int) -> None:
    """Delete what owners spent on days before a time (ms), but nothing that a budget's period may still need."""
    day = min(before, now_ms() - _LONGEST_PERIOD_MS) // _DAY_MS
    tx.execute("DELETE FROM spendings WHERE day < :day", day=day)


def spent_and_reserved(tx: Tx, owner: str, since: int) -> tuple[int, int]:
    """What the owner has spent since a time (ms), and what is reserved."""
    sql = "SELECT coalesce(sum(amount), 0) FROM spendings WHERE owner = :owner AND day >= :day"
    spent: int = tx.value(sql, owner=owner, day=since // _DAY_MS)
    reserved: int = tx.value("SELECT coalesce(sum(amount), 0) FROM reservations WHERE owner = :owner", owner=owner)
    return spent, reserved


def _refusal(owner: str, reservation: Reservation, spent: int, reserved: int, now: int) -> BudgetExceeded:
    budget, resets_at = reservation.budget, reservation.budget.resets_at(now)
    message = (
        f"The budget of {owner} is {dollars(budget.limit)} a {budget.period}: {dollars(spent)} is spent, "
        f"{dollars(reserved)} is held by what is under way, and this may cost {dollars(reservation.amount)}. "
        f"It renews at {iso(resets_at)}."
    )
    if reservation.amount > budget.limit:
        less = _HOW_TO_SPEND_LESS if reservation.writes else "have BUDGETS raised"
        message += f" That is more than the whole budget: {less}."
        wait = None
    elif spent + reservation.amount <= budget.limit:
        message += " Wait until what is under way has ended, or cancel it."
        wait = _RETRY_SECONDS
    else:
        # If nothing is left, a cheaper request doesn't help.
        less = "take a model that costs nothing" if spent >= budget.limit else _HOW_TO_SPEND_LESS
        message += f" Wait until then{f', or {less}' if reservation.writes else ''}."
        wait = -(-(resets_at - now) // 1000)
    return BudgetExceeded(
        message,
        retry_after=wait,
        budget={
            "limit": budget.limit,
            "period": budget.period,
            "spent": spent,
            "reserved": reserved,
            "resets_at": iso(resets_at),
        },
        needed=reservation.amount,
    )
