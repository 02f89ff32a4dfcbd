"""The budgets of owners: the entries of BUDGETS."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal, cast

Period = Literal["day", "week", "month"]

EVERYBODY = "*"
"""The name of the entry for owners without an entry. Each of these owners has that budget separately."""
_ENTRY = re.compile(r"(\*|[^\W\d]\w*)=(\d{1,9}(?:\.\d{1,6})?)/(day|week|month)")


@dataclass(frozen=True, slots=True)
class Budget:
    """`limit` micro-dollars (millionths of a US dollar) in each `period` of the calendar, in UTC."""

    limit: int
    period: Period

    def since(self, now: int) -> int:
        """The time at which the period of `now` began (both in ms since 1970)."""
        return _ms(_first_day(self.period, now))

    def resets_at(self, now: int) -> int:
        """The time at which the period after that of `now` begins (both in ms since 1970)."""
        first = _first_day(self.period, now)
        match self.period:
            case "day":
                return _ms(first + timedelta(days=1))
            case "week":
                return _ms(first + timedelta(days=7))
            case "month":
                return _ms((first + timedelta(days=31)).replace(day=1))


def parse_budgets(entries: Iterable[str]) -> dict[str, Budget]:
    """The budgets by owner, from entries `owner=amount/period`. Raises ValueError."""
    budgets: dict[str, Budget] = {}
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(
                "must be owner=amount/period, comma-separated: a name of API_KEYS (or local, or `*` for everybody "
                f"else), dollars with at most 6 decimals, day, week or month; {entry!r} is not"
            )
        owner, amount, period = match.groups()
        if owner in budgets:
            raise ValueError(f"{owner} has two budgets; name each owner once")
        budgets[owner] = Budget(int(Decimal(amount) * 1_000_000), cast(Period, period))
    return budgets


def dollars(micro: int) -> str:
    """The amount, given in micro-dollars, as text: `$0.0125`, with at least two decimals."""
    whole, rest = divmod(micro, 1_000_000)
    return f"${whole}.{f'{rest:06d}'.rstrip('0').ljust(2, '0')}"


def _first_day(period: Period, now: int) -> datetime:
    day = datetime.fromtimestamp(now / 1000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case "day":
            return day
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000
