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
from backend.services.usage.report import UsageService
from backend.storage.usage.ledger import Ledger


@dataclass(frozen=True, slots=True)
class UsageServices:
    """What calls of models cost, and who may spend how much."""

    budgets: Budgets
    metering: Metering
    reports: UsageService


@asynccontextmanager
async def opened(settings: Settings, core: Core, pricing: Pricing) -> AsyncGenerator[UsageServices]:
    """Usage, until everything that can be booked is booked.

    It reads three groups of settings: a budget's bound depends on the longest history and on the longest passages.
    """
    ledger = Ledger(core.database)
    budgets = Budgets(parse_budgets(settings.usage.budgets), pricing, settings.models, settings.library)
    metering = Metering(ledger, budgets, pricing, core.telemetry)
    try:
        yield UsageServices(budgets, metering, UsageService(ledger, budgets, settings.usage.usage_admins))
    finally:
        await metering.close()
