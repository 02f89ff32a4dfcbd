"""Times on the wire: ISO 8601, UTC, milliseconds."""

from typing import Annotated

from pydantic import Field

from backend.kit.ids import iso

__all__ = ["Time", "iso"]

Time = Annotated[str, Field(examples=["2026-01-31T12:00:00.000Z"], json_schema_extra={"format": "date-time"})]
