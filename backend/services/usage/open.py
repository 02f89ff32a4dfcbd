"""Opens usage: budgets, the metering of calls outside of runs, and reports."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backend.config.budgets import parse_budgets
from backend.config.settings import Settings
from backend.services.foundation import Core
from backend.services.models.pricing import Pricing
from backend.services.usage.budgets import Budgets
from backend.services.usage.metering import Metering
from backend.services.usage.report import UsageReports
from backend.storage.usage.ledger import Ledger


@dataclass(frozen=True, slots=True)
class UsageServices:
    """Budgets, the metering of calls outside of runs, and reports."""

    budgets: Budgets
    metering: Metering
    reports: UsageReports


@asynccontextmanager
async def opened(settings: Settings, core: Core, pricing: Pricing) -> AsyncGenerator[UsageServices]:
    """The usage services. At the end, late bookings are written.

    They read three groups of settings: the highest cost of an answer depends on the longest history and the longest
    passages.
    """
    ledger = Ledger(core.database)
    budgets = Budgets(parse_budgets(settings.usage.budgets), pricing, settings.models, settings.library)
    metering = Metering(ledger, budgets, pricing, core.telemetry)
    try:
        yield UsageServices(budgets, metering, UsageReports(ledger, budgets, settings.usage.usage_admins))
    finally:
        await metering.close()
