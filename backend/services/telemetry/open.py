"""What is measured of this server, by its settings."""

from backend.config.groups.telemetry import TelemetrySettings
from backend.config.settings import SettingsError
from backend.services.telemetry.metrics import Metrics
from backend.services.telemetry.telemetry import Telemetry
from backend.services.telemetry.tracing import Tracing, missing, wanted


def check_telemetry(settings: TelemetrySettings) -> None:
    """Raises SettingsError when traces are to be sent and can't be."""
    if wanted(settings.otel) and (why := missing()) is not None:
        raise SettingsError(f"OTEL: {why}")


def open_telemetry(settings: TelemetrySettings) -> tuple[Metrics | None, Telemetry]:
    """The metrics, if there are to be any, and what the work is told to. Raises SettingsError."""
    check_telemetry(settings)
    metrics = Metrics() if settings.metrics else None
    tracing = Tracing() if wanted(settings.otel) else None
    return metrics, Telemetry(*(sink for sink in (metrics, tracing) if sink is not None))
