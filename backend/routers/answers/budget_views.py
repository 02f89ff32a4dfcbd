"""The schema of budgets."""

from typing import Self

from pydantic import Field

from backend.routers.edge.times import Time, iso
from backend.routers.edge.view import View
from backend.services.usage.report import BudgetState


class BudgetInfo(View):
    """A budget in its current period. Amounts are micro-dollars."""

    limit: int = Field(examples=[5_000_000])
    period: str = Field(description="day, week (from Monday) or month, UTC.", examples=["day"])
    spent: int = Field(description="Cost of the calls in this period.", examples=[1_204_311])
    reserved: int = Field(description="Highest possible cost of the answers that are live now.", examples=[52_000])
    resets_at: Time

    @classmethod
    def of(cls, state: BudgetState) -> Self:
        """The budget as the API returns it."""
        return cls(
            limit=state.limit,
            period=state.period,
            spent=state.spent,
            reserved=state.reserved,
            resets_at=iso(state.resets_at),
        )
