"""What the server logs."""

from typing import Literal

from pydantic import Field, field_validator

from backend.config.fields import SettingsGroup


class LogSettings(SettingsGroup):
    """What the server logs."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")
    log_format: Literal["console", "json"] = Field("console", description="`json` logs one JSON object per line.")
    log_provider_text: bool = Field(False, description="1 logs providers' own error texts; they may quote the prompt.")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value
