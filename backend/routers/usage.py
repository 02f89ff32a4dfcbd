"""GET /usage: use and cost of models."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field

from backend.errors import Invalid
from backend.kit.times import now_ms
from backend.routers.answers.budget_views import BudgetInfo
from backend.routers.edge.paging import Cursor, cursor_of, position_of
from backend.routers.edge.problems import responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ServicesDep
from backend.routers.edge.times import Moment, Time, iso
from backend.routers.edge.view import View
from backend.services.usage.report import Grouping, Sums

router = APIRouter(prefix="/usage", tags=["usage"], route_class=OwnRoute)
TAG = {"name": "usage", "description": "Use and cost of models."}

_DAYS = 30
_COST = "Micro-dollars (1,000,000 are one US dollar) of the calls with a known cost; null if no call has one."


class UsageSums(View):
    """Sums over calls of models."""

    calls: int = Field(examples=[12])
    input_tokens: int = Field(examples=[48_210])
    output_tokens: int = Field(description="Includes reasoning tokens.", examples=[3_104])
    reasoning_tokens: int | None = Field(description="null if no provider reported it.", examples=[None])
    cached_tokens: int | None = Field(
        description="Part of the input tokens; null if no provider reported it.", examples=[40_960]
    )
    cost: int | None = Field(description=_COST, examples=[8_412])
    unknown_cost: int = Field(description="Number of calls with an unknown cost.", examples=[0])
    estimated: int = Field(
        description="Number of calls whose tokens were estimated, because the provider reported none.", examples=[1]
    )

    @classmethod
    def of(cls, sums: Sums, **more: str | None) -> Self:
        """The sums as the API returns them."""
        return cls(**{name: getattr(sums, name) for name in UsageSums.model_fields}, **more)  # pyright: ignore


class UsageGroup(UsageSums):
    """The calls of one day, model, purpose, session, run or owner."""

    key: str | None = Field(
        description="The day (2026-01-31, UTC), model, purpose, session, run or owner. null: calls without one.",
        examples=["2026-01-31"],
    )
    last_at: Time = Field(description="Time at which the last of these calls was booked.")


class UsageReport(View):
    """Use and cost of models: a page of groups, the sums of the whole time span, and the present budget."""

    begins: Time = Field(alias="from")
    ends: Time = Field(alias="to", description="End of the time span; not included.")
    by: Grouping
    items: list[UsageGroup] = Field(description="Groups, the one with the latest call first.")
    total: UsageSums = Field(description="Sums of the whole time span, not only of this page.")
    budget: BudgetInfo | None = Field(description="null if you have no budget.")
    next_cursor: str | None = None


@router.get("", responses=responses(400, 401, 403, 422), summary="Use and cost of models")
async def get_usage(
    services: ServicesDep,
    caller: Owner,
    begins: Annotated[
        Moment | None,
        Query(alias="from", description="A day or a time (UTC if it has no time zone). Unset: 30 days before `to`."),
    ] = None,
    ends: Annotated[
        Moment | None, Query(alias="to", description="End of the time span; not included. Unset: now.")
    ] = None,
    by: Annotated[
        Grouping, Query(description="How calls are grouped. `owner` is allowed only for USAGE_ADMINS.")
    ] = "day",
    owner: Annotated[
        str | None, Query(max_length=200, description="Another owner, or `*` for all. Allowed only for USAGE_ADMINS.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of groups per page.")] = 100,
    cursor: Cursor = None,
) -> UsageReport:
    """Returns your calls of models: answers with all attempts, rewritten follow-up questions, titles, summaries, and
    embeddings by a provider. A call is booked when its run ends.
    """
    since, until = _span(begins, ends)
    report = await services.usage.reports.report(caller, owner, (since, until), by, limit, position_of(cursor))
    last = report.groups[-1] if report.more else None
    return UsageReport.model_validate(
        {
            "from": iso(since),
            "to": iso(until),
            "by": by,
            "items": [
                UsageGroup.of(group.sums, key=group.key or None, last_at=iso(group.last)) for group in report.groups
            ],
            "total": UsageSums.of(report.total),
            "budget": BudgetInfo.of(report.budget) if report.budget is not None else None,
            "next_cursor": cursor_of(last.last, last.key) if last is not None else None,
        }
    )


def _span(begins: datetime | None, ends: datetime | None) -> tuple[int, int]:
    # `until` is not included, so it is one millisecond later: calls booked in this millisecond count as well.
    now = now_ms() + 1
    until = min(_ms(ends), now) if ends is not None else now
    since = _ms(begins) if begins is not None else until - _ms_of(timedelta(days=_DAYS))
    if since >= until:
        raise Invalid("from: must be before to.")
    return max(since, 0), until


def _ms(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return _ms_of(aware - datetime(1970, 1, 1, tzinfo=UTC))


def _ms_of(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)
