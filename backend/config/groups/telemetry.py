"""Metrics and traces."""

from pydantic import Field

from backend.config.fields import SettingsGroup


class TelemetrySettings(SettingsGroup):
    """Metrics and traces."""

    metrics: bool = Field(False, description="1 serves Prometheus metrics at GET /metrics.")
    otel: bool | None = Field(
        None,
        description="1 sends traces with OpenTelemetry, 0 never does. Unset: only if OTEL_EXPORTER_OTLP_ENDPOINT is "
        "set. OpenTelemetry's other variables are read from the environment only, not from .env.",
    )
