"""What owners may spend on models, and who may see the usage of all owners."""

from pydantic import Field, field_validator

from backend.config.budgets import parse_budgets
from backend.config.fields import Names, SettingsGroup


class UsageSettings(SettingsGroup):
    """What owners may spend on models, and who may see the usage of all owners."""

    budgets: Names = Field(
        (),
        description="`owner=amount/period`, comma-separated, e.g. `alice=5/day,*=20/month`: US dollars that the "
        "owner's answers may cost per day, week or month (UTC); `*` is each owner without an entry.",
    )
    usage_admins: Names = Field((), description="Owners who may see the usage of all owners, comma-separated.")
    usage_retention_days: float | None = Field(
        None,
        ge=32,
        le=100_000,
        description="Days for which booked calls are kept for GET /usage. At least 32, because budgets need a month. "
        "Unset: for ever.",
    )

    @field_validator("budgets")
    @classmethod
    def _check_budgets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_budgets(value)
        return value
