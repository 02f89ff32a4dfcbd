"""Reports of usage: how many tokens the models used for an owner, for which purposes, and the cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.errors import Forbidden
from backend.kit.times import now_ms
from backend.services.usage.budgets import Budgets
from backend.storage.usage.ledger import CallFilter, Group, Ledger
from backend.storage.usage.ledger import Grouping as Grouping
from backend.storage.usage.ledger import Sums as Sums

EVERY_OWNER = "*"


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget at this moment, in micro-dollars; `resets_at` is in ms since 1970."""

    limit: int
    period: str
    spent: int
    reserved: int
    resets_at: int


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A page of groups, the sums of all calls, and the owner's budget. `more` says whether there are more groups."""

    groups: list[Group]
    more: bool
    total: Sums
    budget: BudgetState | None


class UsageReports:
    """Reports from the ledger. `admins` may read the usage of all owners."""

    def __init__(self, ledger: Ledger, budgets: Budgets, admins: Sequence[str]) -> None:
        self._ledger = ledger
        self._budgets = budgets
        self._admins = frozenset(admins)

    async def report(
        self,
        caller: str,
        owner: str | None,
        period: tuple[int, int],
        grouping: Grouping,
        limit: int,
        after: tuple[int, str] | None,
    ) -> UsageReport:
        """The calls that were booked within `period`, in at most `limit` groups after the position `after`.

        `owner` is None for the caller's calls, and `*` for those of all owners. `period` is in ms since 1970, without
        its end. Raises Forbidden.
        """
        owner = owner or caller
        if caller not in self._admins and (owner != caller or grouping == "owner"):
            raise Forbidden(
                "You may see your own usage only. Leave out owner, and by=owner.",
                advice="USAGE_ADMINS names who sees what others use.",
            )
        calls = CallFilter(None if owner == EVERY_OWNER else owner, *period)
        groups = await self._ledger.groups(calls, grouping, limit + 1, after)
        budget = None if calls.owner is None else await self.budget(owner)
        return UsageReport(groups[:limit], len(groups) > limit, await self._ledger.total(calls), budget)

    def is_admin(self, caller: str) -> bool:
        """Whether the caller may read the usage of all owners (USAGE_ADMINS)."""
        return caller in self._admins

    async def budget(self, owner: str) -> BudgetState | None:
        """The owner's budget at this moment; None without one."""
        budget = self._budgets.of(owner)
        if budget is None:
            return None
        spent, reserved = await self._ledger.spent_and_reserved(owner, budget)
        return BudgetState(budget.limit, budget.period, spent, reserved, budget.resets_at(now_ms()))
