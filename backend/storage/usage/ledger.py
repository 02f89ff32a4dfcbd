"""The ledger: every call of a model with its cost. Only this module writes the table calls, so that calls and spendings
always agree. Money is in micro-dollars.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backend.config.budgets import Budget
from backend.kit.ids import new_id
from backend.kit.numbers import MAX_COUNT, bounded
from backend.kit.times import now_ms
from backend.storage.engine.database import Database
from backend.storage.engine.tx import Tx
from backend.storage.usage import reservations
from backend.storage.usage.reservations import Reservation

Grouping = Literal["day", "model", "purpose", "session", "run", "owner"]
_KEYS: dict[Grouping, str] = {
    "day": "strftime('%Y-%m-%d', created_at / 1000, 'unixepoch')",
    "model": "model",
    "purpose": "purpose",
    "session": "coalesce(session_id, '')",
    "run": "coalesce(run_id, '')",
    "owner": "owner",
}


def _sum(column: str) -> str:
    """The sum of a column in SQL, at most `MAX_COUNT`; NULL if no call has a value. SQLite's own `sum` raises an error
    beyond 2^63; `total` counts in doubles, which are exact up to 2^53."""
    return f"CASE WHEN count({column}) THEN CAST(min(total({column}), {MAX_COUNT}) AS INTEGER) END"


_SUMS = (
    f"count(*), coalesce({_sum('input_tokens')}, 0), coalesce({_sum('output_tokens')}, 0), {_sum('reasoning_tokens')}, "
    f"{_sum('cached_tokens')}, {_sum('cost')}, coalesce(sum(cost IS NULL), 0), coalesce(sum(estimated), 0)"
)


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call of a model. `price` is JSON text. `cost` is None if it is unknown."""

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
class Sums:
    """Sums over calls. `cost` is the sum of the known costs, None if no cost is known. `unknown_cost` and `estimated`
    are numbers of calls.
    """

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
    """The calls with the same day, model, ...; `last` is the time of the last call. The key of calls without is ''."""

    key: str
    last: int
    sums: Sums


@dataclass(frozen=True, slots=True)
class CallFilter:
    """The calls of an owner (None: of all owners) from `since` until before `until` (ms)."""

    owner: str | None
    since: int
    until: int

    @property
    def condition(self) -> str:
        """The condition in SQL, on the table calls; its parameters are `parameters`."""
        return f"created_at >= :since AND created_at < :until{'' if self.owner is None else ' AND owner = :owner'}"

    @property
    def parameters(self) -> dict[str, Any]:
        """The values for `condition`, by name."""
        return {"since": self.since, "until": self.until, "owner": self.owner}


class Ledger:
    """Books calls outside of runs, and sums up all calls. `Turns.close` books the calls of runs."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def reserve(self, owner: str, reservation: Reservation, reservation_id: str | None = None) -> str:
        """The id of the reservation for a call outside of runs: `reservation_id`, or a new id.

        Raises BudgetExceeded.
        """
        name = reservation_id or new_id("res")
        await self._db.write(lambda tx: reservations.reserve(tx, owner, name, reservation))
        return name

    async def settle(
        self, owner: str, session_id: str | None, calls: Sequence[NewCall], reservation_id: str | None
    ) -> None:
        """Book calls outside of runs, and delete their reservation."""

        def write(tx: Tx) -> None:
            if reservation_id is not None:
                reservations.drop(tx, reservation_id)
            _book(tx, owner, None, session_id, calls)

        await self._db.write(write)

    async def forget(self, before: int, limit: int = 500) -> int:
        """Delete at most `limit` calls that were booked before a time (ms), and what owners spent on such days. Returns
        the number of calls."""
        sql = "SELECT rowid FROM calls WHERE created_at < :before LIMIT :limit"
        rows = [n for (n,) in await self._db.read(lambda tx: tx.rows(sql, before=before, limit=limit))]
        if rows:

            def delete(tx: Tx) -> None:
                tx.execute("DELETE FROM calls WHERE rowid IN :rows", rows=rows)
                reservations.forget(tx, before)

            await self._db.write(delete)
        return len(rows)

    async def spent_and_reserved(self, owner: str, budget: Budget) -> tuple[int, int]:
        """What the owner has spent in the present period, and what live runs may still spend."""
        since = budget.since(now_ms())
        return await self._db.read(lambda tx: reservations.spent_and_reserved(tx, owner, since))

    async def total(self, calls: CallFilter) -> Sums:
        """The sums over the calls."""
        sql = f"SELECT {_SUMS} FROM calls WHERE {calls.condition}"
        return Sums(*(await self._db.read(lambda tx: tx.rows(sql, **calls.parameters)))[0])

    async def groups(self, calls: CallFilter, by: Grouping, limit: int, after: tuple[int, str] | None) -> list[Group]:
        """At most `limit` groups of the calls, the latest first, after the group at `after` (last, key)."""
        sql = (
            f"SELECT {_KEYS[by]} AS k, max(created_at) AS last, {_SUMS} FROM calls WHERE {calls.condition} GROUP BY k "
            "HAVING :at IS NULL OR last < :at OR (last = :at AND k < :key) ORDER BY last DESC, k DESC LIMIT :limit"
        )
        at, key = after or (None, None)
        rows = await self._db.read(lambda tx: tx.rows(sql, **calls.parameters, at=at, key=key, limit=limit))
        return [Group(k, last, Sums(*sums)) for k, last, *sums in rows]


# Parts of a caller's commit.


def settle(tx: Tx, owner: str, run_id: str, session_id: str | None, calls: Sequence[NewCall]) -> None:
    """Book the calls of a run, and delete its reservation."""
    reservations.drop(tx, run_id)
    _book(tx, owner, run_id, session_id, calls)


def _book(tx: Tx, owner: str, run_id: str | None, session_id: str | None, calls: Sequence[NewCall]) -> None:
    """Store calls and add their cost to what the owner has spent."""
    now = now_ms()
    tx.execute_many(
        "INSERT INTO calls (id, owner, run_id, session_id, purpose, model, status, input_tokens, output_tokens, "
        "reasoning_tokens, cached_tokens, estimated, price, cost, created_at) "
        "VALUES (:id, :owner, :run_id, :session_id, :purpose, :model, :status, :input_tokens, :output_tokens, "
        ":reasoning_tokens, :cached_tokens, :estimated, :price, :cost, :now)",
        [
            {
                "id": new_id("call"),
                "owner": owner,
                "run_id": run_id,
                "session_id": session_id,
                "purpose": call.purpose,
                "model": call.model,
                "status": call.status,
                "input_tokens": call.input_tokens,
                "output_tokens": call.output_tokens,
                "reasoning_tokens": call.reasoning_tokens,
                "cached_tokens": call.cached_tokens,
                "estimated": call.estimated,
                "price": call.price,
                "cost": call.cost,
                "now": now,
            }
            for call in calls
        ],
    )
    if cost := bounded(sum(call.cost or 0 for call in calls)):
        reservations.spend(tx, owner, cost, now)
