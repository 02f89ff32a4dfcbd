"""The ledger: every call of a model with its cost, what owners have spent a day, what live runs may still spend.

Money is in micro-dollars. Whoever books a call does it here, so that calls and spendings never disagree.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from backend.config.budgets import Budget, dollars
from backend.errors import BudgetExceeded
from backend.kit.ids import iso, new_id, now_ms
from backend.storage.engine.database import Database

Grouping = Literal["day", "model", "purpose", "session", "run", "owner"]
_DAY_MS = 86_400_000
_SOON = 2
"""Seconds after which an answer under way may have ended."""
_LESS = 'ask for fewer max_tokens, for no passages ("documents": false), or another model'
_KEYS: dict[Grouping, str] = {
    "day": "strftime('%Y-%m-%d', created_at / 1000, 'unixepoch')",
    "model": "model",
    "purpose": "purpose",
    "session": "coalesce(session_id, '')",
    "run": "coalesce(run_id, '')",
    "owner": "owner",
}
_COLUMNS = (
    "id, owner, run_id, session_id, purpose, model, status, input_tokens, output_tokens, reasoning_tokens, "
    "cached_tokens, estimated, price, cost, created_at"
)
_SUMS = (
    "count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), sum(reasoning_tokens), "
    "sum(cached_tokens), sum(cost), coalesce(sum(cost IS NULL), 0), coalesce(sum(estimated), 0)"
)


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call of a model. `price` is JSON text; `cost` None is unknown."""

    purpose: str
    model: str
    status: str
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    estimated: bool = False
    price: str | None = None
    cost: int | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a run or call may cost at most, to be taken from its owner's budget until it is known what it did cost.
    `writes`: a model writes, so that less may be asked of it."""

    amount: int
    budget: Budget
    writes: bool = True


@dataclass(frozen=True, slots=True)
class Sums:
    """Calls taken together. `cost` is that of those whose cost is known, None when no call's is; `unknown_cost` and
    `estimated` count calls."""

    calls: int
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int | None
    cached_tokens: int | None
    cost: int | None
    unknown_cost: int
    estimated: int


@dataclass(frozen=True, slots=True)
class Group:
    """The calls that share a day, model, ...; `last` is when the last one of them was booked. Key '' is none."""

    key: str
    last: int
    sums: Sums


@dataclass(frozen=True, slots=True)
class Which:
    """Calls of an owner (None: of everybody) that were booked from `since` until before `until` (ms)."""

    owner: str | None
    since: int
    until: int

    @property
    def condition(self) -> str:
        """As SQL."""
        return f"created_at >= ? AND created_at < ?{'' if self.owner is None else ' AND owner = ?'}"

    @property
    def parameters(self) -> tuple[int | str, ...]:
        """Its parameters."""
        return (self.since, self.until, *(() if self.owner is None else (self.owner,)))


class Ledger:
    """The ledger's own doors. Runs are booked with their end: see `settle` and `Turns.close`."""

    def __init__(self, database: Database) -> None:
        self._writer = database.writer
        self._reader = database.reader

    async def reserve(self, owner: str, wanted: Reservation, held: str | None = None) -> str:
        """Put aside what a call may cost that is no part of a run, under the id `held` or a new one; the id.

        Raises BudgetExceeded.
        """
        name = held or new_id("res")
        await self._writer.run(lambda conn: reserve(conn, owner, name, wanted))
        return name

    async def settle(self, owner: str, session_id: str | None, calls: Sequence[NewCall], held: str | None) -> None:
        """Book calls that are no part of a run, in the place of what was held for them."""

        def write(conn: sqlite3.Connection) -> None:
            if held is not None:
                conn.execute("DELETE FROM reservations WHERE run_id = ?", (held,))
            book(conn, owner, None, session_id, calls)

        await self._writer.run(write)

    async def used(self, owner: str, budget: Budget) -> tuple[int, int]:
        """What the owner has spent in this period, and what live runs may still spend."""
        since = budget.since(now_ms())
        return await self._reader.run(lambda conn: _used(conn, owner, since))

    async def total(self, which: Which) -> Sums:
        """All of those calls together."""
        sql = f"SELECT {_SUMS} FROM calls WHERE {which.condition}"
        return await self._reader.run(lambda conn: Sums(*conn.execute(sql, which.parameters).fetchone()))

    async def groups(self, which: Which, by: Grouping, limit: int, after: tuple[int, str] | None) -> list[Group]:
        """At most `limit` groups, the one with the latest call first; those behind `after` (last, key)."""
        sql = (
            f"SELECT {_KEYS[by]} AS k, max(created_at) AS last, {_SUMS} FROM calls WHERE {which.condition} GROUP BY k "
            "HAVING ? IS NULL OR last < ? OR (last = ? AND k < ?) ORDER BY last DESC, k DESC LIMIT ?"
        )
        at, key = after or (None, None)
        given = (*which.parameters, at, at, at, key, limit)
        return await self._reader.run(
            lambda conn: [Group(k, last, Sums(*sums)) for k, last, *sums in conn.execute(sql, given)]
        )


# Within somebody's commit, on the writer's thread.


def reserve(conn: sqlite3.Connection, owner: str, run_id: str | None, wanted: Reservation) -> None:
    """Put what a run may cost aside; with no run, only look whether that can be. Raises BudgetExceeded."""
    now = now_ms()
    spent, reserved = _used(conn, owner, wanted.budget.since(now))
    if wanted.amount and spent + reserved + wanted.amount > wanted.budget.limit:
        raise _refusal(owner, wanted, spent, reserved, now)
    if run_id is not None:
        sql = "INSERT INTO reservations (run_id, owner, amount, created_at) VALUES (?, ?, ?, ?)"
        conn.execute(sql, (run_id, owner, wanted.amount, now))


def settle(conn: sqlite3.Connection, owner: str, run_id: str, session_id: str | None, calls: Sequence[NewCall]) -> None:
    """Book what a run did cost, in the place of what it might have."""
    conn.execute("DELETE FROM reservations WHERE run_id = ?", (run_id,))
    book(conn, owner, run_id, session_id, calls)


def book(
    conn: sqlite3.Connection, owner: str, run_id: str | None, session_id: str | None, calls: Sequence[NewCall]
) -> None:
    """Write calls down."""
    now = now_ms()
    for call in calls:
        conn.execute(
            f"INSERT INTO calls ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                new_id("call"),
                owner,
                run_id,
                session_id,
                call.purpose,
                call.model,
                call.status,
                call.input_tokens,
                call.output_tokens,
                call.reasoning_tokens,
                call.cached_tokens,
                call.estimated,
                call.price,
                call.cost,
                now,
            ),
        )
    if cost := sum(call.cost or 0 for call in calls):
        sql = (
            "INSERT INTO spendings (owner, day, amount) VALUES (?, ?, ?) "
            "ON CONFLICT (owner, day) DO UPDATE SET amount = amount + excluded.amount"
        )
        conn.execute(sql, (owner, now // _DAY_MS, cost))


def drop_reservations(conn: sqlite3.Connection) -> None:
    """No run lives: what a crash left is nobody's."""
    conn.execute("DELETE FROM reservations")


def _used(conn: sqlite3.Connection, owner: str, since: int) -> tuple[int, int]:
    sql = "SELECT coalesce(sum(amount), 0) FROM spendings WHERE owner = ? AND day >= ?"
    (spent,) = conn.execute(sql, (owner, since // _DAY_MS)).fetchone()
    sql = "SELECT coalesce(sum(amount), 0) FROM reservations WHERE owner = ?"
    (reserved,) = conn.execute(sql, (owner,)).fetchone()
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
