"""What the server logs."""

from typing import Literal

from pydantic import Field, field_validator

from backend.config.fields import SettingsGroup


class LogSettings(SettingsGroup):
    """What the server logs."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")
    log_format: Literal["console", "json"] = Field("console", description="`json` logs one JSON object per line.")
    log_provider_text: bool = Field(
        True, description="0 leaves providers' own error texts out of the log: they may quote the prompt."
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value
