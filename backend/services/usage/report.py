"""What models were used for and what it cost: calls outside of runs are booked here, and owners look it up."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass

import msgspec

from backend import events as ev
from backend.chains.models.prompt import Tokens
from backend.chains.retrieval.embeddings import Embedded, paid_by
from backend.errors import Forbidden
from backend.kit.ids import new_id
from backend.kit.times import now_ms
from backend.services.models.catalog import Models
from backend.services.telemetry.telemetry import SILENT, Telemetry
from backend.services.usage.bookings import Booking, Bookings
from backend.services.usage.budgets import Budgets
from backend.storage.usage.ledger import Group, Ledger, NewCall, Which
from backend.storage.usage.ledger import Grouping as Grouping
from backend.storage.usage.ledger import Sums as Sums

EVERY_OWNER = "*"


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget now, in micro-dollars; `resets_at` in ms."""

    limit: int
    period: str
    spent: int
    reserved: int
    resets_at: int


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A page of groups, all calls together, and the budget of whose calls they are. `more`: groups follow."""

    groups: list[Group]
    more: bool
    total: Sums
    budget: BudgetState | None


class UsageService:
    """The ledger as owners see it. `admins` see everybody's."""

    def __init__(
        self,
        ledger: Ledger,
        budgets: Budgets,
        models: Models,
        admins: Sequence[str],
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._ledger = ledger
        self._budgets = budgets
        self._models = models
        self._admins = frozenset(admins)
        self._telemetry = telemetry
        self._bookings = Bookings(ledger)

    async def close(self) -> None:
        """Book what is left to be booked, if that can be done now."""
        await self._bookings.close()

    async def report(
        self,
        caller: str,
        whose: str | None,
        span: tuple[int, int],
        by: Grouping,
        limit: int,
        after: tuple[int, str] | None,
    ) -> UsageReport:
        """The calls of an owner (None: the caller's own) booked within `span` (ms, the end excluded), at most `limit`
        groups. Raises Forbidden."""
        owner = whose or caller
        if caller not in self._admins and (owner != caller or by == "owner"):
            raise Forbidden("Only those whom USAGE_ADMINS names see what others use. Leave out owner, and by=owner.")
        which = Which(None if owner == EVERY_OWNER else owner, *span)
        groups = await self._ledger.groups(which, by, limit + 1, after)
        budget = None if which.owner is None else await self._state(owner)
        return UsageReport(groups[:limit], len(groups) > limit, await self._ledger.total(which), budget)

    async def _state(self, owner: str) -> BudgetState | None:
        budget = self._budgets.of(owner)
        if budget is None:
            return None
        spent, reserved = await self._ledger.used(owner, budget)
        return BudgetState(budget.limit, budget.period, spent, reserved, budget.resets_at(now_ms()))

    @asynccontextmanager
    async def aside(
        self, owner: str, session_id: str | None, model: str, most: Tokens
    ) -> AsyncGenerator[list[ev.Usage]]:
        """A call beside the answers: what it may cost at most is put aside, and what is added to the list is booked in
        its place at the end. Raises BudgetExceeded, PriceUnknown."""
        reservation = self._budgets.reservation(owner, model, most)
        held = new_id("res") if reservation is not None else None
        used: list[ev.Usage] = []
        try:
            # Within: who is cancelled while it is written must let go of it, too.
            if reservation is not None and held is not None:
                await self._ledger.reserve(owner, reservation, held)
            yield used
        finally:
            if used or held is not None:
                await self._book(owner, session_id, used, held)

    def embedding(self, owner: str) -> AbstractContextManager[None]:
        """Whatever a provider embeds within, the owner pays: each request is held, refused and booked as in `aside`."""

        @asynccontextmanager
        async def request(model: str, most: int) -> AsyncGenerator[Embedded]:
            async with self.aside(owner, None, model, Tokens(most, 0)) as used:
                embedded = Embedded()
                try:
                    yield embedded
                finally:
                    call = ev.Usage(
                        model=model,
                        purpose="embedding",
                        input_tokens=embedded.tokens,
                        output_tokens=0,
                        estimated=embedded.estimated,
                    )
                    if embedded.tokens:
                        used.append(call)

        return paid_by(request)

    async def _book(self, owner: str, session_id: str | None, used: Sequence[ev.Usage], held: str | None) -> None:
        for call in used:
            self._models.charge(call)
            self._telemetry.call(call)
        await self._bookings.book(Booking(owner, session_id, calls_of(used), held))


def calls_of(used: Sequence[ev.Usage]) -> list[NewCall]:
    """Usage events as rows of the ledger."""
    return [
        NewCall(
            purpose=each.purpose,
            model=each.model,
            status=each.status,
            input_tokens=each.input_tokens,
            output_tokens=each.output_tokens,
            reasoning_tokens=each.reasoning_tokens,
            cached_tokens=each.cached_tokens,
            estimated=each.estimated,
            price=msgspec.json.encode(each.price).decode() if each.price is not None else None,
            cost=each.cost,
        )
        for each in used
    ]
