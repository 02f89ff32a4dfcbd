"""Opens telemetry: the sinks that the settings turn on. A sink that is off is not imported."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from backend.config.groups.telemetry import TelemetrySettings
from backend.config.settings import SettingsError
from backend.services.telemetry import exporter
from backend.services.telemetry.telemetry import Sink, Telemetry

if TYPE_CHECKING:
    from backend.services.telemetry.metrics import Metrics


def check_telemetry(settings: TelemetrySettings) -> None:
    """Raises SettingsError if traces are on and can't be sent."""
    if exporter.is_on(settings.otel) and (problem := exporter.missing()) is not None:
        raise SettingsError(f"OTEL: {problem}")


def make_telemetry(settings: TelemetrySettings) -> tuple["Metrics | None", Telemetry]:
    """The metrics, if they are on, and the telemetry with all sinks. Raises SettingsError.

    The middleware needs both before anything is opened; `opened` starts and stops them.
    """
    check_telemetry(settings)
    metrics: Metrics | None = None
    sinks: list[Sink] = []
    if settings.metrics:
        from backend.services.telemetry import metrics as prometheus

        metrics = prometheus.Metrics()
        sinks.append(metrics)
    if exporter.is_on(settings.otel):
        from backend.services.telemetry.tracing import Tracing

        sinks.append(Tracing())
    return metrics, Telemetry(*sinks)


@asynccontextmanager
async def opened(telemetry: Telemetry) -> AsyncGenerator[Telemetry]:
    """Telemetry while its sinks are open."""
    try:
        await telemetry.open()
        yield telemetry
    finally:
        await telemetry.close()
